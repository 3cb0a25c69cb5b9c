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
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from visa.backbone import FeatureMaps, load_backbone
from visa.data.dataset import load_images
from visa.data.setups import Split, splits
from visa.data.source import open_source
from visa.detect import padim, patchcore
from visa.detect.deploy import DEPLOYABLE as ONE_CLASS
from visa.detect.deploy import make_detector
from visa.detect.scores import EVALUATION_SIZE
from visa.metrics import image_metrics
from visa.mini import MODULES, write_mini_visa
from visa.plan import GivenWeights
from visa.provenance import machine, write_text

COLUMNS = ("object", "weights", "arch", "seed", "detector", "auroc")
LAYERS = {"padim": padim.LAYERS, "patchcore": patchcore.LAYERS}
Batches = dict[str, list[torch.Tensor]]


class Maps:
    """Feature maps of batches that come back: one forward pass serves both detectors, and all their seeds."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        self.backbone, self.layers = backbone, padim.LAYERS
        self.extract, self.seen = FeatureMaps(backbone, self.layers), {}

    def of(self, layers: tuple[str, ...], images: torch.Tensor) -> list[torch.Tensor]:
        if id(images) not in self.seen:
            self.seen[id(images)] = self.extract(images)
        return [self.seen[id(images)][self.layers.index(layer)] for layer in layers]


def image_aurocs(maps: Maps, batches: Batches, split: Split, seed: int) -> dict[str, float]:
    """Image AU-ROC of each one-class detector on the 1cls split of an object, as notebook 04 scores it."""
    found, labels = {}, [sample.label == "anomaly" for sample in split.test]
    for kind in ONE_CLASS:
        detector = make_detector(kind, maps.backbone, settings={"seed": seed})
        detector.extract = partial(maps.of, LAYERS[kind])
        detector.fit(batches["train"])
        scores = [score for images in batches["test"] for score in detector.score(images)[0]]
        found[kind] = image_metrics(scores, labels)["auroc"]
    return found


def load_batches(root: Path, split: Split) -> Batches:
    """The images of a split, as notebook 04 reads them."""
    parts = {"train": split.train, "test": split.test}
    return {
        part: [b.float() / 255 for b in torch.split(load_images(root, samples, EVALUATION_SIZE), 16)]
        for part, samples in parts.items()
    }


def candidates(weights: list[str], seeds: list[int]) -> Iterator[tuple[str, str, Path | None, list[int]]]:
    """Name of the weights, architecture, file and seeds of the detectors; beside them random weights of each seed."""
    given = [GivenWeights.parse(text) for text in weights]
    yield from ((w.name, w.arch, w.file, seeds) for w in given)
    yield from (("random", arch, None, [seed]) for seed in seeds for arch in dict.fromkeys(w.arch for w in given))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of the better detector: objects x weights."""
    best = rows.groupby(["object", "arch", "weights", "seed"])["auroc"].max()
    return best.groupby(["object", "arch", "weights"]).mean().unstack(["arch", "weights"])


def append(file: Path, rows: list[tuple[object, ...]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if stream.tell() == 0:
            writer.writerow(COLUMNS)
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", action="append", required=True, help="NAME=ARCH:FILE")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--objects", default=",".join(MODULES))
    parser.add_argument("--difficulty", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="a CSV file; its provenance goes beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    done = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame(columns=COLUMNS)
    known = {(r.object, r.weights, r.arch, r.seed) for r in done.itertuples()}
    with tempfile.TemporaryDirectory() as scratch:
        names = options.objects.split(",")
        settings = {"size": options.size, "seed": options.data_seed, "difficulty": options.difficulty}
        source = open_source(str(write_mini_visa(Path(scratch) / "mini-visa", names, workers=1, **settings)))
        for name in tqdm(names, unit="object"):
            (split,) = splits(source, name, "1cls")
            batches = load_batches(source.root, split)
            for weights, arch, file, seeds in candidates(options.weights, list(map(int, options.seeds.split(",")))):
                missing = [seed for seed in seeds if (name, weights, arch, seed) not in known]
                maps = Maps(load_backbone(arch, file, seeds[0]))
                for seed in missing:
                    found = image_aurocs(maps, batches, split, seed)
                    append(options.out, [(name, weights, arch, seed, d, f"{v:.4f}") for d, v in found.items()])
    facts = {"data": settings, "threads": options.threads, "machine": machine()}
    write_text(options.out.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
    print(summary(pd.read_csv(options.out)).round(3).to_string())


if __name__ == "__main__":
    main()
