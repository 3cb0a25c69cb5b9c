"""PatchCore (Roth et al. 2022): distance to the nearest of a coreset of normal patches.

The coreset is the greedy k-centre selection (Sener and Savarese 2018; PatchCore's algorithm 1), computed lazily with
the same picks. Matrix products find candidate neighbours; distances are then computed from differences.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from tqdm import tqdm

from visa.backbone import FeatureMaps
from visa.data.setups import Split
from visa.detect.shared import ANY_SEED, Bounds, Context, Extract, Scored, anomaly_maps, check_memory, fit_and_score
from visa.errors import VisaError

LAYERS = ("layer2", "layer3")
BOUNDS: Bounds = {
    "ratio": (0.0, 1.0),
    "seed": ANY_SEED,
    "projected": (1, 2**20),
    "neighbors": (0, 2**40),
    "sigma": (0.0, 1e3),
}
STATE = ("bank",)

_ACTIVE = 2**14  # points whose distances the coreset keeps up to date; on a GPU, of all points
_TOGETHER = 512  # points that it updates together
_ROWS, _COLUMNS = 784, 1024  # size of a block of products, which fits into the cache
_ROUNDING = 3e-5  # times |x|^2 + |c|^2: a bound on a float32 product's error in up to thousands of dimensions


def score_split(context: Context, split: Split) -> Scored:
    """Fit PatchCore on a split's normal images and score its test images: (N,) and maps of the context's size."""
    chosen = context.settings
    detector = PatchCore(FeatureMaps(context.backbone, LAYERS), chosen.coreset_ratio, seed=chosen.seed)
    return fit_and_score(detector, context, split)


@dataclass
class PatchCore:
    """Distance of each patch's features to the nearest in a memory bank, a greedy coreset of the normal patches.

    `extract` returns the maps of the chosen stages, from fine to coarse; the paper's are LAYERS of a Wide ResNet-50.
    The bank keeps the share `ratio` of the patches (the paper's 1 %; it also reports 10 and 25 %), picked on a random
    projection to `projected` dimensions drawn from `seed` (section 3.2).
    `neighbors` is b of the image score's weight (equation 7); 0 or 1 leaves the score unweighted, as in the authors'
    code. `sigma` is the map's smoothing in pixels (section 3.3).
    A patch is the mean of all channels over 3 x 3 positions; the authors' code reduces it to 1024 dimensions.
    Fitted state: `bank` (M, D).
    """

    extract: Extract
    ratio: float = 0.01
    seed: int = 0
    projected: int = 128
    neighbors: int = 9
    sigma: float = 4.0
    bank: Tensor = field(init=False, default_factory=lambda: torch.empty(0))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], progress: bool = False) -> Self:
        """Fill the bank from batches N,3,H,W of normal images in [0,1]; all patches are in memory until it is filled.

        Raises VisaError if there are no images, for a ratio out of range, or if the patches exceed the device's memory.
        """
        if not 0 < self.ratio <= 1:
            raise VisaError(f"PatchCore's coreset ratio is {self.ratio}: give a share above 0 and up to 1.")
        held: list[Tensor] = []
        for images in tqdm(batches, "PatchCore features", disable=not progress):
            held.append(self._embed(images)[0])
            total, width = sum(map(len, held)), held[0].shape[1]
            check_memory(2 * total * width, held[0].device, f"{total} patches of {width} dimensions (PatchCore)")
        if not held:
            raise VisaError("PatchCore got no training images: check the object and the split.")
        x, generator = torch.cat(held), torch.Generator().manual_seed(self.seed)
        del held  # together with `x` they would take twice the memory
        projection = torch.randn(x.shape[1], self.projected, generator=generator) * self.projected**-0.5
        start = int(torch.randint(len(x), (), generator=generator))
        count = max(1, round(self.ratio * len(x)))
        self.bank = x[greedy_coreset(x @ projection.to(x.device), count, start, progress)]
        return self

    @torch.no_grad()
    def score(self, images: Tensor) -> Scored:
        """Return image scores (N,) and anomaly maps (N, H, W), float32, of images N,3,H,W in [0,1].

        The map is the distance to the nearest patch of the bank, bilinear to the images' size and smoothed with a
        Gaussian of `sigma` pixels; the image score is the largest distance, weighted (equations 6 and 7).
        """
        x, (h, w) = self._embed(images)
        to_bank, nearest = nearest_patches(x, self.bank)
        to_bank, nearest = to_bank.view(-1, h * w), nearest.view(-1, h * w)
        worst = to_bank.argmax(1, keepdim=True)
        patch = x.view(len(images), h * w, -1).gather(1, worst[..., None].expand(-1, -1, x.shape[1]))[:, 0]
        scores = to_bank.gather(1, worst)[:, 0] * self._weight(patch, nearest.gather(1, worst)[:, 0])
        maps = anomaly_maps(to_bank.view(-1, h, w), (images.shape[2], images.shape[3]), self.sigma)
        return scores.float().cpu().numpy(), maps

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the locally aware patches (N * h * w, D), means over 3 x 3, and the first map's (h, w)."""
        maps = self.extract(images)
        h, w = maps[0].shape[2:]
        local = [avg_pool2d(m, kernel_size=3, stride=1, padding=1) for m in maps]
        x = torch.cat([interpolate(m, size=(h, w), mode="bilinear", align_corners=False) for m in local], dim=1)
        return x.permute(0, 2, 3, 1).flatten(0, 2), (h, w)

    def _weight(self, patch: Tensor, nearest: Tensor) -> Tensor:
        """Equation 7: the weight grows where the patch's nearest neighbour in the bank is itself far from others."""
        b = min(self.neighbors, len(self.bank))
        if b < 2:
            return torch.ones_like(patch[:, 0])
        crowd = distances(self.bank[nearest], self.bank).topk(b, largest=False).indices  # (N, b), first itself
        to_crowd = (patch[:, None] - self.bank[crowd]).norm(dim=2)
        weight: Tensor = 1 - to_crowd.softmax(1)[:, 0]
        return weight


Detector = PatchCore  # the name by which visa.detect.deploy finds it


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the distances (..., N, M) of rows of `a` (..., N, D) and `b` (..., M, D), computed from differences."""
    result: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return result


def nearest_patches(x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Find the row of the bank (M, D) nearest to each row of x (N, D): its distance (N) and its index (N).

    A matrix product of centred rows finds all candidates within its rounding error, and `distances` decides among them:
    the result is exactly the minimum of `distances`; of equal ones, it is the first.
    """
    center = bank.mean(0)
    right = bank - center
    squares = right.square().sum(1)
    found = [_nearest(part, part - center, bank, right, squares) for part in torch.split(x, _ROWS)]
    distance, index = zip(*found, strict=True)
    return torch.cat(distance), torch.cat(index)


def _nearest(x: Tensor, left: Tensor, bank: Tensor, right: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Do `nearest_patches` for few rows x; `left`, `right`: x and bank, centred; `squares`: right's squared norms."""
    own = left.square().sum(1)
    margin = 2 * _ROUNDING * (own + squares.amax())
    best, index = x.new_full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.long, device=x.device)
    for start in range(0, len(bank), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        products = torch.addmm(squares[columns], left, right[columns].T, alpha=-2)  # |x - c|^2 - |x|^2
        lows = products.amin(1)
        level = torch.minimum(lows, best.square() - own) + margin
        open_rows = (lows <= level).nonzero()[:, 0]  # where a column may be nearer than the best so far
        ties = (products[open_rows] <= level[open_rows, None]).nonzero()
        for pairs in torch.split(ties, 2**16):
            row, column = open_rows[pairs[:, 0]], pairs[:, 1] + start
            measured = distances(x.index_select(0, row)[:, None], bank.index_select(0, column)[:, None])[:, 0, 0]
            lowest = best.scatter_reduce(0, row, measured, "amin")
            index[lowest < best] = len(bank)  # to be replaced by the first of the new lowest
            best = lowest
            first = measured == best[row]
            index.scatter_reduce_(0, row[first], column[first], "amin")
    return best, index


def greedy_coreset(x: Tensor, count: int, start: int = 0, progress: bool = False) -> Tensor:
    """Return indices (count) of the greedy k-centre selection from x (N, D): each pick is farthest from all before it.

    The picks are those of the plain algorithm, which updates every distance at every pick (ties: the first index; 0
    once every distance is 0). As distances only shrink, one that was not updated is still an upper bound. So only
    points whose bound is above a level are kept up to date; once all have sunk to it, the level is lowered, and a
    matrix product updates the next points for the picks that they missed.
    """
    with tqdm(total=count, desc="PatchCore coreset", disable=not progress, initial=1) as bar:
        return _Selection(x, count, start).run(bar)


class _Selection:
    """The picks so far, an upper bound of each point's distance to them, and the number of picks in that bound."""

    def __init__(self, x: Tensor, count: int, start: int) -> None:
        self.x, self.done = x, 1
        self.picks = torch.zeros(count, dtype=torch.long, device=x.device)
        self.picks[0] = start
        self.bound = distances(x[start : start + 1], x)[0]
        self.seen = torch.ones(len(x), dtype=torch.int32, device=x.device)

    def run(self, bar: "tqdm[Any]") -> Tensor:
        level = 0.0
        while self.done < len(self.picks) and level >= 0:  # after -1 only points that coincide with a pick are left
            level = self._level()
            active = (self.bound > level).nonzero()[:, 0]
            self._update(active)
            self._pick(active[self.bound.index_select(0, active) > level], level, bar)
        return self.picks

    def _level(self) -> float:
        """Return a level that at most _ACTIVE bounds exceed, or -1 if all points are to be kept up to date."""
        if len(self.x) <= _ACTIVE or self.x.is_cuda:
            return -1.0
        level = self.bound.kthvalue(len(self.x) - _ACTIVE).values
        return float(level) if level < self.bound.max() else -1.0

    def _update(self, active: Tensor) -> None:
        """Lower the active points' bounds to their distances to all picks."""
        missed, centres = self.seen.index_select(0, active), self.x.index_select(0, self.picks[: self.done])
        for part in torch.split(missed.argsort(), _TOGETHER):
            first, rows = int(missed[part[0]]), active.index_select(0, part)
            if first < self.done:
                nearer, _ = nearest_patches(self.x.index_select(0, rows), centres[first:])
                self.bound[rows] = torch.minimum(self.bound.index_select(0, rows), nearer)
        self.seen[active] = self.done

    def _pick(self, active: Tensor, level: float, bar: "tqdm[Any]") -> None:
        """Pick from the active points, all up to date, until none of them is above the level."""
        x, bound = self.x.index_select(0, active), self.bound.index_select(0, active)
        while self.done < len(self.picks) and len(bound):
            farthest = int(bound.argmax())
            if bound[farthest] <= max(level, 0.0):
                break
            self.picks[self.done] = active[farthest]
            torch.minimum(bound, distances(x[farthest : farthest + 1], x)[0], out=bound)
            self.done += 1
            bar.update()
            if self.done % 16 == 0:
                self.bound[active], self.seen[active] = bound, self.done
                above = (bound > level).nonzero()[:, 0]
                active, x, bound = (t.index_select(0, above) for t in (active, x, bound))
        self.bound[active], self.seen[active] = bound, self.done
