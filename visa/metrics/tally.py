"""How many of very many scores lie below, and up to, each of some levels: exactly, in one pass and little memory.

The range of the levels is cut into equal cells. Scores in a cell without a level are counted by the cell; a score that
shares its cell with levels is compared with these few.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELLS = (4, 2**22)  # a level; at most
_CROWDED = 16  # levels in a cell; with more, searching all levels is faster
_CHUNK = 2**19  # scores; the work on them stays in the cache and in memory that is there already
Counts = NDArray[np.int64]


class Tally:
    """Counts of scores among the distinct, rising `levels`; `add` any number of times, then `counts`."""

    def __init__(self, levels: NDArray[Any]) -> None:
        self.levels = levels
        self.total = 0
        self._missed = 0  # scores below all levels
        self._places = np.zeros(levels.size + 1, np.int64)  # scores with so many levels below them
        self._equal = np.zeros(levels.size + 1, np.int64)  # those that are the next level
        self._held: NDArray[Any] = np.zeros(0, np.int32)  # scores in each cell; read where there is no level
        self._cells = min(_CELLS[0] * levels.size, _CELLS[1])
        with np.errstate(all="ignore"):  # one level or infinite ones: no cells
            self._scale: Any = self._cells / (levels[-1] - levels[0])
        self._has_cells = bool(0 < self._scale < np.inf) and self._sort_levels_into_cells()

    def add(self, scores: NDArray[Any]) -> None:
        """Count scores of any shape, free of NaN."""
        flat = scores.ravel()
        self.total += flat.size
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]
            near = chunk[chunk >= self.levels[0]]
            self._missed += chunk.size - near.size
            if self._has_cells:
                near, places = self._placed(near)
            else:
                near.sort()
                places = np.searchsorted(self.levels, near)
            np.add.at(self._places, places, np.int64(1))  # of one type: many times as fast
            equal = self.levels.take(places, mode="clip") == near
            np.add.at(self._equal, places[equal], np.int64(1))

    def merge(self, other: "Tally") -> None:
        """Add the counts of another tally with the same levels."""
        self.total += other.total
        self._missed += other._missed
        self._places, self._equal = self._places + other._places, self._equal + other._equal
        if self._has_cells:
            self._held = self._held + other._held

    def counts(self) -> tuple[Counts, Counts]:
        """(L,) scores below each level, (L,) scores up to each level, it included."""
        up_to = self._missed + self._places.cumsum()[:-1]
        if self._has_cells:
            up_to += np.where(self._occupied, 0, self._held).cumsum(dtype=np.int64)[self._cell_of(self.levels)]
        return up_to - self._equal[:-1], up_to

    def index(self, scores: NDArray[Any]) -> Counts:
        """Where each of the scores, all of them levels, stands among the levels."""
        if self._has_cells:
            return self._probe(scores, self._cell_of(scores))
        return np.searchsorted(self.levels, scores)

    def _sort_levels_into_cells(self) -> bool:
        """Prepare the cells; False where levels crowd in few of them."""
        inside = np.bincount(self._cell_of(self.levels), minlength=self._cells + 2).astype(np.int32)
        if inside.max() > _CROWDED:
            return False
        self._first = inside.cumsum(dtype=np.int32) - inside  # levels in all cells before
        self._occupied = inside > 0
        self._held = np.zeros_like(inside)
        return True

    def _placed(self, near: NDArray[Any]) -> tuple[NDArray[Any], Counts]:
        """Count scores by their cell; return those that share it with levels, and how many levels are below each."""
        if self.total > np.iinfo(self._held.dtype).max:
            self._held = self._held.astype(np.int64)
        cells = self._cell_of(near)
        np.add.at(self._held, cells, self._held.dtype.type(1))
        shared = np.flatnonzero(self._occupied.take(cells))
        near = near.take(shared)
        return near, self._probe(near, cells.take(shared))

    def _cell_of(self, scores: NDArray[Any]) -> Counts:
        """The cell of each score from the lowest level on; rises with the score, whatever is rounded."""
        place = scores - self.levels[0]
        place *= self._scale
        np.minimum(place, self._cells + 1, out=place)
        return np.asarray(place, np.int64)

    def _probe(self, scores: NDArray[Any], cells: Counts) -> Counts:
        """How many levels are below each score, counted up from the first level in its cell."""
        places = self._first.take(cells).astype(np.int64)
        higher = np.flatnonzero(self.levels.take(places, mode="clip") < scores)
        while higher.size:
            places[higher] += 1
            left = places[higher]
            inside = left < self.levels.size
            higher = higher[inside][self.levels[left[inside]] < scores[higher[inside]]]
        return places
