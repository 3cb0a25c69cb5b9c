"""From a backbone and an object to scores and figures: what notebook 04 calls."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visa.backbone import FeatureMaps
from visa.data.dataset import VisaDataset, load_images, read_image
from visa.data.source import Source
from visa.data.splits import Sample, read_split, select, split_file
from visa.detect import padim, patchcore, probe
from visa.detect.scores import EVALUATION_SIZE, Scores
from visa.errors import check_choice
from visa.metrics import image_metrics, pixel_metrics
from visa.provenance import write_rows

DETECTORS = ("padim", "patchcore")
SHOTS = (5, 10)
FIGURES = ("auroc", "au_pr", "ap", "f1_max", "au_pro")
COLUMNS = ("dataset", "object", "setup", "pretraining", "seed", "detector", "level", "metric", "value")
_WIDE = 1000  # channels of layer1 to layer3 from which on PaDiM draws 550 of them, below it 100 (its section 4.3)


def score_object(
    detector_name: str,
    backbone: nn.Module,
    source: Source,
    object_id: str,
    seed: int,
    coreset_ratio: float,
    device: torch.device,
) -> Scores:
    """Fit a detector, `padim` or `patchcore`, on an object's 1cls training images and score its 1cls test images.

    Images are squashed to EVALUATION_SIZE; maps and masks have that size too.
    """
    check_choice("detector", detector_name, DETECTORS)
    test = _samples(source.root, object_id, "test")
    detector = _detector(detector_name, backbone.to(device), seed, coreset_ratio)
    detector.fit(_batches(_training_images(source.root, object_id), device), progress=True)
    items = _test_items(source.root, object_id)
    scored = [detector.score(x) for x in _batches(torch.stack([item["image"] for item in items]), device)]
    return Scores(
        paths=[s.image for s in test],
        labels=np.array([s.label == "anomaly" for s in test], np.uint8),
        image_scores=np.concatenate([s for s, _ in scored]),
        maps=np.concatenate([m for _, m in scored]),
        masks=np.stack([item["mask"].numpy() for item in items]),
        setup="1cls",
        object=object_id,
        detector=detector_name,
    )


def _samples(root: Path, object_id: str, part: str) -> list[Sample]:
    return select(read_split(split_file(root, "1cls")), object=object_id, split=part)


@lru_cache(maxsize=1)  # every detector of an object looks at the same images
def _training_images(root: Path, object_id: str) -> Tensor:
    return load_images(root, _samples(root, object_id, "train"), EVALUATION_SIZE)


@lru_cache(maxsize=1)
def _test_items(root: Path, object_id: str) -> list[dict[str, Any]]:
    samples = _samples(root, object_id, "test")
    dataset = VisaDataset(root, samples, EVALUATION_SIZE)
    return [dataset[i] for i in range(len(samples))]


def score_metrics(scores: Scores) -> list[dict[str, object]]:
    """Rows (setup, detector, level, metric, value): image figures, and pixel figures at EVALUATION_SIZE."""
    levels = {
        "image": image_metrics(scores.image_scores, scores.labels),
        "pixel": pixel_metrics(scores.maps, scores.masks),
    }
    return [row for level, figures in levels.items() for row in _rows(scores.setup, scores.detector, level, figures)]


def probe_metrics(backbone: nn.Module, source: Source, object_id: str, device: torch.device) -> list[dict[str, object]]:
    """Rows of the few-shot probe, means of five draws; shots of SHOTS beyond the training part are left out.

    The draws are the same for every backbone, so that a difference between two is not one of luck.
    """
    samples = select(read_split(split_file(source.root, "2cls_fewshot")), object=object_id)
    images = load_images(source.root, samples, probe.SIZE)
    features = probe.pooled_features(FeatureMaps(backbone.to(device), probe.LAYERS), _batches(images, device))
    labels = np.array([s.label == "anomaly" for s in select(samples, split="test")])
    rows: list[dict[str, object]] = []
    rarest = min(len(select(samples, split="train", label=label)) for label in ("normal", "anomaly"))
    for k in (k for k in SHOTS if k <= rarest):
        draws = probe.few_shot_scores(features, samples, k)
        figures = [image_metrics(scores, labels) for scores in draws]
        means = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
        rows += _rows("2cls_fewshot", f"probe-{k}", "image", means)
    return rows


def image_sizes(root: Path, paths: Sequence[str]) -> list[tuple[int, int]]:
    """Height and width of each image, upright."""
    shapes = [read_image(root / path).shape for path in paths]
    return [(shape[1], shape[2]) for shape in shapes]


def write_metrics(path: Path, rows: Sequence[Mapping[str, object]], **common: object) -> None:
    """Write rows as a long-format CSV with COLUMNS; `common` fills the columns that all rows share."""
    write_rows(path, COLUMNS, ({**common, **row} for row in rows))


def _detector(name: str, backbone: nn.Module, seed: int, coreset_ratio: float) -> padim.PaDiM | patchcore.PatchCore:
    if name == "patchcore":
        return patchcore.PatchCore(FeatureMaps(backbone, patchcore.LAYERS), ratio=coreset_ratio, seed=seed)
    extract = FeatureMaps(backbone, padim.LAYERS)
    probe_image = torch.zeros(1, 3, 64, 64, device=next(backbone.parameters()).device)
    channels = sum(m.shape[1] for m in extract(probe_image))
    return padim.PaDiM(extract, n_channels=550 if channels > _WIDE else 100, seed=seed)


def _batches(images: Tensor, device: torch.device, size: int = 16) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        yield images[start : start + size].to(device).float() / 255


def _rows(setup: str, detector: str, level: str, figures: Mapping[str, float]) -> list[dict[str, object]]:
    shared = {"setup": setup, "detector": detector, "level": level}
    return [{**shared, "metric": name, "value": figures[name]} for name in FIGURES if name in figures]
