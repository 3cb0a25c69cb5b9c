"""PaDiM (Defard et al. 2021): one Gaussian of backbone features at each position of the image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

import cv2
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from visa.backbone import FeatureMaps
from visa.data.setups import Split
from visa.detect.shared import ANY_SEED, Bounds, Context, Extract, Scored, anomaly_maps, check_memory, fit_and_score
from visa.errors import VisaError

LAYERS = ("layer1", "layer2", "layer3")
BOUNDS: Bounds = {"n_channels": (1, 2**20), "seed": ANY_SEED, "epsilon": (0.0, 1e6), "sigma": (0.0, 1e3)}
STATE = ("channels", "mean", "cholesky", "shape")


def score_split(context: Context, split: Split) -> Scored:
    """Fit PaDiM on a split's normal images and score its test images: (N,) and maps of the context's size."""
    detector = PaDiM(FeatureMaps(context.backbone, LAYERS), seed=context.settings.seed)
    return fit_and_score(detector, context, split)


@dataclass
class PaDiM:
    """Mahalanobis distance to the Gaussian of the normal images' features, position by position.

    `extract` returns the maps of the chosen stages; the paper's are LAYERS. `n_channels` of their channels are drawn by
    `seed`; None draws 550 if there are more than 1000, else 100, or all if there are fewer. The paper draws 100 of
    ResNet-18's 448 channels and 550 of Wide ResNet-50's 1792 (section 4.3); a ResNet-50 has 1792, too. `epsilon` times
    the identity is added to each covariance (the paper's 0.01, section 3.2); `sigma` is the smoothing in pixels.
    Fitted state, with P = h * w positions of the largest map: `channels` (C), `mean` (P, C), `cholesky` (P, C, C),
    the lower Cholesky factor of each covariance, and `shape` (h, w).

    Memory is P C^2 numbers, whatever the number of images: for stride 4 and 100 channels 125 MB at 224 x 224 and
    3.8 GB at 1000 x 1500; for 550 channels 3.8 GB and 113 GB. Where that is too much, take fewer channels, smaller
    images or coarser layers.
    """

    extract: Extract
    n_channels: int | None = None
    seed: int = 0
    epsilon: float = 0.01
    sigma: float = 4.0
    channels: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    mean: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    cholesky: Tensor = field(init=False, default_factory=lambda: torch.empty(0))
    shape: Tensor = field(init=False, default_factory=lambda: torch.empty(0))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], progress: bool = False) -> Self:
        """Estimate the Gaussians from batches N,3,H,W of normal images in [0,1], each seen once.

        Raises VisaError for fewer than two images, images of several sizes, fewer channels than `n_channels`, Gaussians
        that exceed the device's memory, or features with NaN.
        """
        self.channels = self.shape = self.mean = torch.empty(0)
        count, moment = 0, torch.empty(0)
        for x in self._groups(tqdm(batches, "PaDiM", disable=not progress)):
            if not count:
                center, total = x.mean(1, keepdim=True), torch.zeros_like(x[:, 0])
                moment = x.new_zeros(len(x), x.shape[2], x.shape[2])
            # Sums are taken about the first images' mean (Chan et al. 1983): differences of large sums lose digits.
            x -= center
            moment.baddbmm_(x.mT, x)
            total += x.sum(1)
            count += x.shape[1]
        if count < 2:
            raise VisaError(f"PaDiM got {count} training images: a covariance needs at least two.")
        shift = total / count
        moment.baddbmm_(shift[:, :, None], shift[:, None], alpha=-count)
        self.mean, self.cholesky = center[:, 0] + shift, self._factors(moment, count)
        return self

    @torch.no_grad()
    def score(self, images: Tensor) -> Scored:
        """Return image scores (N,) and anomaly maps (N, H, W), float32, of images N,3,H,W in [0,1].

        The map is the Mahalanobis distance (equation 2), bilinear to the images' size and smoothed with a Gaussian of
        `sigma` pixels; the image score is its maximum (section 3.3).
        Raises VisaError if the detector was fitted at another image size.
        """
        features = self._features(images)
        n, c, p = features.shape
        x = _by_position(features, features.new_empty(p, n, c))
        whitened = torch.linalg.solve_triangular(self.cholesky, (x - self.mean[:, None]).mT, upper=False)  # (P, C, N)
        distances = whitened.norm(dim=1).T.reshape(-1, *self.shape.tolist())
        maps = anomaly_maps(distances, (images.shape[2], images.shape[3]), self.sigma)
        return maps.max(axis=(1, 2)), maps

    def _groups(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield features (P, n, C) of so many images that a pass over the P C^2 sums pays, in memory that is reused."""
        used, group = 0, torch.empty(0)
        for images in batches:
            x = self._features(images)
            if not len(group):
                group = x.new_empty(x.shape[2], max(1, min(128, 2**26 // x[0].numel())), x.shape[1])
            while len(x):
                taken = x[: group.shape[1] - used]
                _by_position(taken, group[:, used : used + len(taken)])
                x, used = x[len(taken) :], used + len(taken)
                if used == group.shape[1]:
                    yield group
                    used = 0
        if used:
            yield group[:, :used]

    def _features(self, images: Tensor) -> Tensor:
        """Return the chosen channels (N, C, P), smaller maps enlarged to the largest; the first call sets `shape`."""
        maps = self.extract(images)
        h, w = max((m.shape[2], m.shape[3]) for m in maps)
        if self.channels.numel() == 0:
            self.channels = self._draw_channels(sum(m.shape[1] for m in maps)).to(images.device)
            self.shape, count = torch.tensor((h, w)), len(self.channels)
            check_memory(h * w * count**2, images.device, f"PaDiM's {h} x {w} covariances of {count} channels")
        elif [h, w] != self.shape.tolist():
            fitted = " x ".join(str(side) for side in self.shape.tolist())
            raise VisaError(f"PaDiM was fitted at {fitted} positions, not {h} x {w}: keep one image size.")
        chosen, first = [], 0
        for m in maps:
            inside = self.channels[(self.channels >= first) & (self.channels < first + m.shape[1])] - first
            first += m.shape[1]
            if len(inside):
                own = m if len(inside) == m.shape[1] else m.index_select(1, inside)
                chosen.append(own if own.shape[2:] == (h, w) else interpolate(own, size=(h, w), mode="nearest"))
        return (torch.cat(chosen, dim=1) if len(chosen) > 1 else chosen[0]).flatten(2)

    def _draw_channels(self, available: int) -> Tensor:
        count = self.n_channels or min(available, 550 if available > 1000 else 100)
        if count > available:
            raise VisaError(f"n_channels is {count}, but the backbone's maps have {available}: take fewer.")
        return torch.randperm(available, generator=torch.Generator().manual_seed(self.seed))[:count].sort().values

    def _factors(self, moment: Tensor, count: int) -> Tensor:
        """Turn centred second moments (P, C, C) into lower Cholesky factors, in place and a few at a time."""
        for part in torch.split(moment, 16):
            part.div_(count - 1).diagonal(dim1=1, dim2=2).add_(self.epsilon)
            # LAPACK stores by columns: the upper factor of the transposed view lies where the lower one belongs.
            failed = torch.empty(len(part), dtype=torch.int32, device=part.device)
            torch.linalg.cholesky_ex(part.mT, upper=True, out=(part.mT, failed))
            if failed.any():
                raise VisaError(
                    "PaDiM's covariances cannot be inverted: raise epsilon, or look for NaN in the features."
                )
        return moment


Detector = PaDiM  # the name by which visa.detect.deploy finds it


def _by_position(x: Tensor, into: Tensor) -> Tensor:
    """Write x (N, C, P) as (P, N, C) to `into`, in which each position's N C numbers are contiguous; return `into`.

    Transposing one matrix is faster than permuting axes; OpenCV takes half of torch's time.
    """
    n, c, p = x.shape
    matrix, turned = x.reshape(n * c, p), into.view(p, n * c)
    if x.is_cpu:
        cv2.transpose(matrix.numpy(), turned.numpy())
    else:
        turned.copy_(matrix.T)
    return into
