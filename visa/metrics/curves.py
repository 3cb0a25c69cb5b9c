"""Figures of the ROC, precision-recall and region-overlap curves, and bounds on them, from counts.

Every figure follows from groups of scores, from high to low: how many positives each holds, and how many negatives lie
above it and down to its end. A group is all scores of one value, and the figures are exact; or all scores of one bin,
and the figures treat a bin as a tie, within `bounds`. Leading axes (`...`) are independent test sets.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visa.metrics.compiled import compiled

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


def curve_figures(steps: Steps, weights: Floats | None = None, max_fpr: float = 1.0) -> dict[str, Floats]:
    """`auroc`, `au_pr` (trapezoid), `ap` (step), `f1_max`, each (...,); conventions as `image_metrics` states them.

    With `weights` (..., K), each group's share of all regions, also `au_pro` from 0 to `max_fpr`. There must be
    positives and negatives.
    """
    return _figures_and_best(steps, weights, max_fpr)[0]


def figures_and_best(steps: Steps, weights: Floats | None = None, max_fpr: float = 1.0) -> tuple[dict[str, float], int]:
    """The figures of `curve_figures` for one test set, and at which group F1 is greatest: the first of several."""
    figures, best = _figures_and_best(steps, weights, max_fpr)
    return {name: float(value) for name, value in figures.items()}, int(best)


def _figures_and_best(steps: Steps, weights: Floats | None, max_fpr: float) -> tuple[dict[str, Floats], Floats]:
    names = ("auroc", "au_pr", "ap", "f1_max", *(["au_pro"] if weights is not None else []))
    *rows, k = np.shape(steps.positives)
    shares = np.zeros((math.prod(rows), k)) if weights is None else weights
    positives, above, at_least, shares = (np.reshape(part, (-1, k)) for part in (*steps[:3], shares))
    found = np.zeros((math.prod(rows), 6))
    sets = Steps(positives, above, at_least, np.reshape(steps.negatives, -1))
    _add_up(sets, shares, float(max_fpr), found)
    found = found.reshape(*rows, 6)
    return {name: found[..., i] for i, name in enumerate(names)}, found[..., 5]


@compiled
def _add_up(steps: Steps, weights: Floats, max_fpr: float, found: Floats) -> None:
    """Write AU-ROC, AU-PR, AP, F1, AU-PRO and the group of that F1 of D test sets into `found` (D, 6).

    steps: with one leading axis (D,), and at least one positive and one negative a set; weights: (D, K).
    As the false-positive rate rises, a group is found on a straight ramp from its first negative to its last: the
    areas below have closed forms, and their weighted sums are those of the curves.
    """
    positives, above, at_least, negatives = steps
    for d in range(len(positives)):
        n, p = negatives[d], positives[d].sum()
        auroc = au_pr = ap = au_pro = tp = best = 0.0
        for k in range(positives.shape[1]):
            gain, fp0, fp1 = positives[d, k], above[d, k], at_least[d, k]
            if not gain:
                continue  # no curve gains anything
            start = tp / (tp + fp0) if tp + fp0 else 1.0  # precision, 1 where nothing is predicted
            tp += gain
            end = tp / (tp + fp1)
            au_pr += gain * (start + end) / 2
            ap += gain * end
            f1 = 2 * tp / (tp + fp1 + p)
            if f1 > best:
                best, found[d, 5] = f1, k
            low, high = fp0 / n, fp1 / n  # false-positive rates
            auroc += gain * (1 - (low + high) / 2)
            if high <= max_fpr:
                au_pro += weights[d, k] * (max_fpr - (low + high) / 2)
            elif low < max_fpr:
                au_pro += weights[d, k] * (max_fpr - low) ** 2 / (2 * (high - low))
        # Sums of shares may be rounded to above 1.
        found[d, :5] = min(auroc / p, 1.0), min(au_pr / p, 1.0), min(ap / p, 1.0), best, min(au_pro / max_fpr, 1.0)


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
        "f1_max": ((2 * tp1 / (tp1 + fp1 + total)).max(), best[steps.positives > 0].max()),
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
