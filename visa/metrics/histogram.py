"""The pixel figures of a stream that is read once: a histogram that needs no range, adds up exactly, knows its error.

Bins are `2**exponent` wide and their edges multiples of that, so any two histograms fit: of bins of one width, pairs
join to the next. The width is the smallest at which the scores' range takes at most BINS bins. It depends on the
scores alone, and so do all counts: neither batches nor the order of merging change a bit of them. Shares of regions
are added in double precision: AU-PRO keeps 15 digits.
"""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from visa.errors import VisaError
from visa.metrics import checks
from visa.metrics.curves import Floats, Steps, bounds, figures_and_best, steps_of_groups

BINS = 2**16  # OpenCV counts 16-bit numbers several times faster than NumPy counts wider ones
_CHUNK = 2**19  # pixels; the work on them stays in the cache, and single precision counts them
_FINEST = -120  # exponent; its inverse is a normal number in single precision


class Grid(NamedTuple):
    """Bins `2**exponent` wide from bin `first` on, counted from 0, which is an edge."""

    exponent: int
    first: int

    def place(self, scores: NDArray[np.float32], room: NDArray[np.float32]) -> NDArray[np.float32]:
        """The bin of each score (n,), as whole numbers from `first` on, written into `room` (n,)."""
        np.multiply(scores, np.float32(2.0**-self.exponent), out=room)  # exact: a power of 2
        np.floor(room, out=room)
        return np.subtract(room, np.float32(self.first), out=room)  # exact: both are whole and below 2**25

    def bins(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """The same as integers."""
        return self.place(scores, np.empty_like(scores)).astype(np.int64)


def grid_of(low: float, high: float) -> Grid:
    """The finest grid on which `low` to `high` take at most BINS bins."""
    largest = max(abs(low), abs(high))
    exponent = max(_FINEST, math.frexp(largest)[1] - 24)  # finer than that, single precision has no scores
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return Grid(exponent, math.floor(math.ldexp(low, -exponent)))


def histogram(scores: NDArray[Any], grid: Grid) -> NDArray[np.int64]:
    """(BINS,) how many of the scores, any shape and all inside the grid, are in each bin."""
    counts, flat = np.zeros(BINS, np.int64), scores.ravel()
    room, keys = np.empty(min(_CHUNK, flat.size), np.float32), np.empty((1, min(_CHUNK, flat.size)), np.uint16)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        n = chunk.size
        np.copyto(keys[0, :n], grid.place(chunk, room[:n]), casting="unsafe")
        counts += cv2.calcHist([keys[:, :n]], [0], None, [BINS], [0, BINS]).ravel().astype(np.int64)
    return counts


def extremes(scores: NDArray[Any]) -> tuple[float, float]:
    """Least and greatest score; VisaError for NaN and infinite ones, which no histogram has room for."""
    low, high = float(scores.min()), float(scores.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise VisaError("some pixel scores are NaN or infinite: look for a diverged model or an empty training set.")
    return low, high


class PixelMetrics:
    """The figures of `pixel_metrics`, same conventions, of a stream of any size that is read once, with bounds.

    `update(maps, masks)` for each batch, `merge(other)` across processes, `compute()` and `bounds()`. Memory: some
    2 MB and a batch's anomalous pixels, whatever the number of images. Scores of one bin are taken as equal: scores on
    few levels, constant ones among them, are exact, and `bounds()` encloses the exact figures in any case. AU-PRO's
    regions are exact: found in whole masks, each with equal weight. Scores are taken in single precision.
    An outlier far beyond all other scores makes the bins wide: the bounds show it, `ExactPixelMetrics` heals it.
    """

    def __init__(self, max_fpr: float = 0.3) -> None:
        checks.check_max_fpr(max_fpr)
        self.max_fpr = max_fpr
        self._range: tuple[float, float] | None = None
        self._grid = Grid(0, 0)
        self._all, self._positives = np.zeros((2, BINS), np.int64)
        self._shares = np.zeros(BINS)  # of the regions, by their own pixels
        self._regions = 0
        self._values: frozenset[float] = frozenset()

    def update(self, maps: ArrayLike, masks: ArrayLike) -> None:
        """Count the pixels of maps (N, H, W) with masks (N, H, W).

        Raises VisaError for unequal shapes, masks other than bool, 0/1 or 0/255, and scores that are not finite.
        """
        s, t = checks.same_shape(maps, masks, ndim=3, what="pixel")
        if not s.size:
            return
        single = s.astype(np.float32, copy=False)
        self._cover(*extremes(single))
        self._all += histogram(single, self._grid)
        found = [checks.positives(image, mask) for image, mask in zip(single, t, strict=True)]
        bins = self._grid.bins(np.concatenate([f.scores for f in found]))
        self._positives += np.bincount(bins, minlength=BINS)
        self._shares += np.bincount(bins, np.concatenate([f.shares for f in found]), minlength=BINS)
        self._regions += sum(f.regions for f in found)
        self._values = self._values.union(*(f.values for f in found))
        checks.check_values(self._values)

    def merge(self, other: "PixelMetrics") -> None:
        """Add what `other` has counted; VisaError if their `max_fpr` or their masks' values differ."""
        if self.max_fpr != other.max_fpr:
            raise VisaError(f"max_fpr is {self.max_fpr} here and {other.max_fpr} there: merge equals.")
        checks.check_values(self._values | other._values)
        if other._range is None:
            return
        self._cover(*other._range)
        for name in ("_all", "_positives", "_shares"):
            mine = getattr(self, name)
            mine += _moved(getattr(other, name), other._grid, self._grid)
        self._regions += other._regions
        self._values |= other._values

    def compute(self) -> dict[str, float]:
        """The figures of `pixel_metrics`, to within `bounds`; `f1_threshold` is an edge of a bin, and exact as such.

        Raises VisaError if pixels of one kind are missing.
        """
        steps, weights = self._curves()
        figures, best = figures_and_best(steps, weights, self.max_fpr)
        edge = self._grid.first + BINS - 1 - best
        return figures | {"f1_threshold": math.ldexp(edge, self._grid.exponent)}

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value that each exact figure can have, from the counts (`visa.metrics.curves.bounds`).

        `f1_threshold` has none: at `compute`'s, F1 is the `f1_max` that stands beside it.
        """
        return bounds(*self._curves(), self.max_fpr)

    def _curves(self) -> tuple[Steps, Floats]:
        positives, everything = self._positives[::-1], self._all[::-1]
        checks.check_both(int(positives.sum()), int(everything.sum()))
        return steps_of_groups(positives, everything - positives), self._shares[::-1] / self._regions

    def _cover(self, low: float, high: float) -> None:
        """Widen the range, and the bins where they no longer hold it."""
        if self._range is None:
            self._range, self._grid = (low, high), grid_of(low, high)
        elif low < self._range[0] or high > self._range[1]:
            self._range = min(low, self._range[0]), max(high, self._range[1])
            grid = grid_of(*self._range)
            for name in ("_all", "_positives", "_shares"):
                setattr(self, name, _moved(getattr(self, name), self._grid, grid))
            self._grid = grid


def _moved(counts: NDArray[Any], old: Grid, new: Grid) -> NDArray[Any]:
    """Counts on a grid that is as fine or coarser and holds all that is counted."""
    if old == new:
        return counts
    used = np.flatnonzero(counts)
    target = ((used + old.first) >> (new.exponent - old.exponent)) - new.first
    moved = np.zeros_like(counts)
    np.add.at(moved, target, counts[used])
    return moved
