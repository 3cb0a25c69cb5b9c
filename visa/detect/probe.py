"""The probe: a linear classifier on the frozen features of normal and anomalous training images.

It takes seconds where fine-tuning takes minutes, and it separates pre-trainings in the few-shot setups, for which the
paper reports gains.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from visa.backbone import FeatureMaps
from visa.data.setups import Split
from visa.data.splits import Sample
from visa.detect.shared import Context, Extract, is_anomaly
from visa.errors import VisaError

LAYERS = ("layer2", "layer3", "layer4")
SIZE = (224, 336)  # height, width: the 2:3 of VisA's photographs


def score_split(context: Context, split: Split) -> tuple[NDArray[np.float32], None]:
    """Fit a probe on a split's training images and score its test images (N,); higher is more anomalous."""
    probe = fit_probe(features_of(context, split.train), is_anomaly(split.train))
    return np.asarray(probe.decision_function(features_of(context, split.test)), np.float32), None


def features_of(context: Context, samples: Sequence[Sample]) -> NDArray[np.float32]:
    """Return the samples' pooled features (N, D); the backbone sees each image once for all setups and draws."""
    rows: dict[str, NDArray[np.float32]] = context.kept.setdefault("probe", {})
    if new := [s for s in samples if s.image not in rows]:
        batches = context.batches(new, SIZE)
        pooled = pooled_features(FeatureMaps(context.backbone, LAYERS), batches, context.progress)
        rows.update(zip((s.image for s in new), pooled, strict=True))
    return np.stack([rows[s.image] for s in samples])


@torch.no_grad()
def pooled_features(extract: Extract, batches: Iterable[Tensor], progress: bool = False) -> NDArray[np.float32]:
    """Pool each map of batches N,3,H,W in [0,1] by mean and maximum over positions: (N, 2 * channels of all maps)."""
    pooled = []
    for images in tqdm(batches, "features", disable=not progress):
        maps = extract(images)
        pooled.append(torch.cat([m.mean((2, 3)) for m in maps] + [m.amax((2, 3)) for m in maps], dim=1).float().cpu())
    return torch.cat(pooled).numpy()


def fit_probe(features: ArrayLike, labels: ArrayLike) -> Pipeline:
    """Fit a class-balanced logistic regression on standardised features (N, D) and labels (N,), 1 for an anomaly.

    Raises VisaError if the images are all of one class.
    """
    y = np.asarray(labels)
    if len(np.unique(y)) < 2:
        raise VisaError("a probe needs normal and anomalous training images: use a 2-class split.")
    classifier = LogisticRegression(class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), classifier).fit(np.asarray(features), y)
