"""Drop-in replacements for the reference tool's two functions, with the same behaviour."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from visa.metrics.exact import check_both, check_scores, check_values, labelled, same_shape


def compute_classification_metrics(anomaly_scores: ArrayLike, ground_truth_labels: ArrayLike) -> dict[str, Any]:
    """Compute the reference tool's image metrics: `auroc`, `fpr`, `tpr`, `threshold`, `au_pr`.

    anomaly_scores: (N,), higher is more anomalous; ground_truth_labels: (N,), 1 for an anomaly. As in the reference,
    `threshold` belongs to the precision-recall curve although it stands beside `fpr` and `tpr`, and `au_pr` is the
    trapezoid under that curve. An image counts as found if `score >= threshold`.
    Raises VisaError as `image_metrics` does.
    """
    scores, labels = labelled(anomaly_scores, ground_truth_labels)
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
    """Compute the reference tool's pixel metrics: `fpr`, `tpr`, `precision`, `f1`, `thresholds`, `roc_auc`, `pr_auc`.

    predicted_masks: (N, H, W) scores; ground_truth_masks: (N, H, W), 0/1 or 0/255 (the reference took only 0/1), all
    images together, normal ones included. The curves hold 202 thresholds from high to low, by `score > threshold`:
    100 percentiles of the scores inside the true masks, 100 evenly spaced between their extremes, and the extremes of
    all scores. `roc_auc` and `pr_auc` are trapezoids, rounded to 4 decimals. They approximate; `pixel_metrics` is
    exact.
    Raises VisaError as `pixel_metrics` does.
    """
    scores, truth = same_shape(predicted_masks, ground_truth_masks, ndim=3, what="pixel")
    positive = truth != 0
    check_values(set(np.unique(truth[positive]).tolist()))
    check_both(int(np.count_nonzero(positive)), truth.size)
    check_scores(scores)
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


def _precision(tp: NDArray[np.int64], fp: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the precision; it is 1 where nothing is predicted."""
    precision: NDArray[np.float64] = np.divide(tp, tp + fp, out=np.ones(len(tp)), where=tp + fp > 0)
    return precision
