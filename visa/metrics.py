"""AU-ROC, AU-PR, AP, F1-max and AU-PRO, exact, and drop-in replacements for the reference tool's two functions.

All exact figures follow from two counts a positive: how many negatives score above it, and how many at least as high.
The negatives' values are sorted once, and only the few positives are looked up in them.

Two areas go by the name of AU-PR. The reference tool, and so the paper, takes the trapezoid under the precision-recall
curve: `au_pr` here. Average precision, the step-wise sum, is `ap`. They differ most where positives are few.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from visa.errors import VisaError

Floats = NDArray[np.float64]


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Exact image-level figures: `auroc`, `au_pr`, `ap`, `f1_max`, `f1_threshold`.

    scores: (N,), higher is more anomalous; labels: (N,), 1 or True for an anomaly.
    `au_pr` is the trapezoid under the precision-recall curve that starts at recall 0, precision 1 (the paper's
    AU-PR), `ap` the sum of precision times gain in recall (scikit-learn's average precision). An image counts as
    found if `score >= f1_threshold`. Equal scores enter a curve together: constant scores give an AU-ROC of 0.5 and
    an AP of the prevalence.
    Raises VisaError for unequal shapes, labels other than two values, NaN scores, or labels of one class only.
    """
    s, positive = _checked(scores, labels, ndim=1, what="image")
    return _curve_figures(_rank(s, positive))


def pixel_metrics(maps: ArrayLike, masks: ArrayLike, max_fpr: float = 0.3) -> dict[str, float]:
    """Exact pixel-level figures: those of `image_metrics` over all pixels, and `au_pro`.

    maps: (N, H, W) anomaly scores; masks: (N, H, W), bool, 0/1 or 0/255, where normal images have an empty mask.
    `au_pro` (Bergmann et al. 2021, MVTec AD, section 5.3): mean share found of each connected region (8-connectivity,
    every region of the data set with equal weight) against the false-positive rate over all normal pixels, trapezoid
    from 0 to `max_fpr` (linear between thresholds), divided by `max_fpr`.
    It depends on the size of the maps: state it beside the figure.
    Raises VisaError as `image_metrics` does, and for a `max_fpr` outside (0, 1].
    """
    if not 0 < max_fpr <= 1:
        raise VisaError(f"max_fpr is {max_fpr}: AU-PRO needs a false-positive rate above 0 and up to 1.")
    s, positive = _checked(maps, masks, ndim=3, what="pixel")
    ranks = _rank(s, positive)
    weights = _region_weights(positive)[ranks.order]
    return _curve_figures(ranks) | {"au_pro": _area(ranks, weights, max_fpr)}


def compute_classification_metrics(anomaly_scores: ArrayLike, ground_truth_labels: ArrayLike) -> dict[str, Any]:
    """The reference tool's image figures: `auroc`, `fpr`, `tpr`, `threshold`, `au_pr`.

    anomaly_scores: (N,); ground_truth_labels: (N,), 1 for an anomaly. As in the reference, `threshold` belongs to the
    precision-recall curve although it stands beside `fpr` and `tpr`, and `au_pr` is the trapezoid under that curve.
    Raises VisaError as `image_metrics` does.
    """
    scores, labels = _checked(anomaly_scores, ground_truth_labels, ndim=1, what="image")
    fpr, tpr, _ = roc_curve(labels, scores)
    precision, recall, threshold = precision_recall_curve(labels, scores)
    return {
        "auroc": roc_auc_score(labels, scores),
        "fpr": fpr,
        "tpr": tpr,
        "threshold": threshold,
        "au_pr": auc(recall, precision),
    }


def compute_localization_metrics(predicted_masks: ArrayLike, ground_truth_masks: ArrayLike) -> dict[str, Any]:
    """The reference tool's pixel figures: `fpr`, `tpr`, `precision`, `f1`, `thresholds`, `roc_auc`, `pr_auc`.

    predicted_masks: (N, H, W) scores; ground_truth_masks: (N, H, W), 0/1 or 0/255 (the reference took only 0/1).
    The curves hold 202 thresholds from high to low, by `score > threshold`: 100 percentiles of the scores inside the
    true masks, 100 evenly spaced between their extremes, and the extremes of all scores. `roc_auc` and `pr_auc` are
    trapezoids, rounded to 4 decimals. They approximate; `pixel_metrics` is exact.
    Raises VisaError as `pixel_metrics` does.
    """
    scores, positive = _checked(predicted_masks, ground_truth_masks, ndim=3, what="pixel")
    inside, outside = np.sort(scores[positive]), np.sort(scores[~positive])
    high, low = inside[-1], inside[0]
    # From high to low: rounding in single precision differs from low to high, and the reference's values are kept.
    sweep = [np.percentile(inside, np.linspace(100, 0, 100)), np.linspace(high, low, 100), [scores.max(), scores.min()]]
    thresholds = np.sort(np.concatenate(sweep).astype(np.float64))[::-1]
    tp = inside.size - np.searchsorted(inside, thresholds, side="right")
    fp = outside.size - np.searchsorted(outside, thresholds, side="right")
    fpr, tpr, precision = fp / outside.size, tp / inside.size, _precision(tp, fp)
    f1 = 2 * tp / (tp + fp + inside.size)
    areas = {"roc_auc": round(auc(fpr, tpr), 4), "pr_auc": round(auc(tpr, precision), 4)}
    return {"fpr": fpr, "tpr": tpr, "precision": precision, "f1": f1, "thresholds": thresholds} | areas


class _Ranks(NamedTuple):
    """The P positives from high to low score, and the negatives that outscore each of them."""

    scores: NDArray[Any]  # (P,)
    order: NDArray[np.int64]  # (P,) where each stood among the positives
    above: NDArray[np.int64]  # (P,) negatives with a higher score
    at_least: NDArray[np.int64]  # (P,) negatives with a higher or equal score
    negatives: int


def _rank(scores: NDArray[Any], positive: NDArray[np.bool_]) -> _Ranks:
    negatives = scores[~positive]
    negatives.sort()
    mine = scores[positive]
    order = np.argsort(mine)[::-1]
    mine = mine[order]
    n = negatives.size
    above = n - np.searchsorted(negatives, mine, side="right")
    return _Ranks(mine, order, above, n - np.searchsorted(negatives, mine, side="left"), n)


def _curve_figures(ranks: _Ranks) -> dict[str, float]:
    """The figures of the ROC and the precision-recall curve.

    Only positives' scores matter: between two of them recall stands still, so the area is 0 and F1 falls.
    """
    p = ranks.scores.size
    last = np.append(ranks.scores[1:] != ranks.scores[:-1], True)  # the last of each group of equal scores
    tp = np.flatnonzero(last) + 1
    before = np.append(0, tp[:-1])
    fp, fp_before = ranks.at_least[last], ranks.above[last]
    precision = _precision(tp, fp)
    gain = (tp - before) / p
    f1 = 2 * tp / (tp + fp + p)
    best = int(f1.argmax())
    return {
        "auroc": _area(ranks, np.full(p, 1 / p), 1.0),
        "au_pr": float(gain @ (precision + _precision(before, fp_before)) / 2),
        "ap": float(gain @ precision),
        "f1_max": float(f1[best]),
        "f1_threshold": float(ranks.scores[last][best]),
    }


def _area(ranks: _Ranks, weights: Floats, max_fpr: float) -> float:
    """Area under (weighted share of positives found) against (false-positive rate), 0 to `max_fpr`, over `max_fpr`.

    A positive is found, as the rate rises, on a ramp from `above` to `at_least`: its own area has a closed form, and
    the curve's is their weighted sum. Weights sum to 1.
    """
    start, end = ranks.above / ranks.negatives, ranks.at_least / ranks.negatives
    ramp = np.clip(max_fpr - start, 0, end - start)
    area = np.divide(ramp**2, 2 * (end - start), out=np.zeros_like(ramp), where=end > start)
    area += np.clip(max_fpr - end, 0, None)
    return float(weights @ area / max_fpr)


def _region_weights(positive: NDArray[np.bool_]) -> Floats:
    """(P,) weight of each positive pixel, in the order of `scores[positive]`: 1 / (size of its region * regions)."""
    weights, regions = [], 0
    for mask in positive[positive.any(axis=(1, 2))]:
        count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
        inside = labels[mask]
        weights.append(1 / np.bincount(inside)[inside])
        regions += count - 1  # label 0 is the background
    return np.asarray(np.concatenate(weights) / regions, np.float64)


def _precision(tp: NDArray[np.int64], fp: NDArray[np.int64]) -> Floats:
    """Precision, 1 where nothing is predicted."""
    precision: Floats = np.divide(tp, tp + fp, out=np.ones(len(tp)), where=tp + fp > 0)
    return precision


def _checked(scores: ArrayLike, truth: ArrayLike, ndim: int, what: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Scores and truth as arrays of one shape, truth as bool; VisaError for what no figure can be computed from."""
    s, t = np.asarray(scores), np.asarray(truth)
    if s.ndim != ndim or s.shape != t.shape:
        shape = "(N,)" if ndim == 1 else "(N, H, W)"
        raise VisaError(f"{what} scores are of shape {s.shape}, their truth of {t.shape}: both must be {shape}.")
    positive = _binary(t, what)
    count = np.count_nonzero(positive)
    if count in (0, t.size):
        absent = "anomalous" if count == 0 else "normal"
        raise VisaError(f"the test set holds no {absent} {what}s: its figures need normal and anomalous ones.")
    if np.isnan(s.min()):  # the minimum carries a NaN on, without a second array
        raise VisaError(f"some {what} scores are NaN: look for a diverged model or an empty training set.")
    return s, positive


def _binary(truth: NDArray[Any], what: str) -> NDArray[np.bool_]:
    """Truth as bool, from bool, 0/1 or 0/255; class ids and anything else raise VisaError."""
    positive: NDArray[np.bool_] = truth != 0
    values = np.unique(truth[positive])
    if values.size > 1 or values.sum() not in (0, 1, 255):
        found = ", ".join(str(v) for v in values[:5])
        raise VisaError(f"{what} truth holds {found} beside 0: it must be bool, 0/1 or 0/255 (class ids: mask > 0).")
    return positive
