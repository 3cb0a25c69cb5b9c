"""SmoothBlend (paper, section 3.2): the local perturbation of SPD's negatives, for a whole batch on its own device."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visa.errors import VisaError
from visa.pretrain.augment import Draws, Jitter, apply_jitter_, draw_jitter


@dataclass(frozen=True)
class SmoothBlend:
    """Ranges of the local perturbation.

    `area`: the patch's share of the image; `aspect`: its width to height; `sigma`: the Gaussian that softens alpha,
    as a share of the image's side; `jitter`: the patch's brightness, contrast, saturation and hue, as in `View`.
    `onto`: "zeros" pastes the patch on an all-zero layer, as the paper's formula says, so that alpha's soft rim is
    darkened; "shifted" blends with the shifted image under the same alpha, without that rim.
    """

    area: tuple[float, float] = (0.005, 0.08)
    aspect: tuple[float, float] = (0.5, 2.0)
    sigma: tuple[float, float] = (0.01, 0.03)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    onto: Literal["zeros", "shifted"] = "zeros"


BLEND = SmoothBlend()

CUTPASTE = SmoothBlend(sigma=(0.0, 0.0))
"""The hard edge of CutPaste (Li et al. 2021) with SmoothBlend's patches, so that only the edge differs."""


@dataclass(frozen=True)
class Patches:
    """Drawn parameters of SmoothBlend for N images of side S.

    `height`, `width`, `top`, `left`, `source_top`, `source_left`: N, whole pixels; `sigma`: N, pixels;
    `colour`: the patches' colour jitter, None where it changes nothing.
    """

    height: Tensor
    width: Tensor
    top: Tensor
    left: Tensor
    source_top: Tensor
    source_left: Tensor
    sigma: Tensor
    colour: Jitter | None


def draw_patches(n: int, side: int, params: SmoothBlend, draws: Draws) -> Patches:
    """Draw patch size, place, source, softness and colour for each of n images of N,3,side,side."""
    area = draws.uniform(n, low=params.area[0], high=params.area[1]) * side**2
    ratio = draws.uniform(n, low=math.log(params.aspect[0]), high=math.log(params.aspect[1])).exp()
    height = (area / ratio).sqrt().round().clamp(1, side)
    width = (area * ratio).sqrt().round().clamp(1, side)

    def place(extent: Tensor) -> Tensor:
        return (draws.uniform(n) * (side - extent + 1)).floor()

    top, left, source_top, source_left = (place(extent) for extent in (height, width, height, width))
    sigma = draws.uniform(n, low=params.sigma[0], high=params.sigma[1]) * side
    colour = draw_jitter(n, params.jitter, draws) if any(params.jitter) else None
    return Patches(height, width, top, left, source_top, source_left, sigma, colour)


def smooth_blend(
    images: Tensor, patches: Patches, onto: Literal["zeros", "shifted"] = "zeros"
) -> tuple[Tensor, Tensor]:
    """x' = (1 - alpha) * x + alpha * u (paper, section 3.2), where u is the colour-jittered patch on zeros.

    alpha is 1 on the pasted pixels and 0 elsewhere, then blurred by a Gaussian. `onto`: see SmoothBlend.
    Images x: N,3,S,S in [0,1]; returns x' of that shape and alpha N,1,S,S in [0,1].
    Raises VisaError for images of another shape or type.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.dtype == torch.uint8:
        raise VisaError(f"Images are {images.dtype} {tuple(images.shape)}; give square ones, N,3,S,S, divided by 255.")
    at = torch.arange(images.shape[-1], device=images.device)
    u = pasted_layer(images, patches, onto)
    alpha = _soft_box(at, patches)[:, None].to(images)
    return images + alpha * (u - images), alpha


def pasted_layer(images: Tensor, patches: Patches, onto: Literal["zeros", "shifted"] = "zeros") -> Tensor:
    """Return the layer u of `smooth_blend`: each image's patch at its new place, its colours jittered, on zeros."""
    at = torch.arange(images.shape[-1], device=images.device)
    rows, columns = (
        (at >= start[:, None]) & (at < (start + extent)[:, None])
        for start, extent in ((patches.top, patches.height), (patches.left, patches.width))
    )
    box = (rows[:, :, None] & columns[:, None, :])[:, None].to(images)  # 1 on the pasted pixels
    u = _shift(images, at, patches)
    if patches.colour is not None:
        apply_jitter_(u, patches.colour, inside=box)
    return u * box if onto == "zeros" else u


def _shift(images: Tensor, at: Tensor, p: Patches) -> Tensor:
    """Shift each image so that its patch lies at its new place; pixels from outside the image repeat its edge."""
    side = len(at)
    rows = (at - (p.top - p.source_top)[:, None]).long().clamp(0, side - 1)
    columns = (at - (p.left - p.source_left)[:, None]).long().clamp(0, side - 1)
    pixels = (rows[:, :, None] * side + columns[:, None, :]).flatten(1)
    return images.flatten(2).gather(2, pixels[:, None].expand(-1, 3, -1)).view_as(images)


def _soft_box(at: Tensor, p: Patches) -> Tensor:
    """Return the box N,S,S blurred by a Gaussian, in closed form: a product of differences of error functions."""

    def profile(start: Tensor, extent: Tensor) -> Tensor:
        scale = (math.sqrt(2) * p.sigma.clamp(min=1e-3))[:, None]
        centre = at + 0.5
        return (
            torch.erf((centre - start[:, None]) / scale) - torch.erf((centre - (start + extent)[:, None]) / scale)
        ) / 2

    return profile(p.top, p.height)[:, :, None] * profile(p.left, p.width)[:, None, :]
