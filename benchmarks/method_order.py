"""Whether pre-trainings rank on mini-VisA's fryum as they do on the real one.

It trains and scores them on the rendered object, with the settings of the runs on the real one.

    python benchmarks/method_order.py --weights imagenet=timm/tf_efficientnet_lite0:lite0.safetensors \
        --out book/results/mini_visa/fryum.csv

Settings of a pre-training are those of its run on real fryum, as `--like` recorded them; the detectors' are the
notebooks'. `--scale` is the share of VisA's own numbers of images: half as many make half as many steps. Rows are
appended run by run, one that is in the file already is not made again, and the book compares the two files.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from visa.backbone import load_backbone
from visa.data.source import Source, open_source
from visa.detect.score import score_metrics, score_setups
from visa.detect.shared import Context, ScoreSettings
from visa.mini import write_mini_visa
from visa.plan import DEFAULT_DETECTORS, DEFAULT_PRETRAININGS, GivenWeights
from visa.pretrain.fabric import make_fabric
from visa.pretrain.session import run_pretraining, run_random, training_data
from visa.pretrain.settings import METHODS, configured
from visa.provenance import machine, write_text

OBJECT, SETUPS = "fryum", ("1cls", "2cls_10shot")
COLUMNS = ("object", "setup", "draw", "pretraining", "seed", "detector", "level", "metric", "value")
TAKEN = ("arch", "epochs", "batch_size", "image_size", "base_lr", "optimizer", "warmup_epochs", "schedule", "queue")


def pretrained(source: Source, pretraining: str, seed: int, like: dict, folder: Path) -> tuple[str, Path]:
    """Architecture and weights of a pre-training on the rendered object, with the settings of the real one's."""
    method, _, spd = pretraining.partition("+")
    recorded = like[f"{pretraining}/{OBJECT}/{seed}"]["settings"]
    chosen = {name: recorded[name] for name in (*TAKEN, "key_momentum")} | {"seed": seed}
    if spd:
        chosen["eta"] = recorded["spd"]["eta"]
    settings = configured(METHODS[0] if method == "random" else method, bool(spd), chosen)
    data = training_data(source, OBJECT, "", settings.image_size)
    if method == "random":
        run_random(settings, data, folder)
    else:
        run_pretraining(settings, data, folder, make_fabric("cpu"))
    return settings.arch, folder / "backbone.safetensors"


def scored(source: Source, arch: str, file: Path, seed: int, folder: Path) -> Iterator[dict[str, object]]:
    """Figures of the detectors on the weights."""
    context = Context(load_backbone(arch, file, seed).eval(), source.root, ScoreSettings(seed=seed))
    for scores in score_setups(context, source, OBJECT, folder, DEFAULT_DETECTORS, SETUPS):
        yield from score_metrics(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrainings", default=",".join(DEFAULT_PRETRAININGS))
    parser.add_argument("--weights", action="append", default=[], help="NAME=ARCH:FILE, scored beside them")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--like", type=Path, default=Path("book/results/methods_fryum/provenance.json"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="a CSV file; its provenance goes beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    like = json.loads(options.like.read_text(encoding="utf-8"))["pretrainings"]
    given = {w.name: w for w in map(GivenWeights.parse, options.weights)}
    done = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame(columns=COLUMNS)
    known = {(r.pretraining, r.seed) for r in done.itertuples()}
    names = (*options.pretrainings.split(","), *given)
    jobs = [(n, s) for s in map(int, options.seeds.split(",")) for n in names if (n, s) not in known]
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(str(write_mini_visa(Path(scratch) / "mini-visa", [OBJECT], scale=options.scale)))
        for name, seed in tqdm(jobs, unit="run"):
            folder, started = Path(scratch) / f"{name}-{seed}", time.process_time()
            chosen = given.get(name)
            arch, file = (chosen.arch, chosen.file) if chosen else pretrained(source, name, seed, like, folder)
            rows = [
                {**row, "object": OBJECT, "pretraining": name, "seed": seed}
                for row in scored(source, arch, file, seed, folder)
            ]
            options.out.parent.mkdir(parents=True, exist_ok=True)
            with options.out.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
                if stream.tell() == 0:
                    writer.writeheader()
                writer.writerows(rows)
            tqdm.write(f"{name}, seed {seed}: {time.process_time() - started:.0f} CPU s")
    facts = {"scale": options.scale, "settings": f"those of {options.like.parent.name}", "threads": options.threads}
    write_text(options.out.with_suffix(".json"), json.dumps({**facts, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
