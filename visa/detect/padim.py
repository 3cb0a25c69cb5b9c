"""PaDiM (Defard et al. 2021): one Gaussian of backbone features at each position of the image."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from visa.detect.shared import Extract, Scored, anomaly_maps, load_state, need_fit, save_state, seeded
from visa.errors import VisaError

LAYERS = ("layer1", "layer2", "layer3")


@dataclass
class PaDiM:
    """Mahalanobis distance to the Gaussian of the normal images' features, position by position.

    `extract` gives the maps of LAYERS. `n_channels` of all their channels are drawn from `seed`: the paper takes 100
    of ResNet-18's 448 and 550 of Wide ResNet-50's 1792 (section 4.3). `epsilon` is the paper's 0.01 I (section 3.2).
    Fitted state, with P = h * w positions of the largest map: `channels` (C), `mean` (P, C) and `whiten` (P, C, C),
    the inverse Cholesky factor of each covariance.
    """

    extract: Extract
    n_channels: int = 100
    seed: int = 0
    epsilon: float = 0.01
    channels: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    mean: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    whiten: Tensor = field(init=False, default_factory=lambda: torch.empty(0))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], progress: bool = False) -> Self:
        """Estimate the Gaussians from batches N,3,H,W of normal images in [0,1], each seen once.

        Holds P C^2 numbers: 125 MB for 100 channels at 56 x 56, 3.8 GB for 550.
        Raises VisaError for fewer than two images or fewer channels than `n_channels`.
        """
        self.channels, count = torch.empty(0), 0
        mean, moment = torch.zeros(()), torch.empty(0)
        for images in tqdm(batches, "PaDiM", disable=not progress):
            x, _ = self._embed(images)
            n, moment = x.shape[1], moment if count else x.new_zeros(len(x), self.n_channels, self.n_channels)
            center = x.mean(1)
            # Chan et al. 1979: merge the batch's moments, centred, as differences of large sums lose digits.
            shift = center - mean.to(center)
            rows = torch.cat([x - center[:, None], shift[:, None] * math.sqrt(count * n / (count + n))], dim=1)
            moment.baddbmm_(rows.mT, rows)
            count += n
            mean = mean.to(center) + shift * (n / count)
        if count < 2:
            raise VisaError(f"PaDiM got {count} training images: a covariance needs at least two.")
        self.mean, self.whiten = mean, self._inverse_cholesky(moment, count)
        return self

    @torch.no_grad()
    def score(self, images: Tensor) -> Scored:
        """Image scores (N,) and anomaly maps (N, H, W), float32, of images N,3,H,W in [0,1].

        The map is the Mahalanobis distance (equation 2), bilinear to the images' size and smoothed with a Gaussian of
        4 pixels; the image score is its maximum (section 3.3).
        Raises VisaError if the detector is not fitted, or was fitted at another image size.
        """
        need_fit(self.mean)
        x, (h, w) = self._embed(images)
        if len(x) != len(self.mean):
            raise VisaError(f"PaDiM was fitted at {len(self.mean)} positions, not {h} x {w}: keep one image size.")
        whitened = self.whiten @ (x - self.mean[:, None]).mT  # (P, C, N)
        distances = whitened.norm(dim=1).T.reshape(-1, h, w)
        maps = anomaly_maps(distances, (images.shape[2], images.shape[3]))
        return maps.max(axis=(1, 2)), maps

    def save(self, path: Path) -> None:
        """Write the fitted detector as safetensors."""
        tensors = {"channels": self.channels, "mean": self.mean, "whiten": self.whiten}
        save_state(path, tensors, {"n_channels": self.n_channels, "seed": self.seed, "epsilon": self.epsilon})

    @classmethod
    def load(cls, path: Path, extract: Extract, device: str = "cpu") -> Self:
        """The detector that `save` wrote, on features of the same backbone; VisaError if the file is no such one."""
        tensors, settings = load_state(path, device)
        if set(tensors) != {"channels", "mean", "whiten"}:
            raise VisaError(f"{path} holds no PaDiM: it has {', '.join(sorted(tensors))}.")
        detector = cls(extract, **settings)
        detector.channels, detector.mean, detector.whiten = (tensors[k] for k in ("channels", "mean", "whiten"))
        return detector

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The chosen channels as (P, N, C), smaller maps repeated to the largest, and its (h, w)."""
        maps = self.extract(images)
        h, w = max((m.shape[2], m.shape[3]) for m in maps)
        x = torch.cat([interpolate(m, size=(h, w), mode="nearest") for m in maps], dim=1)
        if self.channels.numel() == 0:
            self.channels = self._draw_channels(x.shape[1]).to(x.device)
        return x[:, self.channels].flatten(2).permute(2, 0, 1).contiguous(), (h, w)

    def _draw_channels(self, available: int) -> Tensor:
        if not 1 <= self.n_channels <= available:
            raise VisaError(f"n_channels is {self.n_channels}, but the backbone's maps have {available}: take fewer.")
        return torch.randperm(available, generator=seeded(self.seed))[: self.n_channels].sort().values

    def _inverse_cholesky(self, moment: Tensor, count: int) -> Tensor:
        """Centred second moments (P, C, C), turned in place and a few at a time into inverse Cholesky factors."""
        eye = torch.eye(self.n_channels, dtype=moment.dtype, device=moment.device)
        for part in torch.split(moment, 64):
            factor = torch.linalg.cholesky(part / (count - 1) + self.epsilon * eye)
            part.copy_(torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False))
        return moment
