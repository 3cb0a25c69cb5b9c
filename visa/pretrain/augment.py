"""Random views of a whole batch at once, on the batch's own device: crop, flip, colour jitter, grey, blur.

The distribution is that of torchvision's v2 RandomResizedCrop, RandomHorizontalFlip, ColorJitter, RandomGrayscale
and GaussianBlur, with parameters of its own for each image; with the parameters held fixed the pixels are those of
torchvision's functional operations. On a GPU nothing here waits for the device: no value is read back to the host.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_TRIES = 10  # random boxes before the central one is taken


@dataclass(frozen=True)
class Draws:
    """Random numbers for a batch that may be spread over processes.

    Every process draws for the whole batch from an equal generator and keeps its own part, `part` of `parts`, so that
    the views do not depend on the number of processes. All tensors lie on the generator's device.
    """

    generator: Generator
    part: int = 0
    parts: int = 1

    def uniform(self, n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw uniform numbers in [low, high) for the n images of this part: n,*shape."""
        whole = torch.rand(n * self.parts, *shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * whole[self.part * n : (self.part + 1) * n]

    def chance(self, n: int, p: float) -> Tensor:
        """Draw True with probability p for each of the n images of this part: n, bool."""
        return self.uniform(n) < p


@dataclass(frozen=True)
class View:
    """Ranges of a random global augmentation.

    `scale`: share of the area that a crop keeps; `ratio`: the crop's width to height; `jitter`: brightness, contrast,
    saturation (factors in 1 +- value, not below 0) and hue (turns, +- value, at most 0.5), applied with probability
    `jitter_p`; `grey_p`, `flip_p`, `blur_p`: probabilities; `blur_sigma`: range of the Gaussian's standard deviation,
    in pixels of a 224-pixel image.
    """

    scale: tuple[float, float]
    jitter: tuple[float, float, float, float]
    jitter_p: float
    grey_p: float
    blur_p: float
    blur_sigma: tuple[float, float]
    flip_p: float = 0.5
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


STRONG = View((0.2, 1.0), (0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.2, blur_p=0.5, blur_sigma=(0.1, 2.0))
"""SimSiam's and MoCo v2's view (Chen & He 2021, appendix A; Chen et al. 2020b)."""

WEAK = View((0.8, 1.0), (0.1, 0.1, 0.1, 0.02), jitter_p=0.8, grey_p=0.0, blur_p=0.5, blur_sigma=(0.1, 1.0))
"""The weak global augmentation of SPD's positive and negative; its strength is not given in the paper's body."""


def random_view(images: Tensor, side: int, view: View, draws: Draws) -> Tensor:
    """Crop, flip, jitter, grey and blur N,3,H,W, uint8 or float in [0,1], to float N,3,side,side in [0,1].

    The draws' generator lies on the images' device.
    """
    n, _, height, width = images.shape
    crop = draw_crop(n, height, width, view, draws)
    jitter = draw_jitter(n, view.jitter, draws, view.jitter_p)
    greyed = draws.chance(n, view.grey_p)
    low, high = (bound * side / 224 for bound in view.blur_sigma)
    sigma = draws.uniform(n, low=low, high=high) * draws.chance(n, view.blur_p)
    with torch.autocast(images.device.type, enabled=False):
        x = resized_crop(images.float() / 255 if images.dtype == torch.uint8 else images, crop, side)
        if view.jitter_p:
            apply_jitter_(x, jitter)
        if view.grey_p:
            x.lerp_(rgb_to_grayscale(x), greyed.to(x)[:, None, None, None])
        if view.blur_p:
            gaussian_blur_(x, sigma, reach=math.ceil(3 * view.blur_sigma[1] * side / 224))
        return x.clamp_(0, 1)


@dataclass(frozen=True)
class Views:
    """Views of N images for one training step, each N,3,S,S in [0,1].

    `first`, `second`: strong views for the base loss (supervised pre-training has no second); `labels`: N classes;
    `spd`: anchor, positive and negative of the SPD term (see `visa.pretrain.spd.spd_views`), or None; `shuffle`: a
    permutation of the images of all processes, in which MoCo encodes its keys.
    """

    first: Tensor
    second: Tensor | None
    labels: Tensor
    spd: tuple[Tensor, Tensor, Tensor] | None
    shuffle: Tensor


class Crop(NamedTuple):
    """Boxes of N images in whole pixels, N each, int64, and whether each is mirrored, `flip`: N, bool."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


class Jitter(NamedTuple):
    """Drawn colour jitter of N images.

    `factors`: N,3, brightness, contrast and saturation, 1 changes nothing; `hue`: N, turns in [-0.5, 0.5];
    `order`: N,4, the order in which 0 brightness, 1 contrast, 2 saturation and 3 hue are applied.
    """

    factors: Tensor
    hue: Tensor
    order: Tensor


def draw_crop(n: int, height: int, width: int, view: View, draws: Draws) -> Crop:
    """Draw n boxes as torchvision's RandomResizedCrop does: ten tries, then the largest central box."""
    area = draws.uniform(n, _TRIES, low=view.scale[0], high=view.scale[1]) * (height * width)
    low, high = view.ratio
    ratio = draws.uniform(n, _TRIES, low=math.log(low), high=math.log(high)).exp()
    h, w = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
    # the central box stands behind the tries and always fits
    h = F.pad(h, (0, 1), value=min(height, round(width / low)))
    w = F.pad(w, (0, 1), value=min(width, round(height * high)))
    first = F.pad(fits.float(), (0, 1), value=1.0).argmax(1, keepdim=True)
    h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
    fell_back = first[:, 0] == _TRIES
    top = torch.where(fell_back, (height - h) / 2, draws.uniform(n) * (height - h + 1))
    left = torch.where(fell_back, (width - w) / 2, draws.uniform(n) * (width - w + 1))
    flip = draws.chance(n, view.flip_p)
    return Crop(top.long(), left.long(), h.long(), w.long(), flip)


def draw_jitter(n: int, jitter: tuple[float, float, float, float], draws: Draws, p: float = 1.0) -> Jitter:
    """Draw factors, hue and order for n images; with probability 1 - p an image keeps its colours."""
    used = draws.chance(n, p).float()
    factors = [draws.uniform(n, low=max(0.0, 1 - j), high=1 + j) * used + (1 - used) for j in jitter[:HUE]]
    hue = draws.uniform(n, low=-jitter[HUE], high=jitter[HUE]) * used
    return Jitter(torch.stack(factors, 1), hue, draws.uniform(n, 4).argsort(1))


def resized_crop(images: Tensor, crop: Crop, side: int) -> Tensor:
    """Cut each image's box, resample it (bilinear, antialiased) and mirror it: N,3,H,W to N,3,side,side.

    Resampling is linear and separable, so it is one product rows @ image @ columns^T per image.
    """
    _, _, height, width = images.shape
    rows = _resampling(crop.top, crop.height, height, side)
    columns = _resampling(crop.left, crop.width, width, side)
    columns = torch.where(crop.flip[:, None, None], columns.flip(1), columns)
    return rows[:, None].to(images) @ (images @ columns[:, None].to(images).mT)


def _resampling(start: Tensor, extent: Tensor, size: int, side: int) -> Tensor:
    """Return the weights N,side,size that resample `extent` pixels from `start` to `side` pixels; rows sum to 1.

    The kernel is a triangle, scaled to the larger of output and input pixel, and cut at the box.
    """
    start, extent = start[:, None, None], extent[:, None, None]
    pixel = torch.arange(size, device=start.device) - start
    scale = extent / side
    centre = (torch.arange(side, device=start.device)[:, None] + 0.5) * scale
    weight = (1 - (pixel + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((pixel >= 0) & (pixel < extent))
    return weight / weight.sum(2, keepdim=True)


def apply_jitter_(x: Tensor, jitter: Jitter, inside: Tensor | None = None) -> None:
    """Jitter the colours of N,3,H,W in [0,1] in place, in each image's own order, clamped to [0,1] after each step.

    `inside`: N,1,H,W of 0 and 1, the pixels whose mean grey contrast refers to; None: all. Hue is turned once for the
    whole batch: each image's steps before its hue run first, and its steps after it run last.
    """
    weight = 1 / x[0, 0].numel() if inside is None else inside / inside.sum((2, 3), keepdim=True)
    steps = _steps(jitter).to(x)
    _move_(x, steps[:, :3], weight)
    _turn_hue_(x, jitter.hue)
    _move_(x, steps[:, 3:], weight)


def _steps(jitter: Jitter) -> Tensor:
    """Return three steps before hue and three after it, N,6,3: how far a pixel moves to its origin, and which origin.

    The origin is the mean grey if the second number is 1 (contrast), the pixel's own grey if the third is, else black.
    """
    away = 1 - F.pad(jitter.factors, (0, 1), value=1.0).gather(1, jitter.order)
    steps = torch.stack((away, (jitter.order == CONTRAST).to(away), (jitter.order == SATURATION).to(away)), 2)
    is_hue = (jitter.order == HUE).to(away)
    after_hue = is_hue.cumsum(1)[:, :, None]
    return torch.cat((steps[:, :3] * (1 - after_hue[:, :3]), steps[:, 1:] * after_hue[:, 1:]), 1)


def _move_(x: Tensor, steps: Tensor, weight: Tensor | float) -> None:
    """Move pixels in place: brightness relative to black, contrast to the mean grey, saturation to their own grey."""
    for away, contrast, saturation in steps.permute(1, 2, 0)[..., None, None, None]:
        luma = rgb_to_grayscale(x)
        mean = (luma * weight).sum((2, 3), keepdim=True)
        x.lerp_(luma * saturation + mean * contrast, away).clamp_(0, 1)


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
    """Blur images N,C,H,W in place by a separable Gaussian, with the standard deviations `sigma`, N, in pixels.

    With sigma 0 an image stays unchanged. The kernel ends `reach` pixels from its centre; edges are reflected.
    """
    reach = min(reach, x.shape[2] - 1, x.shape[3] - 1)
    at = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (at / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(x)
    rows, columns = (_band(kernel, size) for size in x.shape[2:])
    x.copy_(rows[:, None] @ (x @ columns[:, None].mT))


def _band(kernel: Tensor, size: int) -> Tensor:
    """Write the correlation with each kernel N,2R+1 as a matrix N,size,size that includes the reflected edges."""
    reach = kernel.shape[1] // 2
    at = torch.arange(size, device=kernel.device)
    taken = (at[:, None] + torch.arange(-reach, reach + 1, device=kernel.device)).abs()
    taken = (size - 1) - ((size - 1) - taken).abs()
    band = kernel.new_zeros(len(kernel), size, size)
    return band.scatter_add_(2, taken.expand(len(kernel), -1, -1), kernel[:, None].expand(-1, size, -1))
