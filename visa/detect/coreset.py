"""Greedy k-centre selection (Sener and Savarese 2018; PatchCore's algorithm 1), lazily and with the same picks."""

import torch
from torch import Tensor
from tqdm import tqdm

from visa.detect.neighbors import distances, nearest_exact

_ACTIVE = 2**14  # points that are kept up to date; on a GPU all of them are
_ROWS = 512  # points brought up to date together


def greedy_coreset(x: Tensor, count: int, start: int = 0, progress: bool = False) -> Tensor:
    """Indices (count) of the greedy k-centre selection from x (N, D): each pick lies farthest from all before it.

    The picks are those of the plain algorithm, which updates every distance at every pick (ties: the first index; 0
    once every distance is 0). As distances only shrink, one that was not updated is still an upper bound. So only
    points whose bound is above a level are kept up to date; once all have sunk to it, the level is lowered, and the
    next points make up for the picks that they missed, by a matrix product.
    """
    return _Selection(x, count, start, progress).run()


class _Selection:
    def __init__(self, x: Tensor, count: int, start: int, progress: bool) -> None:
        self.x, self.count, self.done = x, count, 1
        self.center = x.mean(0)
        self.picks = torch.zeros(count, dtype=torch.long, device=x.device)
        self.picks[0] = start
        self.centres = x.new_empty(count, x.shape[1])
        self.centres[0] = x[start]
        self.bound = distances(x[start : start + 1], x)[0]  # to the nearest of the first `seen` picks
        self.seen = torch.ones(len(x), dtype=torch.int32, device=x.device)
        self.bar = tqdm(total=count, desc="PatchCore coreset", disable=not progress, initial=1)

    def run(self) -> Tensor:
        with self.bar:
            while self.done < self.count and self._pick(*self._activate()):
                pass
        return self.picks

    def _activate(self) -> tuple[Tensor, float]:
        """The points above a level, up to date, and the level: about _ACTIVE points were above it before."""
        level, active = self._level(), torch.arange(len(self.x), device=self.x.device)
        above = (self.bound > level).nonzero()[:, 0]
        level, active = (level, above) if len(above) else (-1.0, active)
        missed = self.seen.index_select(0, active)
        for part in torch.split(missed.argsort(), _ROWS):
            first, rows = int(missed[part[0]]), active.index_select(0, part)
            if first < self.done:
                nearer, _ = nearest_exact(self.x.index_select(0, rows), self.centres[first : self.done], self.center)
                self.bound[rows] = torch.minimum(self.bound.index_select(0, rows), nearer)
        self.seen[active] = self.done
        return active[self.bound.index_select(0, active) > level], level

    def _level(self) -> float:
        """About the _ACTIVE-th highest bound, found among every so-many-th point."""
        if len(self.x) <= _ACTIVE or self.x.is_cuda:
            return -1.0
        sample = self.bound[:: max(1, len(self.x) // 2**14) | 1]  # an odd step, lest it meet one column of all images
        return float(sample.kthvalue(len(sample) - max(1, len(sample) * _ACTIVE // len(self.x))).values)

    def _pick(self, active: Tensor, level: float) -> bool:
        """Pick from the active points down to the level; False once every point coincides with a pick."""
        x, bound = self.x.index_select(0, active), self.bound.index_select(0, active)
        began = self.done
        while self.done < self.count and len(bound):
            farthest = int(bound.argmax())
            if bound[farthest] <= max(level, 0.0):
                break
            self.picks[self.done], self.centres[self.done] = active[farthest], x[farthest]
            torch.minimum(bound, distances(x[farthest : farthest + 1], x)[0], out=bound)
            self.done += 1
            self.bar.update()
            if (self.done - began) % 16 == 0:
                self._keep(active, bound)
                above = (bound > level).nonzero()[:, 0]
                if len(above) < 0.8 * len(bound):
                    active, x, bound = (t.index_select(0, above) for t in (active, x, bound))
        self._keep(active, bound)
        return level >= 0 or self.done == self.count

    def _keep(self, active: Tensor, bound: Tensor) -> None:
        self.bound[active] = bound
        self.seen[active] = self.done
