"""AU-ROC, AU-PR, AP, F1-max and AU-PRO, exact, in memory or from a stream that is read twice.

All exact figures follow from two counts at each distinct score of a positive: how many negatives score above it, and
how many at least as high. Positives are few: they are kept, and all scores are counted among them, block by block.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visa.errors import VisaError
from visa.metrics import checks
from visa.metrics.curves import Floats, Steps, figures_and_best
from visa.metrics.tally import Tally


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Exact image-level figures: `auroc`, `au_pr`, `ap`, `f1_max`, `f1_threshold`.

    scores: (N,), higher is more anomalous; labels: (N,), bool, 0/1 or 0/255, normal images among them.
    `au_pr` is the trapezoid under the precision-recall curve that starts at recall 0, precision 1 (the paper's
    AU-PR), `ap` the sum of precision times gain in recall (scikit-learn's average precision). `f1_max` is the best
    over all thresholds, chosen on these very images; one counts as found if `score >= f1_threshold`. Equal scores
    enter a curve together: constant scores give an AU-ROC of 0.5 and an AP of the prevalence. Nothing is rounded.
    Raises VisaError for unequal shapes, labels other than two values, NaN scores, or labels of one class only.
    """
    s, positive = checks.labelled(scores, labels)
    levels, counts = np.unique(s[positive], return_counts=True)
    tally = Tally(levels)
    tally.add(s)
    return _figures(tally, counts)


def pixel_metrics(maps: ArrayLike, masks: ArrayLike, max_fpr: float = 0.3) -> dict[str, float]:
    """Exact pixel-level figures: those of `image_metrics` over all pixels of all images together, and `au_pro`.

    maps: (N, H, W) anomaly scores, higher is more anomalous; masks: (N, H, W), bool, 0/1 or 0/255, where normal
    images, which belong in, have an empty mask. A pixel counts as found if `score >= threshold`.
    `au_pro` (Bergmann et al. 2021, MVTec AD, section 5.3): mean share found of each connected region (8-connectivity,
    inside one image, every region of the data set with equal weight) against the false-positive rate over all normal
    pixels, trapezoid from 0 to `max_fpr` (linear between thresholds), divided by `max_fpr`.
    It depends on the size of the maps: state it beside the figure.
    Raises VisaError as `image_metrics` does, and for a `max_fpr` outside (0, 1].
    """
    s, t = checks.same_shape(maps, masks, ndim=3, what="pixel")
    exact = ExactPixelMetrics(max_fpr)
    exact.collect(s, t)
    exact.count(s)
    return exact.compute()


class ExactPixelMetrics:
    """The figures of `pixel_metrics`, same conventions, of a stream that is read twice.

    First `collect(maps, masks)` over all images, then `count(maps)` over the same images in any order, then
    `compute()`. Memory: some 100 bytes an anomalous pixel.
    Across processes: each collects its part; `merge` them; a copy of the merged object counts in each process; `merge`
    those. The result is that of one process.
    """

    def __init__(self, max_fpr: float = 0.3) -> None:
        checks.check_max_fpr(max_fpr)
        self.max_fpr = max_fpr
        self._scores: list[NDArray[Any]] = []
        self._shares: list[Floats] = []
        self._regions = self._pixels = 0
        self._values: frozenset[float] = frozenset()
        self._tally: Tally | None = None  # at the distinct scores of the positives; made by the first `count`
        self._positives: NDArray[Any] = np.zeros(0, np.int64)  # at each
        self._weights: Floats = np.zeros(0)

    def collect(self, maps: ArrayLike, masks: ArrayLike) -> None:
        """Take the anomalous pixels of maps (N, H, W) and masks (N, H, W).

        Raises VisaError for unequal shapes, masks other than bool, 0/1 or 0/255, or once counting has begun.
        """
        if self._tally is not None:
            raise VisaError("counting has begun: collect the anomalous pixels of all images before the first count.")
        s, t = checks.same_shape(maps, masks, ndim=3, what="pixel")
        for image, mask in zip(s, t, strict=True):
            found = checks.positives(image, mask)
            self._values |= found.values
            self._scores.append(found.scores)
            self._shares.append(found.shares)
            self._regions += found.regions
        checks.check_values(self._values)
        self._pixels += s.size

    def count(self, maps: ArrayLike) -> None:
        """Count all pixels of maps (N, H, W) among the anomalous ones; VisaError for NaN or nothing collected."""
        tally = self._close()
        s, _ = checks.same_shape(maps, maps, ndim=3, what="pixel")
        checks.check_scores(s)
        tally.add(s)

    def merge(self, other: "ExactPixelMetrics") -> None:
        """Add what `other` has collected or, if one of them has begun to count, counted."""
        if self.max_fpr != other.max_fpr:
            raise VisaError(f"max_fpr is {self.max_fpr} here and {other.max_fpr} there: merge equals.")
        if (self._tally is None) != (other._tally is None):  # a process may have no image to count
            for part in (self, other):
                part._close()
        if self._tally is None or other._tally is None:
            self._values |= other._values
            checks.check_values(self._values)
            self._scores += other._scores
            self._shares += other._shares
            self._regions += other._regions
            self._pixels += other._pixels
        elif not np.array_equal(self._tally.levels, other._tally.levels):
            raise VisaError("the two count among different anomalous pixels: collect, merge and copy before counting.")
        else:
            self._tally.merge(other._tally)

    def compute(self) -> dict[str, float]:
        """The figures; VisaError if pixels of one kind are missing or the two passes saw different scores."""
        tally = self._close()
        if tally.total != self._pixels:
            raise VisaError(f"{self._pixels} pixels were collected from, {tally.total} counted: read the same twice.")
        if (tally.equal < self._positives).any():
            raise VisaError("the scores that were counted are not those that were collected: read the same twice.")
        return _figures(tally, self._positives, self._weights / self._regions, self.max_fpr)

    def _close(self) -> Tally:
        """End the collecting: group the positives by score."""
        if self._tally is None:
            scores = np.concatenate(self._scores) if self._scores else np.zeros(0)
            checks.check_both(scores.size, self._pixels)
            checks.check_scores(scores)
            self._tally = Tally(np.unique(scores))
            self._positives, self._weights = self._tally.sums(scores, np.concatenate(self._shares))
            self._scores, self._shares = [], []
        return self._tally


def _figures(
    tally: Tally, positives: NDArray[Any], weights: Floats | None = None, max_fpr: float = 1.0
) -> dict[str, float]:
    """All figures, from the positives at each level, their weights, and the counts of all scores."""
    negatives = (tally.equal - positives)[::-1]
    at_least = (tally.between[:0:-1] + negatives).cumsum()
    steps = Steps(positives[::-1], at_least - negatives, at_least, at_least[-1] + tally.between[0])
    figures, best = figures_and_best(steps, None if weights is None else weights[::-1], max_fpr)
    return figures | {"f1_threshold": float(tally.levels[::-1][best])}
