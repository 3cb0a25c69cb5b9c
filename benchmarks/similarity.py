"""How similar features are before and after a change of the image: a global, harmless one, or a local one of any size.

python benchmarks/similarity.py --root VISA --run runs/NAME --arch ARCH --out book/results/similarity

Normal test images of one object, features pooled as the probe pools them and centred on the mean of the unchanged
images, so that a cosine says how one image differs from another and not how all differ from zero. The networks are
those of a finished run.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visa.backbone import FeatureMaps, load_backbone
from visa.data.dataset import load_images
from visa.data.splits import read_split, select, split_file
from visa.detect.probe import pooled_features
from visa.pipeline import GivenWeights
from visa.pretrain.augment import WEAK, Draws, random_view
from visa.pretrain.smoothblend import SmoothBlend, draw_patches, smooth_blend
from visa.provenance import file_digest, machine, write_rows, write_text

AREAS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)  # of the image
COLUMNS = ("pretraining", "seed", "change", "area", "cosine")


def changes(images: Tensor, draw: int) -> Iterator[tuple[str, float, Tensor]]:
    """Kind, area and result of each change; the patches of all areas come from the same draws."""
    side = images.shape[-1]
    for k in range(2):
        yield "weak view", 0.0, random_view(images, side, WEAK, Draws(torch.Generator().manual_seed(100 * draw + k)))
    for area in AREAS:
        draws = Draws(torch.Generator().manual_seed(draw))
        patches = draw_patches(len(images), side, SmoothBlend(area=(area, area)), draws)
        yield "SmoothBlend", area, smooth_blend(images, patches)[0]


def cosines(a: NDArray[np.float32], b: NDArray[np.float32], centre: NDArray[np.float32]) -> float:
    """Mean cosine of rows of `a` and `b` about `centre`."""
    x, y = a - centre, b - centre
    return float(((x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))).mean())


def measure(backbone: torch.nn.Module, images: Tensor, draws: int) -> dict[tuple[str, float], float]:
    """Kind and area to the mean cosine of an image's features with those of its changed self."""
    extract = FeatureMaps(backbone)
    plain = pooled_features(extract, images.split(32))
    found: dict[tuple[str, float], list[float]] = {}
    for draw in range(draws):
        for kind, area, changed in changes(images, draw):
            features = pooled_features(extract, changed.split(32))
            found.setdefault((kind, area), []).append(cosines(plain, features, plain.mean(0)))
    return {key: float(np.mean(values)) for key, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--object", default="fryum")
    parser.add_argument("--arch", required=True)
    parser.add_argument("--size", type=int, default=64, help="side of the images: that of the pre-training's views")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--weights", nargs="*", default=(), metavar="NAME=ARCH:FILE")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    samples = select(read_split(split_file(options.root, "1cls")), object=options.object, split="test", label="normal")
    images = load_images(options.root, samples, (options.size, options.size)).float() / 255
    files = sorted(options.run.glob(f"pretrain/*/{options.object}/seed*/backbone.safetensors"))
    networks = [(f.parts[-4], int(f.parts[-2].removeprefix("seed")), options.arch, f) for f in files]
    networks += [(w.name, 0, w.arch, w.file) for w in map(GivenWeights.parse, options.weights)]
    rows = []
    for name, seed, arch, file in networks:
        measured = measure(load_backbone(arch, file), images, options.draws)
        rows += [
            dict(zip(COLUMNS, (name, seed, kind, area, f"{value:.5f}"), strict=True))
            for (kind, area), value in measured.items()
        ]
    write_rows(options.out / "similarity.csv", COLUMNS, rows)
    record = {
        "script": "benchmarks/similarity.py",
        "dataset": "VisA",
        "settings": {"object": options.object, "arch": options.arch, "image_size": options.size},
        "images": len(images),
        "draws": options.draws,
        "networks": {f"{name}/{seed}": file_digest(file) for name, seed, _, file in networks},
        "pretrainings": {
            f"{name}/{seed}": json.loads(sidecar.read_text(encoding="utf-8"))
            for name, seed, _, file in networks
            if (sidecar := file.with_name(f"{file.name}.json")).is_file()
        },
        "machine": machine(),
    }
    write_text(options.out / "provenance.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
