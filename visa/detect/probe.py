"""The few-shot probe: a linear classifier on frozen features, trained on a few images of each class.

Seconds where the full detectors take minutes, and it tells pre-trainings apart in the setting where the paper sees its
gains: 5 or 10 images of each class, drawn from the training part of the official few-shot split, means over five draws.
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

from visa.data.splits import Sample, select
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


def few_shot_draws(samples: Sequence[Sample], k: int, draws: int = 5, seed: int = 0) -> list[list[Sample]]:
    """`draws` training sets of k normal and k anomalous images of one object, each drawn without replacement.

    `samples` are the object's rows of a 2-class split file, of which only the training part is drawn from.
    Raises VisaError if a class has fewer than k training images or the samples are of several objects.
    """
    if len({s.object for s in samples}) > 1:
        raise VisaError("few-shot draws are of one object: select(samples, object=...) first.")
    rng = np.random.default_rng(seed)
    pools = [select(samples, split="train", label=label) for label in ("normal", "anomaly")]
    if not 1 <= k <= min(map(len, pools)):
        raise VisaError(f"cannot draw k={k} of each class from {len(pools[0])} normal and {len(pools[1])} anomalous.")
    return [[pool[i] for pool in pools for i in rng.choice(len(pool), k, replace=False)] for _ in range(draws)]


def fit_probe(features: ArrayLike, labels: ArrayLike) -> Pipeline:
    """A class-balanced logistic regression on standardised features (N, D) and labels (N,), 1 for an anomaly."""
    y = np.asarray(labels)
    if len(np.unique(y)) < 2:
        raise VisaError("a probe needs normal and anomalous training images: use a 2-class split.")
    classifier = LogisticRegression(class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), classifier).fit(np.asarray(features), y)


def few_shot_scores(
    features: NDArray[np.float32], samples: Sequence[Sample], k: int, draws: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """Scores (draws, T) of the whole test part, in the samples' order, by one probe for each draw.

    `features` (N, D) are those of `samples`, row by row; higher scores are more anomalous.
    Raises VisaError as `few_shot_draws` does, and if features and samples differ in number.
    """
    if len(features) != len(samples):
        raise VisaError(f"{len(features)} rows of features for {len(samples)} samples: pass one row each, in order.")
    row = {s.image: i for i, s in enumerate(samples)}
    test = features[[row[s.image] for s in select(samples, split="test")]]
    scores = []
    for drawn in few_shot_draws(samples, k, draws, seed):
        probe = fit_probe(features[[row[s.image] for s in drawn]], [s.label == "anomaly" for s in drawn])
        scores.append(probe.decision_function(test))
    return np.stack(scores)
