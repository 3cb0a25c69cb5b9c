"""PatchCore (Roth et al. 2022): distance to the nearest of a coreset of normal patches."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, avg_pool2d, interpolate, unfold
from tqdm import tqdm

from visa.detect.coreset import greedy_coreset
from visa.detect.neighbors import distances, nearest_patches
from visa.detect.shared import (
    ANY_SEED,
    Extract,
    Scored,
    State,
    anomaly_maps,
    check_memory,
    check_settings,
    check_tensors,
    load_state,
    need_fit,
    save_state,
    seeded,
)
from visa.errors import VisaError

LAYERS = ("layer2", "layer3")
_MOST = 2**40
BOUNDS = {
    "ratio": (0.0, 1.0),
    "count": (1, _MOST),
    "seed": ANY_SEED,
    "projected": (1, 2**20),
    "neighbors": (0, _MOST),
    "sigma": (0.0, 1e3),
    "pooled": (0, 2**14),
    "limit": (1, _MOST),
}
OPTIONAL = ("count", "limit")  # may be None
_STATE = {"bank": (torch.float32, 2), "picks": (torch.int64, 1), "projection": (torch.float32, 2)}


@dataclass
class PatchCore:
    """Distance of each patch's features to the nearest in a memory bank, a greedy coreset of the normal patches.

    `extract` gives the maps of a tuple of stages, from fine to coarse; the paper's are LAYERS, of a Wide ResNet-50.
    The bank keeps `count` patches, or else the share `ratio` of them (the paper's 1 %; it also has 10 and 25 %),
    picked on a random projection to `projected` dimensions drawn from `seed` (section 3.2).
    `neighbors` is b of the image score's weight (equation 7); 0 or 1 leaves the score unweighted, as the authors' code
    has it. `sigma` is the map's smoothing in pixels (section 3.3).
    Patches are means over 3 x 3, of all channels. With `pooled` (1024 in the authors' code) the 3 x 3 neighbourhoods
    are instead averaged to that many dimensions, layer by layer, and then together.
    `limit`, if given, bounds the memory of `fit`: of more patches a uniform random sample stands for all.
    Fitted state: `bank` (M, D), `picks` (M) their places among all patches, `projection` (D, projected).
    """

    extract: Extract
    ratio: float = 0.01
    count: int | None = None
    seed: int = 0
    projected: int = 128
    neighbors: int = 9
    sigma: float = 4.0
    pooled: int = 0
    limit: int | None = None
    bank: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    picks: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    projection: Tensor = field(init=False, default_factory=lambda: torch.empty(0))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], progress: bool = False) -> Self:
        """Fill the bank from batches N,3,H,W of normal images in [0,1].

        Holds all patches' features until it is done, or up to twice `limit` of them.
        Raises VisaError without images, for a coreset that is empty or larger than the patches, or if the patches
        exceed the device's memory.
        """
        if self.count is None and not 0 < self.ratio <= 1:
            raise VisaError(f"PatchCore's coreset ratio is {self.ratio}: give a share above 0 and up to 1.")
        x, places = self._patches(tqdm(batches, "PatchCore features", disable=not progress))
        count = self.count if self.count is not None else max(1, round(self.ratio * len(x)))
        if not 1 <= count <= len(x):
            raise VisaError(f"a coreset of {count} patches cannot come from {len(x)}: set ratio in (0, 1] or count.")
        generator = seeded(self.seed)
        scale = self.projected**-0.5
        self.projection = (torch.randn(x.shape[1], self.projected, generator=generator) * scale).to(x.device)
        start = int(torch.randint(len(x), (), generator=generator))
        picks = greedy_coreset(x @ self.projection, count, start, progress)
        self.bank, self.picks = x[picks], places[picks.to(places.device)]
        return self

    @torch.no_grad()
    def score(self, images: Tensor) -> Scored:
        """Image scores (N,) and anomaly maps (N, H, W), float32, of images N,3,H,W in [0,1].

        The map is the distance to the nearest patch of the bank, bilinear to the images' size and smoothed with a
        Gaussian of `sigma` pixels; the image score is the largest distance, weighted (equations 6 and 7).
        Raises VisaError if the detector is not fitted.
        """
        need_fit(self.bank)
        x, (h, w) = self._embed(images)
        to_bank, nearest = nearest_patches(x, self.bank)
        to_bank, nearest = to_bank.view(-1, h * w), nearest.view(-1, h * w)
        worst = to_bank.argmax(1, keepdim=True)
        patch = x.view(len(images), h * w, -1).gather(1, worst[..., None].expand(-1, -1, x.shape[1]))[:, 0]
        scores = to_bank.gather(1, worst)[:, 0] * self._weight(patch, nearest.gather(1, worst)[:, 0])
        maps = anomaly_maps(to_bank.view(-1, h, w), (images.shape[2], images.shape[3]), self.sigma)
        return scores.float().cpu().numpy(), maps

    def state(self) -> State:
        """Fitted tensors and settings, for `restore`."""
        return {name: getattr(self, name) for name in _STATE}, {name: getattr(self, name) for name in BOUNDS}

    @classmethod
    def restore(cls, state: State, extract: Extract) -> Self:
        """The detector of a `state`, on features of the same backbone; VisaError if the parts do not fit together."""
        tensors, settings = state
        check_tensors("PatchCore", tensors, _STATE)
        check_settings("PatchCore", settings, BOUNDS, OPTIONAL)
        bank, picks, projection = (tensors[name] for name in _STATE)
        if len(bank) != len(picks) or projection.shape != (bank.shape[1], settings["projected"]):
            raise VisaError("the file holds no PatchCore: its tensors' shapes do not fit together.")
        detector = cls(extract, **settings)
        detector.bank, detector.picks, detector.projection = bank, picks, projection
        return detector

    def save(self, path: Path) -> None:
        """Write the fitted detector, without its backbone, as safetensors."""
        save_state(path, self.state())

    @classmethod
    def load(cls, path: Path, extract: Extract, device: str = "cpu") -> Self:
        """The detector that `save` wrote, on features of the same backbone; VisaError if the file is no such one."""
        return cls.restore(load_state(path, device), extract)

    def _patches(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """All patches (N, D), or a uniform sample of `limit`, and their places (N) among all, ascending."""
        draw, seen = seeded(self.seed + 1), 0
        held: list[Tensor] = []
        keys, places = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.long)
        for images in batches:
            x, _ = self._embed(images)
            held.append(x)
            total = sum(map(len, held))
            places = torch.cat([places, torch.arange(seen, seen + len(x))])
            seen += len(x)
            if self.limit is not None:
                # Each patch draws a key; the lowest ones stay: a uniform sample whatever number is still to come.
                keys = torch.cat([keys, torch.rand(len(x), generator=draw, dtype=torch.float64)])
                if total > 2 * self.limit:
                    held, keys, places = self._thinned(held, keys, places)
                    total = len(keys)
            what = f"{total} patches of {x.shape[1]} dimensions (PatchCore's `limit` bounds their number)"
            check_memory(2 * total * x.shape[1], x.device, what)
        if not held:
            raise VisaError("PatchCore got no training images: check the object and the split.")
        if self.limit is not None and len(places) > self.limit:
            held, keys, places = self._thinned(held, keys, places)
        return torch.cat(held), places

    def _thinned(self, held: list[Tensor], keys: Tensor, places: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        kept = keys.argsort()[: self.limit].sort().values
        return [torch.cat(held).index_select(0, kept.to(held[0].device))], keys[kept], places[kept]

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Locally aware patches (N * h * w, D), each of 3 x 3, at the first map's resolution, and its (h, w)."""
        maps = self.extract(images)
        h, w = maps[0].shape[2:]
        local = [self._local(m) for m in maps]
        x = torch.cat([interpolate(m, size=(h, w), mode="bilinear", align_corners=False) for m in local], dim=1)
        x = x.permute(0, 2, 3, 1).flatten(0, 2)
        return (adaptive_avg_pool1d(x, self.pooled) if self.pooled else x), (h, w)

    def _local(self, m: Tensor) -> Tensor:
        """Each position's 3 x 3 neighbourhood: its mean, or all its values averaged to `pooled` dimensions."""
        if not self.pooled:
            return avg_pool2d(m, kernel_size=3, stride=1, padding=1)
        values = unfold(m, kernel_size=3, padding=1).mT  # (N, h w, 9 C)
        return adaptive_avg_pool1d(values, self.pooled).mT.reshape(len(m), self.pooled, *m.shape[2:])

    def _weight(self, patch: Tensor, nearest: Tensor) -> Tensor:
        """Equation 7: the weight grows where the patch's nearest neighbour in the bank is itself far from others."""
        b = min(self.neighbors, len(self.bank))
        if b < 2:
            return torch.ones_like(patch[:, 0])
        crowd = distances(self.bank[nearest], self.bank).topk(b, largest=False).indices  # (N, b), first itself
        to_crowd = (patch[:, None] - self.bank[crowd]).norm(dim=2)
        weight: Tensor = 1 - to_crowd.softmax(1)[:, 0]
        return weight
