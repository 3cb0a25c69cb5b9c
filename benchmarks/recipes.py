"""PaDiM and PatchCore at the image sizes of published numbers on VisA: same weights, split and code, 1-class.

    python benchmarks/recipes.py --root /data/VisA --objects fryum macaroni1 --arch timm/tf_efficientnet_lite0 \
        --weights lite0.safetensors --out book/results/recipes/recipes.json

A centre crop follows a resize of the shorter side, as in the code of PatchCore's authors; the others squash the image.
An anomaly whose defect lies outside the crop still counts as an anomalous image.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from common import show, write_record
from torchvision.transforms.functional import center_crop

from visa.backbone import load_backbone
from visa.data.dataset import load_images, load_masks
from visa.data.images import upright_size
from visa.data.setups import splits
from visa.data.source import open_source
from visa.detect.score import score_metrics, score_split
from visa.detect.shared import Context
from visa.provenance import file_digest, write_text

RECIPES = {"224, squashed": (224, False), "256, centre 224": (256, True), "336, squashed": (336, False)}
CROP = (224, 224)


class Recipe(Context):
    """A context whose images are resized to `resized`, of which the centre of the context's size is taken."""

    resized: tuple[int, int]

    def images(self, samples, size):
        return center_crop(load_images(self.root, samples, self.resized), list(size))


def measured(source, object, backbone, detector):
    """A row for each recipe, level and metric."""
    (split,) = splits(source, object, "1cls")
    height, width = upright_size(source.root / split.test[0].image)
    short = min(height, width)
    for name, (side, cropped) in RECIPES.items():
        context = Recipe(backbone, source.root, size=CROP if cropped else (side, side))
        context.resized = (side * height // short, side * width // short) if cropped else (side, side)
        masks = center_crop(load_masks(source.root, split.test, context.resized)[0], list(context.size)).numpy()
        for row in score_metrics(replace(score_split(context, detector, split), masks=masks)):
            yield {"object": object, "recipe": name, **{k: row[k] for k in ("detector", "level", "metric", "value")}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a VisA root; default: VISA_ROOT")
    parser.add_argument("--objects", nargs="+", required=True)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="a JSON file to write, and a CSV file beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    source = open_source(str(options.root or ""), options.objects)
    backbone, rows = load_backbone(options.arch, options.weights), []
    for object in options.objects:
        for detector in ("padim", "patchcore"):
            rows += measured(source, object, backbone, detector)
    show(rows)
    if options.out:
        write_record(options.out, options, weights_digest=file_digest(options.weights))
        write_text(options.out.with_suffix(".csv"), pd.DataFrame(rows).round({"value": 5}).to_csv(index=False))


if __name__ == "__main__":
    main()
