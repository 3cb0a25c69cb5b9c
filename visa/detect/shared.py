"""What the detectors share: their protocol, settings and context, anomaly maps from distances, and a memory check."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from visa.data.dataset import load_images
from visa.data.setups import Split
from visa.data.splits import Sample
from visa.detect.finetune import TwoClass
from visa.detect.scores import EVALUATION_SIZE
from visa.errors import VisaError, check_values

# Images N,3,H,W in [0,1] to one N,C,h,w map for each stage: `visa.backbone.FeatureMaps`.
Extract = Callable[[Tensor], list[Tensor]]
Scored = tuple[NDArray[np.float32], NDArray[np.float32]]  # image scores (N,) and anomaly maps (N, H, W)
# The least and the greatest value of a setting: two ints if it is an int. A seed may be any integer.
Bounds = dict[str, tuple[float, float]]
ANY_SEED = (-(2**63), 2**63 - 1)


class OneClass(Protocol):
    """A detector that learns from normal images alone, so that `visa.detect.deploy` can fit it for new parts.

    Its module defines `Detector` (the class), LAYERS (the paper's stages), BOUNDS (the range of each setting; None is
    allowed, too, if it is the default) and STATE (the names of the tensors that `fit` sets and `score` reads).
    """

    seed: int

    def fit(self, batches: Iterable[Tensor], progress: bool = False) -> Self:
        """Learn from batches N,3,H,W of normal images in [0,1]."""

    def score(self, images: Tensor) -> Scored:
        """Return image scores (N,) and anomaly maps (N, H, W) of images N,3,H,W in [0,1]."""


@dataclass(frozen=True)
class ScoreSettings:
    """The settings of notebook 04 that scores depend on; each detector reads its own (see `visa.detect.DETECTORS`)."""

    seed: int = 0
    coreset_ratio: float = 0.01
    two_class: TwoClass = field(default_factory=TwoClass)


def score_settings(seed: int, values: Mapping[str, Any]) -> ScoreSettings:
    """Return the defaults changed by `values`: `coreset_ratio`, or fields of TwoClass, its size as `height`, `width`.

    Raises VisaError for an unknown name, a value of another type, and as TwoClass does.
    """
    plain = asdict(TwoClass())
    known = {"coreset_ratio": 0.01, **dict(zip(("height", "width"), plain.pop("size"), strict=True)), **plain}
    check_values(values, known)
    chosen: dict[str, Any] = {**known, **values}
    ratio, size = chosen.pop("coreset_ratio"), (chosen.pop("height"), chosen.pop("width"))
    return ScoreSettings(seed, ratio, TwoClass(size=size, **chosen))


@dataclass
class Context:
    """What a detector works with: a backbone, which it does not change, images below `root`, and settings.

    Maps and masks have `size` = (height, width). `kept` caches what a detector computes once for several splits;
    `facts` holds its findings about the latest split, which are written to the scores' sidecar.
    """

    backbone: nn.Module
    root: Path
    settings: ScoreSettings = field(default_factory=ScoreSettings)
    progress: bool = False
    size: tuple[int, int] = EVALUATION_SIZE
    kept: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def images(self, samples: Sequence[Sample], size: tuple[int, int]) -> Tensor:
        """Read the samples' images, resized to `size` = (height, width): uint8 N,3,H,W."""
        return load_images(self.root, samples, size, progress=self.progress)

    def batches(self, samples: Sequence[Sample], size: tuple[int, int]) -> Iterator[Tensor]:
        """Yield the samples' images in batches N,3,height,width of 16, in [0,1], on the backbone's device."""
        device = next(self.backbone.parameters()).device
        return (part.to(device).float() / 255 for part in torch.split(self.images(samples, size), 16))


def fit_and_score(detector: OneClass, context: Context, split: Split) -> Scored:
    """Fit a one-class detector on a split's training images; return scores (N,) and maps of its test images."""
    detector.fit(context.batches(split.train, context.size), context.progress)
    scored = [detector.score(images) for images in context.batches(split.test, context.size)]
    scores, maps = zip(*scored, strict=True)
    return np.concatenate(scores), np.concatenate(maps)


def is_anomaly(samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """Return the samples' labels (N,), 1 for an anomaly."""
    return np.array([s.label == "anomaly" for s in samples], np.uint8)


def anomaly_maps(distances: Tensor, size: tuple[int, int], sigma: float = 4.0) -> NDArray[np.float32]:
    """Resize distances N,h,w bilinearly to maps N,H,W of `size` = (H, W), and smooth with a Gaussian of `sigma` pixels.

    With `sigma` 0 the maps are not smoothed.
    """
    maps = interpolate(distances[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]
    whole: NDArray[np.float32] = maps.cpu().numpy()
    return np.stack([cv2.GaussianBlur(m, (0, 0), sigma) for m in whole]) if sigma > 0 else whole


def check_memory(numbers: int, device: torch.device, what: str) -> None:
    """Raise VisaError, naming `what`, if so many float32 numbers exceed the device's total memory."""
    needed, there = 4 * numbers, _memory(device)
    if needed > there:
        raise VisaError(
            f"{what} need {needed / 1e9:.1f} GB, and {device} has {there / 1e9:.1f}: take less, or smaller images."
        )


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows has no such call
        return math.inf
