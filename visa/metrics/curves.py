"""Figures of the ROC, precision-recall and region-overlap curves, and bounds on them, from counts.

Every figure follows from groups of scores, from high to low: how many positives each holds, and how many negatives lie
above it and down to its end. A group is all scores of one value, and the figures are exact; or all scores of one bin,
and the figures treat a bin as a tie, within `bounds`. Leading axes (`...`) are independent test sets.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Steps(NamedTuple):
    """K groups of scores, from high to low. Groups without positives may be left out."""

    positives: NDArray[Any]  # (..., K) in each group
    above: NDArray[Any]  # (..., K) negatives above the group
    at_least: NDArray[Any]  # (..., K) negatives above the group or in it
    negatives: NDArray[Any]  # (...,) in all


def steps_of_groups(positives: NDArray[Any], negatives: NDArray[Any]) -> Steps:
    """Steps from the counts (..., K) of positives and negatives in each group, from high to low, none left out."""
    at_least = negatives.cumsum(-1)
    return Steps(positives, at_least - negatives, at_least, at_least[..., -1])


def curve_figures(steps: Steps) -> dict[str, Floats]:
    """`auroc`, `au_pr` (trapezoid), `ap` (step), `f1_max`, each (...,); conventions as `image_metrics` states them."""
    tp = steps.positives.cumsum(-1)
    before = tp - steps.positives
    gain = steps.positives / tp[..., -1:]
    precision = _precision(tp, steps.at_least)
    return {
        "auroc": ramp_area(steps, gain, 1.0),
        "au_pr": np.minimum((gain * (precision + _precision(before, steps.above))).sum(-1) / 2, 1.0),
        "ap": np.minimum((gain * precision).sum(-1), 1.0),  # a sum of shares may be rounded to above 1
        "f1_max": f1(steps).max(-1),
    }


def f1(steps: Steps) -> Floats:
    """(..., K) F1 where a group and all above it are called anomalous."""
    tp = steps.positives.cumsum(-1)
    return np.asarray(2 * tp / (tp + steps.at_least + tp[..., -1:]))


def ramp_area(steps: Steps, weights: Floats, max_fpr: float) -> Floats:
    """(...,) area under (weight of the positives found) against (false-positive rate), 0 to `max_fpr`, over `max_fpr`.

    weights (..., K), of sum 1. As the rate rises a group is found on a straight ramp from its first negative to its
    last: its own area has a closed form, and the curve's is their weighted sum.
    """
    start, end = _rates(steps)
    ramp = np.clip(max_fpr - start, 0, end - start)
    area = np.divide(ramp**2, 2 * (end - start), out=np.zeros_like(ramp), where=end > start)
    area += np.clip(max_fpr - end, 0, None)
    return np.asarray(np.minimum((weights * area).sum(-1) / max_fpr, 1.0))


def bounds(steps: Steps, weights: Floats, max_fpr: float) -> dict[str, tuple[float, float]]:
    """Least and greatest value of each figure over all orders, ties among them, of the scores inside the groups.

    One test set. Inside a group from (tp0, fp0) to (tp1, fp1), precision at `t` true positives lies between
    t / (t + fp1) and t / (t + fp0). Both are concave and rise with t: integrals bound the sums over the group's
    positives, and a chord bounds the trapezoids from below.
    """
    tp1 = steps.positives.cumsum(-1)
    tp0, total = tp1 - steps.positives, tp1[-1]
    fp0, fp1 = steps.above, steps.at_least
    chord = steps.positives * (_precision(tp0, fp1) + _precision(tp1, fp1)) / 2
    best = 2 * tp1 / (tp1 + fp0 + total)
    gain = steps.positives / total
    found = {
        "auroc": _first_and_last(steps, gain, 1.0),
        "au_pr": (chord.sum() / total, _integral(tp0, tp1, fp0).sum() / total),
        "ap": (_integral(tp0, tp1, fp1).sum() / total, (gain * _precision(tp1, fp0)).sum()),
        "f1_max": (f1(steps).max(), best[steps.positives > 0].max()),
        "au_pro": _first_and_last(steps, weights, max_fpr),
    }
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def _rates(steps: Steps) -> tuple[Floats, Floats]:
    n = np.asarray(steps.negatives)[..., None]
    return steps.above / n, steps.at_least / n


def _first_and_last(steps: Steps, weights: Floats, max_fpr: float) -> tuple[Floats, Floats]:
    """The area if each group's positives come after its negatives, and if they come before."""
    start, end = (np.clip(max_fpr - rate, 0, None) for rate in _rates(steps))
    return (weights * end).sum() / max_fpr, (weights * start).sum() / max_fpr


def _integral(tp0: NDArray[Any], tp1: NDArray[Any], fp: NDArray[Any]) -> Floats:
    """Integral of t / (t + fp) from tp0 to tp1."""
    width = tp1 - tp0
    safe = np.where(fp > 0, fp, 1)
    return np.asarray(width - np.where(fp > 0, fp * np.log1p(width / (tp0 + safe)), 0))


def _precision(tp: NDArray[Any], fp: NDArray[Any]) -> Floats:
    """tp / (tp + fp), 1 where nothing is predicted: the curve's start."""
    predicted = np.asarray(tp + fp, np.float64)
    precision: Floats = np.divide(tp, predicted, out=np.ones_like(predicted), where=predicted > 0)
    return precision
