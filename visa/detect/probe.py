"""The probe: a linear classifier on the frozen features of normal and anomalous training images.

Seconds where fine-tuning takes minutes, and it tells pre-trainings apart in the few-shot setups, in which the paper
sees its gains.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import tqdm

from visa.backbone import FeatureMaps
from visa.data.dataset import load_images
from visa.data.setups import Split
from visa.data.splits import Sample
from visa.detect.shared import Extract
from visa.errors import VisaError

LAYERS = ("layer2", "layer3", "layer4")
SIZE = (224, 336)  # height, width: the 2:3 of VisA's photographs


@torch.no_grad()
def pooled_features(extract: Extract, batches: Iterable[Tensor], progress: bool = False) -> NDArray[np.float32]:
    """Mean and maximum over the positions of each map: (N, 2 * channels of all maps) for batches N,3,H,W in [0,1].

    `extract` gives the maps of LAYERS; the images have SIZE.
    Raises VisaError without images.
    """
    pooled = []
    for images in tqdm(batches, "features", disable=not progress):
        maps = extract(images)
        pooled.append(torch.cat([m.mean((2, 3)) for m in maps] + [m.amax((2, 3)) for m in maps], dim=1).float().cpu())
    if not pooled:
        raise VisaError("the probe got no images: check the object and the split.")
    return torch.cat(pooled).numpy()


def fit_probe(features: ArrayLike, labels: ArrayLike) -> Pipeline:
    """A class-balanced logistic regression on standardised features (N, D) and labels (N,), 1 for an anomaly."""
    y = np.asarray(labels)
    if len(np.unique(y)) < 2:
        raise VisaError("a probe needs normal and anomalous training images: use a 2-class split.")
    classifier = LogisticRegression(class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), classifier).fit(np.asarray(features), y)


class PooledFeatures:
    """The pooled features of an object's images under one backbone, each image seen once for all setups and draws."""

    def __init__(self, backbone: nn.Module, root: Path, progress: bool = False) -> None:
        self._extract = FeatureMaps(backbone, LAYERS)
        self._root, self._progress = root, progress
        self._device = next(backbone.parameters()).device
        self._rows: dict[str, NDArray[np.float32]] = {}

    def __call__(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Features (N, D) of the samples, in their order."""
        if new := [s for s in samples if s.image not in self._rows]:
            images = load_images(self._root, new, SIZE, progress=self._progress)
            batches = (part.to(self._device).float() / 255 for part in torch.split(images, 16))
            self._rows.update(zip((s.image for s in new), pooled_features(self._extract, batches), strict=True))
        return np.stack([self._rows[s.image] for s in samples])


def score_probe(features: PooledFeatures, split: Split) -> NDArray[np.float32]:
    """Scores (N,) of a split's test images by a probe on its training images; higher is more anomalous."""
    probe = fit_probe(features(split.train), [s.label == "anomaly" for s in split.train])
    return np.asarray(probe.decision_function(features(split.test)), np.float32)
