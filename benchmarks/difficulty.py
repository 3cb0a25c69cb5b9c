"""How hard mini-VisA's objects are: image AU-ROC of PaDiM and PatchCore, with random and with trained weights.

    python benchmarks/difficulty.py --weights imagenet=timm/tf_efficientnet_lite0:lite0.safetensors --seeds 0,1,2 \
        --out book/results/mini_visa/difficulty.csv

For every architecture among `--weights` there are random weights of each seed, too. The better of the two detectors
judges an object; on a useful one it lies between .6 and .98, with trained weights above random ones. Data: mini-VisA as
the notebooks use it, or that of `--difficulty`, `--size` and `--data-seed`. Rows are appended object by object; one
that is in the file already is not measured again.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import pandas as pd
import torch
from common import write_record
from tqdm import tqdm

from visa.backbone import load_backbone
from visa.data.setups import splits
from visa.data.source import open_source
from visa.detect.score import score_split
from visa.detect.shared import Context, ScoreSettings
from visa.metrics import image_metrics
from visa.mini import MODULES, write_mini_visa
from visa.pipeline import GivenWeights

COLUMNS = ("object", "weights", "arch", "seed", "detector", "auroc")


def candidates(weights, seeds):
    """Name of the weights, architecture, file and seed; beside those given, random weights of each architecture."""
    yield from ((w.name, w.arch, w.file, seed) for w in weights for seed in seeds)
    yield from (("random", arch, None, seed) for seed in seeds for arch in dict.fromkeys(w.arch for w in weights))


def measure(source, object, arch, file, seed):
    """Image AU-ROC of each one-class detector on the 1cls split of an object."""
    context = Context(load_backbone(arch, file, seed), source.root, ScoreSettings(seed=seed))
    (split,) = splits(source, object, "1cls")
    for detector in ("padim", "patchcore"):
        scores = score_split(context, detector, split)
        yield detector, f"{image_metrics(scores.image_scores, scores.labels)['auroc']:.4f}"


def append(file, rows):
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *rows] if stream.tell() == 0 else rows)


def summary(rows):
    """Mean over seeds of the better detector: objects x weights."""
    best = rows.groupby(["object", "arch", "weights", "seed"])["auroc"].max()
    return best.groupby(["object", "arch", "weights"]).mean().unstack(["arch", "weights"])


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", action="append", required=True, metavar="NAME=ARCH:FILE")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--objects", default=",".join(MODULES))
    parser.add_argument("--difficulty", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="a CSV file; its provenance goes beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    done = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame(columns=COLUMNS)
    known = {(r.object, r.weights, r.arch, r.seed) for r in done.itertuples()}
    weights, seeds = [GivenWeights.parse(text) for text in options.weights], [int(s) for s in options.seeds.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        names = options.objects.split(",")
        settings = {"size": options.size, "seed": options.data_seed, "difficulty": options.difficulty}
        source = open_source(str(write_mini_visa(Path(scratch) / "mini-visa", names, workers=1, **settings)))
        for name in tqdm(names, unit="object"):
            for label, arch, file, seed in candidates(weights, seeds):
                if (name, label, arch, seed) not in known:
                    found = measure(source, name, arch, file, seed)
                    append(options.out, [(name, label, arch, seed, *row) for row in found])
    options.weights = [w.name for w in weights]
    write_record(options.out.with_suffix(".json"), options, data=settings)
    print(summary(pd.read_csv(options.out)).round(3).to_string())


if __name__ == "__main__":
    main()
