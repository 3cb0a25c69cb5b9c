"""What the detectors share: feature maps in, smoothed anomaly maps out, and their state on disk."""

import json
import math
import os
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
State = tuple[dict[str, Tensor], dict[str, Any]]
# The least and the greatest value of a setting: two ints where it is an int. A seed may be any.
Bounds = Mapping[str, tuple[float, float]]
ANY_SEED = (-(2**63), 2**63 - 1)


def anomaly_maps(distances: Tensor, size: tuple[int, int], sigma: float = 4.0) -> NDArray[np.float32]:
    """Distances N,h,w as maps N,H,W: bilinear to `size` = (H, W), then a Gaussian of `sigma` pixels of that size.

    `sigma` 0 leaves them unsmoothed.
    """
    maps = interpolate(distances[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]
    whole: NDArray[np.float32] = maps.cpu().numpy()
    return np.stack([cv2.GaussianBlur(m, (0, 0), sigma) for m in whole]) if sigma > 0 else whole


def check_memory(numbers: int, device: torch.device, what: str) -> None:
    """Raise VisaError, in a sentence on `what`, if so many float32 numbers exceed the device's whole memory."""
    needed, there = 4 * numbers, _memory(device)
    if needed > there:
        raise VisaError(
            f"{what} need {needed / 1e9:.1f} GB, and {device} has {there / 1e9:.1f}: take less, or smaller images."
        )


def save_state(path: Path, state: State, name: str = "settings") -> None:
    """Write tensors as safetensors with the settings as metadata under `name`, whole or not at all."""
    tensors, settings = state
    if empty := [key for key, t in tensors.items() if t.numel() == 0]:
        raise VisaError(f"nothing to save in {path} ({empty[0]} is empty): fit the detector first.")
    with written_whole(path) as partial:
        contiguous = {key: t.detach().cpu().contiguous() for key, t in tensors.items()}
        partial.write_bytes(save(contiguous, {name: json.dumps(settings, sort_keys=True)}))


def load_state(path: Path, device: str = "cpu", name: str = "settings") -> State:
    """The tensors and settings that `save_state` wrote.

    Executes no code in the file. Raises VisaError if it is absent or something else, or holds NaN or infinite values.
    """
    if not path.is_file():
        raise VisaError(f"no fitted detector at {path}: fit one and save it there.")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            settings = json.loads(file.metadata()[name])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError, ValueError, RecursionError, OSError) as error:
        raise VisaError(f"{path} holds no fitted detector ({error}): fit it again.") from error
    if not isinstance(settings, dict):
        raise VisaError(f"{path} holds no fitted detector (settings are no table): fit it again.")
    for key, t in tensors.items():
        if t.is_floating_point() and not torch.isfinite(t).all():
            raise VisaError(f"{path} holds NaN or infinite values in {key}: fit it again.")
    return tensors, settings


def check_settings(detector: str, settings: Mapping[str, Any], bounds: Bounds, optional: tuple[str, ...] = ()) -> None:
    """Raise VisaError unless the settings are just those of `bounds` and lie within; `optional` ones may be None."""
    if settings.keys() != bounds.keys():
        wrong = sorted(settings.keys() ^ bounds.keys())[0]
        raise VisaError(f"these are no settings of {detector}: {wrong} is absent or unknown.")
    for name, (low, high) in bounds.items():
        value = settings[name]
        whole = isinstance(low, int) and isinstance(high, int)
        number = isinstance(value, int) if whole else isinstance(value, (int, float))
        if value is None and name in optional:
            continue
        if isinstance(value, bool) or not number or not low <= value <= high:  # NaN is not
            raise VisaError(
                f"{detector}'s {name} is {value!r}: it is {'a whole' if whole else 'a'} number, {low} to {high}."
            )


def check_tensors(detector: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[torch.dtype, int]]) -> None:
    """Raise VisaError unless the tensors have just these names, types and numbers of dimensions, and none is empty."""
    if tensors.keys() != wanted.keys():
        raise VisaError(f"the file holds no {detector}: it has {', '.join(sorted(tensors)) or 'nothing'}.")
    for name, (dtype, ndim) in wanted.items():
        t = tensors[name]
        if t.dtype != dtype or t.ndim != ndim or t.numel() == 0:
            raise VisaError(f"the file holds no {detector}: {name} is {t.dtype} of shape {tuple(t.shape)}.")


def need_fit(state: Tensor) -> None:
    """Raise VisaError where a detector's state is still empty."""
    if state.numel() == 0:
        raise VisaError("the detector holds no training images yet: fit it, or load a fitted one.")


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU, so that a seed means the same on every device."""
    return torch.Generator().manual_seed(seed)


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows tells it in another way
        return math.inf
