"""Random views of a whole batch at once, on the batch's own device: crop, flip, colour jitter, grey, blur.

The distribution is that of torchvision's v2 RandomResizedCrop, RandomHorizontalFlip, ColorJitter, RandomGrayscale
and GaussianBlur, with parameters of its own for each image; with the parameters held fixed the pixels are those of
torchvision's functional operations. A CPU makes views of bytes in bytes (`visa.pretrain.pixels_cpu`). On a GPU
nothing here waits for the device: no value is read back to the host.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from visa.errors import VisaError
from visa.pretrain.pixels import HUE, Crop, Drawn, Jitter, apply_grey_, apply_jitter_, gaussian_blur_, resized_crop
from visa.pretrain.pixels_cpu import views_of_bytes

_TRIES = 10


@dataclass(frozen=True)
class Draws:
    """Random numbers for a batch that may be spread over processes.

    Every process draws for the whole batch from an equal generator and keeps its own part, `part` of `parts`, so that
    the views do not depend on the number of processes. All tensors lie on the generator's device.
    """

    generator: Generator
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise VisaError(f"Part {self.part} of {self.parts} parts does not exist; parts count from 0.")

    def uniform(self, n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high) for the n images of this part: n,*shape."""
        whole = torch.rand(n * self.parts, *shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * whole[self.part * n : (self.part + 1) * n]

    def chance(self, n: int, p: float) -> Tensor:
        """True with probability p for each of the n images of this part: n, bool."""
        return self.uniform(n) < p


@dataclass(frozen=True)
class View:
    """Ranges of a random global augmentation.

    `scale`: share of the area that a crop keeps; `ratio`: the crop's width to height; `jitter`: brightness, contrast,
    saturation (factors in 1 +- value, not below 0) and hue (turns, +- value, at most 0.5), applied with probability
    `jitter_p`; `grey_p`, `flip_p`, `blur_p`: probabilities; `blur_sigma`: range of the Gaussian's standard deviation,
    in pixels of a 224-pixel image. Raises VisaError for a range that makes no sense.
    """

    scale: tuple[float, float]
    jitter: tuple[float, float, float, float]
    jitter_p: float
    grey_p: float
    blur_p: float
    blur_sigma: tuple[float, float]
    flip_p: float = 0.5
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_range("A view's scale", self.scale, 1e-6, 1)
        check_range("A view's ratio", self.ratio, 1e-6, math.inf)
        check_range("A view's blur_sigma", self.blur_sigma, 0, math.inf)
        check_jitter(self.jitter)
        for name in ("jitter_p", "grey_p", "blur_p", "flip_p"):
            check_range(f"A view's {name}", (getattr(self, name),) * 2, 0, 1)


def check_range(what: str, bounds: tuple[float, float], least: float, most: float) -> None:
    """Raise VisaError unless least <= low <= high <= most."""
    if not least <= bounds[0] <= bounds[1] <= most:
        raise VisaError(f"{what} is {bounds}; it must ascend and lie in [{least:g}, {most:g}].")


def check_jitter(jitter: tuple[float, float, float, float]) -> None:
    """Raise VisaError unless no strength is negative and hue's is at most half a turn."""
    if min(jitter) < 0 or jitter[HUE] > 0.5:
        raise VisaError(f"Jitter is {jitter}; no value may be negative, and the last one, hue, is at most 0.5 turns.")


STRONG = View((0.2, 1.0), (0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.2, blur_p=0.5, blur_sigma=(0.1, 2.0))
"""SimSiam's and MoCo v2's view (Chen & He 2021, appendix A; Chen et al. 2020b)."""

WEAK = View((0.8, 1.0), (0.1, 0.1, 0.1, 0.02), jitter_p=0.8, grey_p=0.0, blur_p=0.5, blur_sigma=(0.1, 1.0))
"""The weak global augmentation of SPD's positive and negative; its strength is not given in the paper's body."""


def random_view(images: Tensor, side: int, view: View, draws: Draws) -> Tensor:
    """Crop, flip, colour jitter, grey and blur: N,3,H,W, uint8 or float in [0,1], to float N,3,side,side in [0,1].

    The draws' generator lies on the images' device. On a CPU views of bytes are made in bytes, which is several times
    as fast and rounds each step to a grey level. Raises VisaError for images of another shape or type.
    """
    check_images(images, bytes_too=True)
    drawn = _draw(images, side, view, draws)
    reach = math.ceil(3 * view.blur_sigma[1] * side / 224)
    if images.dtype == torch.uint8:
        if images.is_cpu:
            return views_of_bytes(images, side, drawn, reach)
        images = images.float() / 255
    with torch.autocast(images.device.type, enabled=False):
        x = resized_crop(images, drawn.crop, side)
        if view.jitter_p:
            apply_jitter_(x, drawn.jitter)
        if view.grey_p:
            apply_grey_(x, drawn.greyed)
        if view.blur_p:
            gaussian_blur_(x, drawn.sigma, reach)
        return x.clamp_(0, 1)


def _draw(images: Tensor, side: int, view: View, draws: Draws) -> Drawn:
    n, _, height, width = images.shape
    crop = draw_crop(n, height, width, view, draws)
    jitter = draw_jitter(n, view.jitter, draws, view.jitter_p)
    greyed = draws.chance(n, view.grey_p)
    low, high = (bound * side / 224 for bound in view.blur_sigma)
    sigma = draws.uniform(n, low=low, high=high) * draws.chance(n, view.blur_p)
    return Drawn(crop, jitter, greyed, sigma)


def check_images(images: Tensor, bytes_too: bool = False) -> None:
    """Raise VisaError unless images are float N,3,H,W, or uint8 where these are taken, too."""
    taken = images.is_floating_point() or (bytes_too and images.dtype == torch.uint8)
    if images.ndim != 4 or images.shape[1] != 3 or not taken:
        wanted = "uint8, or float in [0,1]" if bytes_too else "float in [0,1]: divide bytes by 255"
        raise VisaError(f"Images are {images.dtype} {','.join(map(str, images.shape))}; give N,3,H,W, {wanted}.")


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
