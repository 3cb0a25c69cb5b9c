"""How many of very many scores lie between some levels, and on each: exactly, in one pass and little memory.

The range of the levels is cut into equal cells, and each knows which levels it holds: few, or none. A score is compared
with the levels of its own cell alone. Where levels crowd in few cells, as below an outlier, all are searched instead.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visa.metrics.compiled import compiled

_CELLS = (4, 2**22)  # a level; at most
_CROWDED = 16  # levels in a cell; with more, searching all levels is faster
_CHUNK = 2**19  # scores that are searched for at once
_BLOCK = 2**12  # scores that are put into cells at once


class Cells(NamedTuple):
    """C equal cells from the lowest level on, the last for all that is higher."""

    levels: NDArray[Any]  # (L + 1,) and NaN, which is neither below nor equal to any score
    low: float  # the lowest level
    scale: float  # cells in a unit of score
    first: NDArray[np.int32]  # (C + 1,) levels in the cells before each, and in all


class Tally:
    """Counts of scores among the L distinct, rising `levels`.

    between: (L + 1,) below the lowest level, between it and the next, and so on; equal: (L,) equal to each.
    """

    def __init__(self, levels: NDArray[Any]) -> None:
        self.levels = levels
        self.between, self.equal = np.zeros(levels.size + 1, np.int64), np.zeros(levels.size, np.int64)
        self._cells = _cells(levels)

    def add(self, scores: NDArray[Any]) -> None:
        """Count scores of any shape, in single or double precision, free of NaN."""
        flat = scores.ravel()
        if self._cells is not None:
            _count(flat, self._cells, self.between, self.equal)
            return
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]
            near = chunk[chunk >= self.levels[0]]
            self.between[0] += chunk.size - near.size
            near.sort()  # neighbours are found faster
            places = np.searchsorted(self.levels, near)
            equal = self.levels.take(places, mode="clip") == near
            np.add.at(self.equal, places[equal], 1)
            np.add.at(self.between, places[~equal], 1)

    @property
    def total(self) -> int:
        """Scores counted so far."""
        return int(self.between.sum() + self.equal.sum())

    def merge(self, other: "Tally") -> None:
        """Add the counts of another tally with the same levels."""
        self.between += other.between
        self.equal += other.equal

    def sums(self, scores: NDArray[Any], weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(L,) how many of the scores (N,), all of them levels, are each level, and (L,) the sums of their weights."""
        counts, sums = np.zeros(self.levels.size, np.int64), np.zeros(self.levels.size)
        if self._cells is not None:
            _sum(scores, weights, self._cells, counts, sums)
        else:
            places = np.searchsorted(self.levels, scores)
            np.add.at(counts, places, 1)
            np.add.at(sums, places, weights)
        return counts, sums


def _cells(levels: NDArray[Any]) -> Cells | None:
    """Cells for the levels; None for such as crowd in few cells, and where the cells' width is no number or 0."""
    count = min(_CELLS[0] * levels.size, _CELLS[1])
    low, high = (np.float64(levels[i]) for i in (0, -1))
    with np.errstate(all="ignore"):
        scale = count / (high - low)
    if not 0 < scale < np.inf:
        return None
    cells = ((levels.astype(np.float64) - low) * scale).astype(np.int64)
    if (cells[_CROWDED:] == cells[: max(0, cells.size - _CROWDED)]).any():
        return None
    # A level is the first of its own cell and of the empty ones since the level before.
    cells_since = np.diff(cells, prepend=-1, append=count + 1)
    first = np.repeat(np.arange(levels.size + 1, dtype=np.int32), cells_since)
    return Cells(np.append(levels, levels.dtype.type(np.nan)), float(low), float(scale), first)


@compiled
def _count(scores: NDArray[Any], cells: Cells, between: NDArray[np.int64], equal: NDArray[np.int64]) -> None:
    """Count the scores: of a block, those in cells without levels first, then the others.

    A processor that cannot guess which of the two comes next loses more time than the second loop takes.
    """
    levels, low, scale, first = cells
    lowest, last, below = levels[0], first.size - 2, 0
    left, places = np.empty(_BLOCK, scores.dtype), np.empty(_BLOCK, np.uint32)
    for start in range(0, scores.size, _BLOCK):
        n = np.uint32(0)
        for score in scores[start : start + _BLOCK]:
            if score < lowest:
                below += 1
                continue
            cell = (np.float64(score) - low) * scale
            i = np.uint32(cell) if cell < last else np.uint32(last)  # unsigned: no check for negative indices
            place = np.uint32(first[i])
            shared = place < first[i + 1]
            left[n] = score
            places[n] = place
            n += np.uint32(shared)
            between[place] += not shared
        for j in range(n):
            score, place = left[j], places[j]
            place += np.uint32(levels[place] < score)  # no branch, for the same reason
            while levels[place] < score:
                place += np.uint32(1)
            if levels[place] == score:
                equal[place] += 1
            else:
                between[place] += 1
    between[0] += below


@compiled
def _sum(
    scores: NDArray[Any],
    weights: NDArray[np.float64],
    cells: Cells,
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> None:
    """Add each of the scores, all of them levels, and its weight to its level."""
    levels, low, scale, first = cells
    for i, score in enumerate(scores):
        place = first[np.uint32((np.float64(score) - low) * scale)]
        while levels[place] < score:
            place += 1
        counts[place] += 1
        sums[place] += weights[i]
