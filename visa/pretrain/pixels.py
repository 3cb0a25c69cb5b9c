"""Pixel operations on a batch, with parameters of its own for each image: crop, colour jitter, grey and blur.

Under equal parameters the pixels are those of torchvision's functional operations. Images are float N,3,H,W in [0,1]
and contiguous; nothing is read back from a GPU to the host.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's rounding of ITU-R BT.601
_CACHED = 2**18  # numbers that a thread of a CPU works on at a time
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Crop(NamedTuple):
    """Boxes of N images in whole pixels, N each, int64, and whether each is mirrored, `flip`: N, bool."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


def resized_crop(images: Tensor, crop: Crop, side: int) -> Tensor:
    """Cut each image's box, resample it (bilinear, antialiased) and mirror it: N,3,H,W to N,3,side,side.

    One product rows @ image @ columns^T an image: the resampling is linear and separable.
    """
    _, _, height, width = images.shape
    rows = _resampling(crop.top, crop.height, height, side)
    columns = _resampling(crop.left, crop.width, width, side)
    columns = torch.where(crop.flip[:, None, None], columns.flip(1), columns)
    return rows[:, None].to(images) @ (images @ columns[:, None].to(images).mT)


def _resampling(start: Tensor, extent: Tensor, size: int, side: int) -> Tensor:
    """Weights that resample `extent` of `size` pixels from `start` to `side` pixels: N,side,size, rows sum to 1.

    A triangle as wide as the output's pixel, but not narrower than the input's, cut at the box.
    """
    start, extent = start[:, None, None], extent[:, None, None]
    pixel = torch.arange(size, device=start.device) - start
    scale = extent / side
    centre = (torch.arange(side, device=start.device)[:, None] + 0.5) * scale
    weight = (1 - (pixel + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((pixel >= 0) & (pixel < extent))
    return weight / weight.sum(2, keepdim=True)


class Jitter(NamedTuple):
    """Drawn colour jitter of N images.

    `factors`: N,3, brightness, contrast and saturation, 1 changes nothing; `hue`: N, turns in [-0.5, 0.5];
    `order`: N,4, the order in which 0 brightness, 1 contrast, 2 saturation and 3 hue are applied.
    """

    factors: Tensor
    hue: Tensor
    order: Tensor


class Drawn(NamedTuple):
    """All that is drawn for a view of N images; `greyed`: N, bool; `sigma`: N, of the blur in pixels, 0 for none."""

    crop: Crop
    jitter: Jitter
    greyed: Tensor
    sigma: Tensor


def apply_jitter_(x: Tensor, jitter: Jitter, inside: Tensor | None = None) -> None:
    """Jitter the colours of N,3,H,W in [0,1] in place, in each image's own order, clamped to [0,1] after each step.

    `inside`: N,1,H,W of 0 and 1, the pixels whose mean contrast is relative to; None: all. Hue has one place for the
    whole batch: what an image has before its hue runs first, what it has after runs last.
    """
    weight = None if inside is None else inside / inside.sum((2, 3), keepdim=True)
    steps = _steps(jitter).to(x)
    for part in _parts(x):
        of_part = None if weight is None else weight[part]
        _move_(x[part], steps[part, :3], of_part)
        _turn_hue_(x[part], jitter.hue[part])
        _move_(x[part], steps[part, 3:], of_part)


def _steps(jitter: Jitter) -> Tensor:
    """Three steps before hue and three after: N,6,3, how far from its origin a pixel moves, and which origin.

    The second and third number choose the mean grey (contrast) or the pixel's own (saturation); none: black.
    """
    away = 1 - F.pad(jitter.factors, (0, 1), value=1.0).gather(1, jitter.order)
    steps = torch.stack((away, (jitter.order == CONTRAST).to(away), (jitter.order == SATURATION).to(away)), 2)
    is_hue = (jitter.order == HUE).to(away)
    after_hue = is_hue.cumsum(1)[:, :, None]
    return torch.cat((steps[:, :3] * (1 - after_hue[:, :3]), steps[:, 1:] * after_hue[:, 1:]), 1)


def _move_(x: Tensor, steps: Tensor, weight: Tensor | None) -> None:
    """In place: brightness moves pixels from black, contrast from the mean grey, saturation from their own grey."""
    for away, contrast, saturation in steps.permute(1, 2, 0)[..., None, None, None]:
        luma = grey(x)
        x.lerp_(luma * saturation + _mean(luma, weight) * contrast, away).clamp_(0, 1)


def _mean(luma: Tensor, weight: Tensor | None) -> Tensor:
    return luma.mean((2, 3), keepdim=True) if weight is None else (luma * weight).sum((2, 3), keepdim=True)


def _turn_hue_(x: Tensor, turns: Tensor) -> None:
    """Turn the hue in HSV (Smith 1978) in place: N,3,H,W by N turns; value and saturation stay.

    Masks are numbers here: on a CPU `torch.where` takes 25 times as long as a sum.
    """
    r, g, b = x.unbind(1)
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = high - low
    per_chroma = chroma.clamp(min=1e-12).reciprocal_()
    is_red, is_green = (torch.eq(high, channel, out=torch.empty_like(high)) for channel in (r, g))
    hue = (r - g).mul_(per_chroma).add_(4)  # in sixths of a turn
    hue.lerp_((b - r).mul_(per_chroma).add_(2), is_green).lerp_((g - b).mul_(per_chroma), is_red)
    hue.add_(6 * turns.to(x)[:, None, None])
    hue.sub_((hue / 6).floor_(), alpha=6)
    # a channel's share of the chroma is a trapezium over the circle: red is lowest at 3, green highest at 2, blue at 4
    torch.sub(hue, 3, out=r).abs_().sub_(1)
    for channel, peak in ((g, 2), (b, 4)):
        torch.sub(hue, peak, out=channel).abs_().neg_().add_(2)
    x.clamp_(0, 1).mul_(chroma[:, None]).add_(low[:, None])


def gaussian_blur_(x: Tensor, sigma: Tensor, reach: int) -> None:
    """Separable Gaussian blur in place, a standard deviation for each image: N,C,H,W and N (pixels).

    Where sigma is 0 the image stays. The kernel ends `reach` pixels from its centre; edges are reflected.
    """
    kernel = gaussian(sigma, min(reach, x.shape[2] - 1, x.shape[3] - 1)).to(x)
    rows, columns = (_band(kernel, size) for size in x.shape[2:])
    x.copy_(rows[:, None] @ (x @ columns[:, None].mT))


def gaussian(sigma: Tensor, reach: int) -> Tensor:
    """Kernels of N standard deviations (pixels), 0 for none: N,2*reach+1, rows sum to 1."""
    at = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(min=1e-3)[:, None]) ** 2)
    return kernel / kernel.sum(1, keepdim=True)


def _band(kernel: Tensor, size: int) -> Tensor:
    """The correlation with each kernel as a matrix, the reflected edges folded in: N,2R+1 to N,size,size."""
    reach = kernel.shape[1] // 2
    at = torch.arange(size, device=kernel.device)
    taken = (at[:, None] + torch.arange(-reach, reach + 1, device=kernel.device)).abs()
    taken = (size - 1) - ((size - 1) - taken).abs()
    band = kernel.new_zeros(len(kernel), size, size)
    return band.scatter_add_(2, taken.expand(len(kernel), -1, -1), kernel[:, None].expand(-1, size, -1))


def apply_grey_(x: Tensor, greyed: Tensor) -> None:
    """Take the colour from those of N,3,H,W that `greyed` (N, bool) names, in place."""
    x.lerp_(grey(x), greyed.to(x)[:, None, None, None])


def grey(images: Tensor) -> Tensor:
    """Grey of N,3,H,W: N,1,H,W."""
    r, g, b = images.unbind(1)
    return (r * _LUMA[0]).add_(g, alpha=_LUMA[1]).add_(b, alpha=_LUMA[2]).unsqueeze(1)


def _parts(images: Tensor) -> list[slice]:
    """Slices of a batch N,C,H,W that stay in a CPU's caches, where that is up to 3 times as fast; else all of it."""
    n = len(images)
    step = math.ceil(_CACHED * torch.get_num_threads() / images[0].numel()) if images.is_cpu else n
    return [slice(start, start + step) for start in range(0, n, step)]
