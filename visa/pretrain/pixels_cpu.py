"""The operations of `visa.pretrain.pixels` on bytes of a CPU, an image at a time, in the image's own order.

Each step rounds to one of 256 levels and saturates there, as Pillow and torchvision do on such images; with equal
parameters a view lies within that rounding of the one in float32. `benchmarks/augment.py` says what it saves.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from visa.pretrain.pixels import BRIGHTNESS, CONTRAST, HUE, Drawn, gaussian

Bytes = npt.NDArray[np.uint8]  # H,W,3
_SHARED = 128  # side from which on an image is worth a thread: below, threads wait for Python's lock


def views_of_bytes(images: Tensor, side: int, drawn: Drawn, reach: int) -> Tensor:
    """Views of uint8 N,3,H,W, quickest in channels_last: float32 N,3,side,side in [0,1]. `reach` is the blur's."""
    interleaved = images.contiguous(memory_format=torch.channels_last)
    views = np.empty((len(images), 3, side, side), np.float32)  # NumPy asks for huge pages: a quarter of torch's time
    boxes = torch.stack(drawn.crop, 1).tolist()
    factors, turns, order = (of_jitter.tolist() for of_jitter in drawn.jitter)
    greyed, blurred = drawn.greyed.tolist(), drawn.sigma.gt(0).tolist()
    kernels = gaussian(drawn.sigma, min(reach, side - 1)).numpy()

    def make(i: int) -> None:
        x = _crop(interleaved[i : i + 1], boxes[i], side)
        for step in order[i]:
            x = _turn_hue(x, turns[i]) if step == HUE else _move(x, step, factors[i][step])
        if greyed[i]:
            x = cv2.cvtColor(_grey(x), cv2.COLOR_GRAY2RGB)
        _write(x, kernels[i] if blurred[i] else None, views[i])

    _for_each(make, len(images), side)
    return torch.from_numpy(views)


def _crop(image: Tensor, box: list[int], side: int) -> Bytes:
    """Cut a box from 1,3,H,W, resample and mirror it."""
    top, left, height, width, flip = box
    cut = image[:, :, top : top + height, left : left + width]
    view = F.interpolate(cut, (side, side), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return cv2.flip(view, 1) if flip else view  # type: ignore[return-value]


def _move(x: Bytes, step: int, factor: float) -> Any:
    """Move pixels from black (brightness), from the mean grey (contrast) or from their own grey (saturation)."""
    if factor == 1:
        return x
    if step == BRIGHTNESS:
        return cv2.convertScaleAbs(x, alpha=factor)
    if step == CONTRAST:
        return cv2.addWeighted(x, factor, x, 0, (1 - factor) * cv2.mean(_grey(x))[0])
    return cv2.addWeighted(x, factor, cv2.cvtColor(_grey(x), cv2.COLOR_GRAY2RGB), 1 - factor, 0)


def _turn_hue(x: Bytes, turns: float) -> Any:
    """Turn the hue in HSV; as numbers of 32 bits, since OpenCV takes longer over bytes, and these are coarse."""
    if not turns:
        return x
    hsv: Any = cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] += 360 * (turns % 1)  # degrees; OpenCV wraps above 360, not below 0
    return cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _grey(x: Bytes) -> Any:
    return cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)


def _write(x: Bytes, kernel: npt.NDArray[np.float32] | None, planes: npt.NDArray[np.float32]) -> None:
    """Write the image, blurred by `kernel` along both axes, into 3,H,W in [0,1]."""
    for plane, out in zip(cv2.split(x), planes, strict=True):
        if kernel is None:
            np.divide(plane, np.float32(255), out=out)
        else:
            cv2.sepFilter2D(plane, cv2.CV_32F, kernel / 255, kernel, dst=out, borderType=cv2.BORDER_REFLECT_101)
            np.minimum(out, 1, out=out)


def _for_each(make: Callable[[int], None], n: int, side: int) -> None:
    threads = min(torch.get_num_threads(), n) if side >= _SHARED else 1
    if threads == 1:
        for i in range(n):
            make(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(make, range(n)))
