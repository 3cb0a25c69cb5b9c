"""Exact AU-ROC, AU-PR, AP, F1-max and AU-PRO.

All of them follow from two counts at each distinct score of a positive: how many negatives score above it, and how
many at least as high. So all scores are sorted once, and the positives' scores, which are few, are searched for in
them.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from visa.errors import VisaError

Floats = NDArray[np.float64]


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compute the exact image-level metrics `auroc`, `au_pr`, `ap`, `f1_max`, `f1_threshold`.

    scores: (N,), higher is more anomalous; labels: (N,), bool, 0/1 or 0/255, normal images among them.
    `au_pr` is the trapezoid under the precision-recall curve that starts at recall 0, precision 1 (the paper's
    AU-PR), `ap` the sum of precision times gain in recall (scikit-learn's average precision). `f1_max` is the best
    over all thresholds, chosen on these same images; an image counts as anomalous if `score >= f1_threshold`, the
    highest of equally good thresholds. Equal scores share one point of a curve: constant scores give an AU-ROC of 0.5
    and an AP equal to the prevalence. Nothing is rounded.
    Raises VisaError for unequal shapes, labels other than two values, NaN scores, or labels of one class only.
    """
    s, positive = labelled(scores, labels)
    return _exact(s, Positives(s[positive], np.zeros(int(positive.sum())), 0))


def pixel_metrics(maps: ArrayLike, masks: ArrayLike, max_fpr: float = 0.3) -> dict[str, float]:
    """Compute the exact pixel-level metrics: those of `image_metrics` over all pixels of all images, and `au_pro`.

    maps: (N, H, W) anomaly scores, higher is more anomalous; masks: (N, H, W), bool, 0/1 or 0/255. Normal images must
    be included; their masks are empty. A pixel counts as anomalous if `score >= threshold`.
    `au_pro` (Bergmann et al. 2021, MVTec AD, section 5.3): mean share found of each connected region (8-connectivity,
    inside one image, every region of the data set with equal weight) against the false-positive rate over all normal
    pixels, trapezoid from 0 to `max_fpr` (linear between thresholds), divided by `max_fpr`.
    It depends on the size of the maps: report that with it. Memory: one more copy of the maps.
    Raises VisaError as `image_metrics` does, and for a `max_fpr` outside (0, 1].
    """
    if not 0 < max_fpr <= 1:
        raise VisaError(f"max_fpr is {max_fpr}: AU-PRO needs a false-positive rate above 0 and up to 1.")
    s, t = same_shape(maps, masks, ndim=3, what="pixel")
    found = [positives(image, mask) for image, mask in zip(s, t, strict=True)]
    check_values({value for f in found for value in f.values})
    scores, shares = (np.concatenate([f[i] for f in found] or [np.zeros(0)]) for i in (0, 1))
    check_both(scores.size, s.size)
    check_scores(s)
    return _exact(s, Positives(scores, shares, sum(f.regions for f in found)), max_fpr)


class Positives(NamedTuple):
    """The P anomalous pixels of one or more images, or P anomalous images, which have no regions."""

    scores: NDArray[Any]  # (P,)
    shares: Floats  # (P,) 1 / size of the pixel's own region (8-connectivity)
    regions: int
    values: tuple[float, ...] = ()  # least and greatest nonzero value of the mask


def positives(scores: NDArray[Any], mask: NDArray[Any]) -> Positives:
    """Find the anomalous pixels of one image (H, W), from a mask of bool, 0/1 or 0/255 (not checked here)."""
    binary = mask if mask.dtype == np.uint8 else (mask if mask.dtype == bool else mask != 0).view(np.uint8)
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(binary))
    if not width:
        return Positives(scores[:0, 0], np.zeros(0), 0)
    box = np.s_[y : y + height, x : x + width]
    count, labels = cv2.connectedComponents(np.ascontiguousarray(binary[box]), connectivity=8)
    inside = labels > 0
    region = labels[inside]
    held = mask[box][inside]
    shares = 1 / np.bincount(region)[region]
    return Positives(scores[box][inside], shares, count - 1, (held.min().item(), held.max().item()))


def _exact(scores: NDArray[Any], positive: Positives, max_fpr: float = 1.0) -> dict[str, float]:
    """Compute all metrics from all scores, positives' among them; AU-PRO where the positives have regions."""
    levels, level, counts = np.unique(positive.scores, return_inverse=True, return_counts=True)
    ranked = np.sort(scores, axis=None)
    above, at_least = (ranked.size - np.searchsorted(ranked, levels, side)[::-1] for side in ("right", "left"))
    counts = counts[::-1]  # from high to low, like all that follows
    found = counts.cumsum()
    steps = Steps(counts, above - (found - counts), at_least - found, np.array(ranked.size - found[-1]))
    weights = np.bincount(level, positive.shares)[::-1] / positive.regions if positive.regions else None
    metrics = curve_metrics(steps, weights, max_fpr)
    best = int(np.argmax(f1_scores(steps)))
    return {name: float(value) for name, value in metrics.items()} | {"f1_threshold": float(levels[::-1][best])}


class Steps(NamedTuple):
    """K groups of scores, from high to low; leading axes (`...`) are independent test sets.

    A group holds all scores of one value, and metrics are exact; or all scores of a range, which count as equal. Groups
    without positives may be left out.
    """

    positives: NDArray[Any]  # (..., K) in each group
    above: NDArray[Any]  # (..., K) negatives above the group
    at_least: NDArray[Any]  # (..., K) negatives above the group or in it
    negatives: NDArray[Any]  # (...,) in all


def steps_of_groups(positives: NDArray[Any], negatives: NDArray[Any]) -> Steps:
    """Make Steps of the counts (..., K) of positives and negatives in every group, from high to low scores."""
    at_least = negatives.cumsum(-1)
    return Steps(positives, at_least - negatives, at_least, at_least[..., -1])


def curve_metrics(steps: Steps, weights: Floats | None = None, max_fpr: float = 1.0) -> dict[str, Floats]:
    """Compute `auroc`, `au_pr` (trapezoid), `ap` (step) and `f1_max`, each (...,), as `image_metrics` defines them.

    With `weights` (..., K), each group's share of all regions, also `au_pro` from 0 to `max_fpr`. There must be
    positives and negatives. As the false-positive rate rises, the found share of a group grows linearly from its first
    negative to its last. This ramp's area has a closed form, and the weighted sum of all is the area under the curve.
    """
    gain = steps.positives / steps.positives.sum(-1, keepdims=True)  # in recall
    found = steps.positives.cumsum(-1)
    start, end = _precision(found - steps.positives, steps.above), _precision(found, steps.at_least)
    low, high = (counts / steps.negatives[..., None] for counts in (steps.above, steps.at_least))  # FPR
    metrics = {
        "auroc": (gain * (1 - (low + high) / 2)).sum(-1),
        "au_pr": (gain * (start + end) / 2).sum(-1),
        "ap": (gain * end).sum(-1),
        "f1_max": f1_scores(steps).max(-1),
    }
    if weights is not None:
        cut = (max_fpr - low).clip(0) ** 2 / (2 * np.where(high > low, high - low, 1))  # of a ramp across max_fpr
        area = np.where(high <= max_fpr, max_fpr - (low + high) / 2, cut)
        metrics["au_pro"] = (weights * area).sum(-1) / max_fpr
    return {name: np.minimum(value, 1.0) for name, value in metrics.items()}  # sums may be rounded to above 1


def f1_scores(steps: Steps) -> Floats:
    """Compute F1 (..., K) with the threshold at each group."""
    found, total = steps.positives.cumsum(-1), steps.positives.sum(-1, keepdims=True)
    return np.asarray(2 * found / (found + steps.at_least + total))


def _precision(tp: NDArray[Any], fp: NDArray[Any]) -> Floats:
    """Compute tp / (tp + fp), 1 where nothing is predicted: the curve's start."""
    predicted = np.asarray(tp + fp, np.float64)
    precision: Floats = np.divide(tp, predicted, out=np.ones_like(predicted), where=predicted > 0)
    return precision


def check_values(values: set[float], what: str = "pixel") -> None:
    """Raise VisaError if masks or labels hold anything besides 0 and one of 1, True and 255."""
    found = sorted(values)
    if len(found) > 1 or sum(found) not in (0, 1, 255):
        listed = ", ".join(str(v) for v in found[:5])
        raise VisaError(f"{what} truth holds {listed} beside 0: it must be bool, 0/1 or 0/255 (class ids: mask > 0).")


def check_both(count: int, total: int, what: str = "pixel") -> None:
    """Raise VisaError for a test set without any normal or without any anomalous member."""
    if count in (0, total):
        absent = "anomalous" if count == 0 else "normal"
        raise VisaError(f"the test set holds no {absent} {what}s: its metrics need normal and anomalous ones.")


def check_scores(scores: NDArray[Any], what: str = "pixel") -> None:
    """Raise VisaError if a score is NaN."""
    if scores.size and np.isnan(scores.min()):  # the minimum of a NaN is NaN, and needs no second array
        raise VisaError(f"some {what} scores are NaN: look for a diverged model or an empty training set.")


def same_shape(scores: ArrayLike, truth: ArrayLike, ndim: int, what: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return scores, as floats, and truth as arrays; VisaError unless they have one shape with `ndim` axes."""
    s, t = np.asarray(scores), np.asarray(truth)
    if s.ndim != ndim or s.shape != t.shape:
        shape = "(N,)" if ndim == 1 else "(N, H, W)"
        raise VisaError(f"{what} scores are of shape {s.shape}, their truth of {t.shape}: both must be {shape}.")
    if s.dtype not in (np.float32, np.float64):
        s = s.astype(np.float32 if s.dtype == np.float16 else np.float64)
    return s, t


def labelled(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Check image scores (N,) and labels (N,), and return them, labels as bool; raises VisaError as `image_metrics`."""
    s, t = same_shape(scores, labels, ndim=1, what="image")
    positive = np.asarray(t != 0)
    check_values(set(np.unique(t[positive]).tolist()), "image")
    check_both(int(positive.sum()), t.size, "image")
    check_scores(s, "image")
    return s, positive
