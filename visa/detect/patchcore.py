"""PatchCore (Roth et al. 2022): distance to the nearest of a coreset of normal patches."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from tqdm import tqdm, trange

from visa.detect.shared import Extract, Scored, anomaly_maps, load_state, need_fit, save_state, seeded
from visa.errors import VisaError

LAYERS = ("layer2", "layer3")


@dataclass
class PatchCore:
    """Distance of each patch's features to the nearest in a memory bank, a greedy coreset of the normal patches.

    `extract` gives the maps of LAYERS, from fine to coarse. The bank keeps `count` patches, or else the share `ratio`
    of them (the paper's 1 %), picked on a random projection to `projected` dimensions drawn from `seed`.
    `neighbors` is b of the image score's weight (equation 7).
    Fitted state: `bank` (M, D), `picks` (M) their places among all patches, `projection` (D, projected).
    Unlike the authors' code, channels are concatenated as they are, not pooled to 1024 dimensions.
    """

    extract: Extract
    ratio: float = 0.01
    count: int | None = None
    seed: int = 0
    projected: int = 128
    neighbors: int = 9
    bank: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    picks: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    projection: Tensor = field(init=False, default_factory=lambda: torch.empty(0))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], progress: bool = False) -> Self:
        """Fill the bank from batches N,3,H,W of normal images in [0,1]. Holds all patches' features until it is done.

        Raises VisaError without images, or for a coreset that is empty or larger than the patches.
        """
        patches = [self._embed(images)[0] for images in tqdm(batches, "PatchCore features", disable=not progress)]
        if not patches:
            raise VisaError("PatchCore got no training images: check the object and the split.")
        if self.count is None and not 0 < self.ratio <= 1:
            raise VisaError(f"PatchCore's coreset ratio is {self.ratio}: give a share above 0 and up to 1.")
        x = torch.cat(patches)
        count = self.count if self.count is not None else max(1, round(self.ratio * len(x)))
        if not 1 <= count <= len(x):
            raise VisaError(f"a coreset of {count} patches cannot come from {len(x)}: set ratio in (0, 1] or count.")
        generator = seeded(self.seed)
        scale = self.projected**-0.5
        self.projection = (torch.randn(x.shape[1], self.projected, generator=generator) * scale).to(x.device)
        start = int(torch.randint(len(x), (), generator=generator))
        self.picks = greedy_coreset(x @ self.projection, count, start, progress)
        self.bank = x[self.picks]
        return self

    @torch.no_grad()
    def score(self, images: Tensor) -> Scored:
        """Image scores (N,) and anomaly maps (N, H, W), float32, of images N,3,H,W in [0,1].

        The map is the distance to the nearest patch of the bank, bilinear to the images' size and smoothed with a
        Gaussian of 4 pixels; the image score is the largest distance, weighted (equations 6 and 7).
        Raises VisaError if the detector is not fitted.
        """
        need_fit(self.bank)
        x, (h, w) = self._embed(images)
        distances, nearest = nearest_patches(x, self.bank)
        distances, nearest = distances.view(-1, h * w), nearest.view(-1, h * w)
        worst = distances.argmax(1, keepdim=True)
        patch = x.view(len(images), h * w, -1).gather(1, worst[..., None].expand(-1, -1, x.shape[1]))[:, 0]
        scores = distances.gather(1, worst)[:, 0] * self._weight(patch, nearest.gather(1, worst)[:, 0])
        maps = anomaly_maps(distances.view(-1, h, w), (images.shape[2], images.shape[3]))
        return scores.float().cpu().numpy(), maps

    def save(self, path: Path) -> None:
        """Write the fitted detector as safetensors."""
        tensors = {"bank": self.bank, "picks": self.picks, "projection": self.projection}
        names = ("ratio", "count", "seed", "projected", "neighbors")
        save_state(path, tensors, {name: getattr(self, name) for name in names})

    @classmethod
    def load(cls, path: Path, extract: Extract, device: str = "cpu") -> Self:
        """The detector that `save` wrote, on features of the same backbone; VisaError if the file is no such one."""
        tensors, settings = load_state(path, device)
        if set(tensors) != {"bank", "picks", "projection"}:
            raise VisaError(f"{path} holds no PatchCore: it has {', '.join(sorted(tensors))}.")
        detector = cls(extract, **settings)
        detector.bank, detector.picks, detector.projection = (tensors[k] for k in ("bank", "picks", "projection"))
        return detector

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Locally aware patches (N * h * w, D), each a mean over 3 x 3, at the first map's resolution, its (h, w)."""
        maps = [avg_pool2d(m, kernel_size=3, stride=1, padding=1) for m in self.extract(images)]
        h, w = maps[0].shape[2:]
        x = torch.cat([interpolate(m, size=(h, w), mode="bilinear", align_corners=False) for m in maps], dim=1)
        return x.permute(0, 2, 3, 1).flatten(0, 2), (h, w)

    def _weight(self, patch: Tensor, nearest: Tensor) -> Tensor:
        """Equation 7: the weight grows where the patch's nearest neighbour in the bank is itself far from others."""
        b = min(self.neighbors, len(self.bank))
        if b < 2:
            return torch.ones_like(patch[:, 0])
        crowd = _distances(self.bank[nearest], self.bank).topk(b, largest=False).indices  # (N, b), first itself
        to_crowd = (patch[:, None] - self.bank[crowd]).norm(dim=2)
        weight: Tensor = 1 - to_crowd.softmax(1)[:, 0]
        return weight


def greedy_coreset(x: Tensor, count: int, start: int = 0, progress: bool = False) -> Tensor:
    """Indices (count) of the greedy k-centre selection from x (N, D): each pick lies farthest from all before it.

    The picks are those of the plain algorithm, which updates every distance at every pick. Here a patch keeps its
    nearest centre too: by the triangle inequality a new centre c is nearer only if d(c, centre) < 2 d(patch, centre),
    and the rest is skipped.
    """
    picks = torch.empty(count, dtype=torch.long, device=x.device)
    picks[0] = start
    distance = _distances(x[start : start + 1], x)[0]
    centre = torch.zeros(len(x), dtype=torch.int32, device=x.device)
    for k in trange(1, count, desc="PatchCore coreset", disable=not progress):
        picks[k] = distance.argmax()
        new = x[picks[k]][None]
        reach = _distances(new, x[picks[:k]])[0] * (0.5 * (1 - 1e-5))  # the margin covers rounding
        near = (reach.index_select(0, centre) < distance).nonzero()[:, 0]
        for part in torch.split(near, 8192):  # few enough to stay in the cache
            old, to_new = distance[part], _distances(new, x.index_select(0, part))[0]
            distance[part] = torch.minimum(old, to_new)
            centre[part[to_new < old]] = k
    return picks


def nearest_patches(x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (N) of each row of x (N, D) to the nearest row of the bank (M, D), and that row's index (N).

    Found by one matrix product; the winner's distance is then taken from the difference itself, since the product's
    form loses all digits near zero.
    """
    squares = bank.square().sum(1)
    rows = max(1, 2**24 // len(bank))  # 64 MB of products at a time
    index = torch.cat([torch.addmm(squares, part, bank.T, alpha=-2).argmin(1) for part in torch.split(x, rows)])
    return (x - bank[index]).norm(dim=1), index


def _distances(a: Tensor, b: Tensor) -> Tensor:
    distances: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return distances
