"""Random views and SmoothBlend (paper, section 3.2), for a whole batch at once on its own device.

Every function takes images N,3,S,S in [0,1] (views crop from any N,3,H,W) and a torch.Generator on their device;
the same generator state gives the same pixels. Each image of a batch draws parameters of its own.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_GREY = (0.299, 0.587, 0.114)
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


@dataclass(frozen=True)
class View:
    """Ranges of a random global augmentation.

    `scale`: share of the area that a crop keeps; `jitter`: brightness, contrast, saturation (factors in 1 +- value)
    and hue (turns, +- value), applied with probability `jitter_p`; `grey_p`, `flip_p`, `blur_p`: probabilities;
    `blur_sigma`: range of the Gaussian's standard deviation, in pixels of a 224-pixel image.
    """

    scale: tuple[float, float]
    jitter: tuple[float, float, float, float]
    jitter_p: float
    grey_p: float
    blur_p: float
    blur_sigma: tuple[float, float]
    flip_p: float = 0.5


STRONG = View((0.2, 1.0), (0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.2, blur_p=0.5, blur_sigma=(0.1, 2.0))
"""SimSiam's and MoCo v2's view (Chen & He 2021, section 4; Chen et al. 2020)."""

WEAK = View((0.8, 1.0), (0.1, 0.1, 0.1, 0.02), jitter_p=0.8, grey_p=0.0, blur_p=0.5, blur_sigma=(0.1, 1.0))
"""The weak global augmentation of SPD's positive and negative; its strength is not given in the paper's body."""


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


@dataclass(frozen=True)
class Patches:
    """Drawn parameters of SmoothBlend for N images of side S.

    `height`, `width`, `top`, `left`, `source_top`, `source_left`: N, whole pixels; `sigma`: N, pixels;
    `colour`: N,3,4, the affine colour matrix of the patch's jitter.
    """

    height: Tensor
    width: Tensor
    top: Tensor
    left: Tensor
    source_top: Tensor
    source_left: Tensor
    sigma: Tensor
    colour: Tensor


def random_view(images: Tensor, side: int, view: View, generator: Generator) -> Tensor:
    """Crop, flip, colour jitter, grey and blur: N,3,H,W in [0,1] to N,3,side,side in [0,1]."""
    n, device = len(images), images.device
    x = _random_resized_crop(images, side, view, generator)
    identity = torch.eye(3, 4, device=device).expand(n, 3, 4)
    jittered = torch.where(
        _chance(n, view.jitter_p, generator)[:, None, None], _colour(x, view.jitter, generator), identity
    )
    x = apply_colour(x, jittered).clamp(0, 1)
    grey = _chance(n, view.grey_p, generator)[:, None, None, None]
    x = torch.where(grey, _luma(x), x)
    sigma = _uniform(n, view.blur_sigma, generator) * side / 224
    return torch.where(_chance(n, view.blur_p, generator)[:, None, None, None], gaussian_blur(x, sigma), x)


def draw_patches(images: Tensor, params: SmoothBlend, generator: Generator) -> Patches:
    """Draw patch size, place, source, softness and colour for each of N,3,S,S images."""
    n, side = len(images), images.shape[-1]
    area = _uniform(n, params.area, generator) * side**2
    ratio = torch.exp(_uniform(n, (math.log(params.aspect[0]), math.log(params.aspect[1])), generator))
    height = (area / ratio).sqrt().round().clamp(1, side)
    width = (area * ratio).sqrt().round().clamp(1, side)

    def place(extent: Tensor) -> Tensor:
        return (_uniform(n, (0, 1), generator) * (side - extent + 1)).floor().clamp(max=side - 1)

    return Patches(
        height=height,
        width=width,
        top=place(height),
        left=place(width),
        source_top=place(height),
        source_left=place(width),
        sigma=_uniform(n, params.sigma, generator) * side,
        colour=_colour(images, params.jitter, generator),
    )


def smooth_blend(images: Tensor, patches: Patches, onto: str = "zeros") -> tuple[Tensor, Tensor]:
    """x' = (1 - alpha) * x + alpha * u (paper, section 3.2).

    u holds the colour-jittered patch, pasted on an all-zero layer; alpha is 1 on the pasted pixels and 0 elsewhere,
    blurred by a Gaussian. Images N,3,S,S in [0,1]; returns x' of that shape and alpha N,1,S,S in [0,1].
    """
    side = images.shape[-1]
    at = torch.arange(side, device=images.device)
    rows = (at - (patches.top - patches.source_top)[:, None]).long().clamp(0, side - 1)
    columns = (at - (patches.left - patches.source_left)[:, None]).long().clamp(0, side - 1)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    shifted = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    u = apply_colour(shifted, patches.colour).clamp(0, 1)
    if onto == "zeros":
        u = u * _box(at, patches)[:, None]
    alpha = _soft_box(at, patches)[:, None]
    return (1 - alpha) * images + alpha * u, alpha


def apply_colour(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply one affine colour matrix an image: N,3,H,W and N,3,4 to N,3,H,W (not clamped)."""
    return torch.einsum("nij,njhw->nihw", matrix[:, :, :3], images) + matrix[:, :, 3, None, None]


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur with one standard deviation an image: N,C,H,W and N (pixels); edges are reflected."""
    n, channels, height, width = images.shape
    reach = min(max(1, math.ceil(3 * float(sigma.max()))), height - 1, width - 1)
    at = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    x = F.pad(images, (reach,) * 4, mode="reflect").reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
    x = F.conv2d(x, kernel[:, None, :, None], groups=n * channels)
    x = F.conv2d(x, kernel[:, None, None, :], groups=n * channels)
    return x.reshape(n, channels, height, width)


def _random_resized_crop(images: Tensor, side: int, view: View, generator: Generator) -> Tensor:
    """Crop of a random area and aspect (3/4 to 4/3), flipped or not, resampled bilinearly in one affine grid."""
    n, _, height, width = images.shape
    area = _uniform(n, view.scale, generator) * height * width
    ratio = torch.exp(_uniform(n, (math.log(3 / 4), math.log(4 / 3)), generator))
    crop_w = (area * ratio).sqrt().clamp(max=width) / width
    crop_h = (area / ratio).sqrt().clamp(max=height) / height
    flip = 1 - 2 * _chance(n, view.flip_p, generator).float()
    theta = images.new_zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = crop_w * flip, (1 - crop_w) * _uniform(n, (-1, 1), generator)
    theta[:, 1, 1], theta[:, 1, 2] = crop_h, (1 - crop_h) * _uniform(n, (-1, 1), generator)
    grid = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _colour(images: Tensor, jitter: tuple[float, float, float, float], generator: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue as one affine matrix N,3,4 (hue: a rotation of the YIQ chroma plane)."""
    n, device = len(images), images.device
    brightness, contrast, saturation = (_uniform(n, (1 - j, 1 + j), generator) for j in jitter[:3])
    angle = 2 * math.pi * _uniform(n, (-jitter[3], jitter[3]), generator)
    luma = torch.tensor(_GREY, device=device)
    eye = torch.eye(3, device=device)
    to_yiq = torch.tensor(_RGB_TO_YIQ, device=device)
    rotation = eye.repeat(n, 1, 1)
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    grey = luma.expand(3, 3)
    saturate = saturation[:, None, None] * eye + (1 - saturation)[:, None, None] * grey
    turn = torch.linalg.inv(to_yiq) @ rotation @ to_yiq
    mean = (_luma(images).mean((1, 2, 3)) * brightness)[:, None, None]
    scale = (contrast * brightness)[:, None, None] * eye
    offset = ((1 - contrast)[:, None, None] * mean).expand(n, 3, 1)
    matrix: Tensor = turn @ saturate @ torch.cat([scale, offset], dim=2)
    return matrix


def _box(at: Tensor, p: Patches) -> Tensor:
    """1 on the pasted pixels, 0 elsewhere: N,S,S."""
    rows = (at >= p.top[:, None]) & (at < (p.top + p.height)[:, None])
    columns = (at >= p.left[:, None]) & (at < (p.left + p.width)[:, None])
    return (rows[:, :, None] & columns[:, None, :]).float()


def _soft_box(at: Tensor, p: Patches) -> Tensor:
    """The box blurred by a Gaussian, in closed form: a product of differences of error functions. N,S,S."""

    def profile(start: Tensor, extent: Tensor) -> Tensor:
        scale = (math.sqrt(2) * p.sigma.clamp(min=1e-3))[:, None]
        centre = at + 0.5
        return (
            torch.erf((centre - start[:, None]) / scale) - torch.erf((centre - (start + extent)[:, None]) / scale)
        ) / 2

    return profile(p.top, p.height)[:, :, None] * profile(p.left, p.width)[:, None, :]


def _luma(images: Tensor) -> Tensor:
    return torch.einsum("c,nchw->nhw", images.new_tensor(_GREY), images)[:, None]


def _uniform(n: int, bounds: tuple[float, float], generator: Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator, device=generator.device)


def _chance(n: int, p: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device) < p
