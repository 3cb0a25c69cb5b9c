"""The same maps of real fryum under the conventions that published figures follow: book/evaluation.md.

    python benchmarks/metric_conventions.py --root VISA --scores "PaDiM=padim.npz" "PatchCore=patchcore.npz" \\
        --out book/results/metric_conventions

`--scores`: labels and scores.npz files of notebook 04, of one object; `--root`: the VisA folder with its images, for
masks at other sizes. Writes conventions.csv (topic, convention, figure, detector, value) and provenance.json.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from visa.detect.scores import load_scores
from visa.metrics import compute_localization_metrics, image_metrics, pixel_metrics
from visa.provenance import file_digest, machine, write_rows, write_text

COLUMNS = ("topic", "convention", "figure", "detector", "value")
SIZES = ((112, 112), (224, 224), (500, 750), (1000, 1500))  # maps and masks; the photographs have about the last
LIMITS = (0.05, 0.1, 0.3, 1.0)
SIGMAS = (0, 2, 4, 8)
HALVES = 20
FEWER, SUBSETS = (50, 20, 10, 5), 200  # anomalies that are left, and how often they are drawn
Row = tuple[str, str, str, float]  # topic, convention, figure, value


def topics(scores: dict[str, Any], root: Path) -> Iterator[Row]:
    maps, masks = scores["maps"], scores["masks"]
    exact = pixel_metrics(maps, masks)
    yield from areas(scores, exact)
    yield from roundings(maps, masks)
    yield from normals(maps, masks, exact)
    yield from sizes(maps, [full_mask(root, path) for path in scores["paths"]])
    for limit in LIMITS:
        yield "AU-PRO up to", f"{limit:g}", "au_pro", pixel_metrics(maps, masks, limit)["au_pro"]
    for sigma in SIGMAS:
        smooth = maps if not sigma else np.stack([cv2.GaussianBlur(m, (0, 0), sigma) for m in maps])
        for figure in ("auroc", "ap", "au_pro"):
            yield "smoothing", f"sigma {sigma} px", figure, pixel_metrics(smooth, masks)[figure]
    yield from thresholds(scores)
    yield from imbalances(scores["image_scores"], scores["labels"])


def areas(scores: dict[str, Any], exact: dict[str, float]) -> Iterator[Row]:
    """Trapezoid, step and sweep, of the detector and of scores that say nothing."""
    maps, masks = scores["maps"], scores["masks"]
    image = image_metrics(scores["image_scores"], scores["labels"])
    constant = np.zeros_like(maps)
    for who, of, figures in (
        ("detector, images", None, image),
        ("detector, pixels", maps, exact),
        ("constant scores, pixels", constant, pixel_metrics(constant, masks)),
    ):
        yield "AU-PR", f"{who}: trapezoid, exact", "au_pr", figures["au_pr"]
        yield "AU-PR", f"{who}: step (AP), exact", "au_pr", figures["ap"]
        if of is not None:
            sweep = compute_localization_metrics(of, masks)
            yield "AU-PR", f"{who}: trapezoid, 202 thresholds", "au_pr", sweep["pr_auc"]
            yield "AU-ROC", f"{who}: 202 thresholds", "auroc", sweep["roc_auc"]
            yield "AU-ROC", f"{who}: exact", "auroc", figures["auroc"]


def roundings(maps: np.ndarray, masks: np.ndarray) -> Iterator[Row]:
    low, high = maps.min(), maps.max()
    own_low, own_high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    stored = {
        "as scored": maps,
        "half precision": maps.astype(np.float16),
        "8 bit, one scale": np.rint((maps - low) / (high - low) * 255).astype(np.float32),
        "8 bit, each image on its own scale": np.rint((maps - own_low) / (own_high - own_low) * 255).astype(np.float32),
    }
    for convention, kept in stored.items():
        figures = pixel_metrics(kept, masks)
        for figure in ("auroc", "au_pr", "ap", "au_pro"):
            yield "stored scores", convention, figure, figures[figure]


def normals(maps: np.ndarray, masks: np.ndarray, exact: dict[str, float]) -> Iterator[Row]:
    anomalous = masks.any(axis=(1, 2))
    alone = pixel_metrics(maps[anomalous], masks[anomalous])
    each = [pixel_metrics(m[None], t[None]) for m, t in zip(maps[anomalous], masks[anomalous], strict=True)]
    for figure in ("auroc", "ap", "au_pro"):
        yield "images", "all images together", figure, exact[figure]
        yield "images", "anomalous images together", figure, alone[figure]
        yield "images", "mean of each anomalous image's own", figure, float(np.mean([e[figure] for e in each]))


def sizes(maps: np.ndarray, masks: list[np.ndarray | None]) -> Iterator[Row]:
    """At each size: maps stretched (bilinear), masks from their own size (nearest); None: normal."""
    for size in SIZES:
        truth = np.zeros((len(maps), *size), np.uint8)
        for i, mask in enumerate(masks):
            if mask is not None:
                truth[i] = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        stretched = np.stack([cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in maps])
        figures = pixel_metrics(stretched, truth)
        for figure in ("auroc", "ap", "au_pro"):
            yield "size", f"{size[0]} x {size[1]}", figure, figures[figure]
        regions = sum(cv2.connectedComponents(t, connectivity=8)[0] - 1 for t in truth)
        yield "size", f"{size[0]} x {size[1]}", "regions", regions


def full_mask(root: Path, path: str) -> np.ndarray | None:
    """The mask of an image at its own size, 0 and 1, by the object's image_anno.csv."""
    table = root / Path(path).parts[0] / "image_anno.csv"
    with table.open(newline="", encoding="utf-8") as stream:
        name = next(row["mask"] for row in csv.DictReader(stream) if row["image"] == path)
    return (cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED) > 0).astype(np.uint8) if name else None


def thresholds(scores: dict[str, Any]) -> Iterator[Row]:
    """F1 with the threshold chosen on the images that it is measured on, and on the other half of the test images."""
    image, labels = scores["image_scores"], scores["labels"]
    maps, masks = scores["maps"], scores["masks"]
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(HALVES):
        order = np.random.default_rng(seed).permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        choose, judge = order[::2], order[1::2]
        for level, s, t, metrics in (("images", image, labels, image_metrics), ("pixels", maps, masks, pixel_metrics)):
            judged = metrics(s[judge], t[judge])
            found.setdefault((level, "on the same images"), []).append(judged["f1_max"])
            called, true = s[judge] >= metrics(s[choose], t[choose])["f1_threshold"], t[judge] > 0
            f1 = 2 * (called & true).sum() / (called.sum() + true.sum())
            found.setdefault((level, "on other images"), []).append(float(f1))
    for (level, where), values in found.items():
        yield "F1, threshold chosen", f"{level}: {where}", "f1", float(np.mean(values))


def imbalances(scores: np.ndarray, labels: np.ndarray) -> Iterator[Row]:
    """Image metrics of all normal images and fewer and fewer anomalies: means over SUBSETS random subsets."""
    normal, anomalous = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    for count in (len(anomalous), *(n for n in FEWER if n < len(anomalous))):
        drawn = (np.random.default_rng(seed).choice(anomalous, count, replace=False) for seed in range(SUBSETS))
        kept = [np.concatenate([normal, some]) for some in drawn]
        found = [image_metrics(scores[images], labels[images]) for images in kept]
        for figure in ("auroc", "au_pr", "ap"):
            values = [metrics[figure] for metrics in found]
            yield "imbalance", f"{count} anomalies to {len(normal)} normal images", figure, float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--scores", nargs="+", required=True, metavar="LABEL=FILE")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows, inputs, made_by = [], {}, machine()  # asked before results change the work tree
    for named in options.scores:
        label, file = named.split("=", 1)
        scores = load_scores(Path(file))
        if scores.maps is None or not scores.known.all():
            sys.exit(f"{file} lacks maps or masks: name the scores of a detector on an object with all masks.")
        inputs[label] = {name: getattr(scores, name) for name in ("object", "setup", "detector")}
        inputs[label] |= {"images": len(scores.labels), "sha256": file_digest(Path(file))}
        found = topics(vars(scores), options.root)
        rows += [dict(zip(COLUMNS, (*row[:3], label, f"{row[3]:.6g}"), strict=True)) for row in found]
        print(f"{label}: done", flush=True)
    write_rows(options.out / "conventions.csv", COLUMNS, rows)
    record = {"script": "benchmarks/metric_conventions.py", "inputs": inputs, "machine": made_by}
    write_text(options.out / "provenance.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
