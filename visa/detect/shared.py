"""What the detectors share: feature maps in, smoothed anomaly maps out, and their state on disk."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import interpolate

from visa.errors import VisaError
from visa.paths import written_whole

# Images N,3,H,W in [0,1] to one N,C,h,w map for each stage: `visa.backbone.FeatureMaps`.
Extract = Callable[[Tensor], list[Tensor]]
Scored = tuple[NDArray[np.float32], NDArray[np.float32]]


def anomaly_maps(distances: Tensor, size: tuple[int, int], sigma: float = 4.0) -> NDArray[np.float32]:
    """Distances N,h,w as maps N,H,W: bilinear to `size` = (H, W), then a Gaussian of `sigma` pixels of that size."""
    maps = interpolate(distances[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]
    return np.stack([cv2.GaussianBlur(m, (0, 0), sigma) for m in maps.cpu().numpy()])


def save_state(path: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Write a fitted detector's tensors and settings as safetensors, whole or not at all."""
    if any(t.numel() == 0 for t in tensors.values()):
        raise VisaError(f"nothing to save in {path}: fit the detector first.")
    with written_whole(path) as partial:
        contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        partial.write_bytes(save(contiguous, {"settings": json.dumps(dict(settings))}))


def load_state(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and settings that `save_state` wrote; VisaError if the file is absent or is something else."""
    if not path.is_file():
        raise VisaError(f"no fitted detector at {path}: fit one and save it there.")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            settings = json.loads(file.metadata()["settings"])
            return {name: file.get_tensor(name) for name in file.keys()}, settings  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise VisaError(f"{path} holds no fitted detector ({error}): fit it again.") from error


def need_fit(state: Tensor) -> None:
    """Raise VisaError where a detector's state is still empty."""
    if state.numel() == 0:
        raise VisaError("the detector holds no training images yet: fit it, or load a fitted one.")


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU, so that a seed means the same on every device."""
    return torch.Generator().manual_seed(seed)
