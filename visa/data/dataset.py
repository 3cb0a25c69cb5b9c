"""VisA samples as tensors: image, label, anomaly mask and class ids, straight from the raw layout."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from tqdm import tqdm

from visa.data.splits import Sample
from visa.errors import VisaError

MASK_MODES = ("1", "L", "P")  # one 8-bit channel: the pixel, or the palette's index, is the class id


class VisaDataset(Dataset[dict[str, Any]]):
    """Samples of a VisA root; an item is a dict.

    `image` uint8 3 x H x W RGB, `label` 0 normal or 1 anomaly, `mask` uint8 H x W in {0, 1}, `classes` uint8 H x W
    class ids with 0 the background, `path` the image's path relative to the root. A normal sample's mask is all zero.
    `size` = (height, width) resizes the image (bilinear, antialiased) and the masks (nearest); without it, full size.
    Raises VisaError for an unreadable file, an anomaly without a mask, or a mask that does not have its image's size.
    """

    def __init__(self, root: Path, samples: Sequence[Sample], size: tuple[int, int] | None = None) -> None:
        self.root, self.samples, self.size = Path(root), list(samples), size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        image = read_image(self.root / sample.image)
        classes = self._classes(sample, image)
        if self.size is not None:
            image, classes = resize_image(image, self.size), resize_mask(classes, self.size)
        mask = (classes > 0).to(torch.uint8)
        label = int(sample.label == "anomaly")
        return {"image": image, "label": label, "mask": mask, "classes": classes, "path": sample.image}

    def _classes(self, sample: Sample, image: Tensor) -> Tensor:
        if sample.label == "normal":
            return torch.zeros(image.shape[1:], dtype=torch.uint8)
        if not sample.mask:
            raise VisaError(f"{self.root / sample.image} is an anomaly without a mask: name it in the split file.")
        classes = read_mask(self.root / sample.mask)
        if classes.shape != image.shape[1:]:
            raise VisaError(
                f"{self.root / sample.mask} is {_size(classes)} but its image {sample.image} is {_size(image)}: "
                "a mask has its image's size."
            )
        return classes


def read_image(path: Path) -> Tensor:
    """An image file as uint8 3 x H x W RGB, upright: EXIF rotation applied; grey, palette and CMYK converted.

    Raises VisaError if the file is absent, truncated, not an image, or has more than 8 bits a channel.
    """
    image = _decode(path)
    if image.mode.startswith(("I", "F")):  # Pillow would clip these to 255 without a word
        raise VisaError(f"{path} has more than 8 bits a channel ({image.mode}): save it with 8.")
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_mask(path: Path) -> Tensor:
    """A mask file as uint8 H x W class ids, 0 the background.

    Raises VisaError if the file is absent, truncated, or not an image with one 8-bit channel.
    """
    image = _decode(path)
    if image.mode not in MASK_MODES:
        raise VisaError(f"{path} has the mode {image.mode}: a mask has one 8-bit channel of class ids.")
    return torch.from_numpy(np.array(image, dtype=np.uint8))


def load_images(
    root: Path, samples: Sequence[Sample], size: tuple[int, int], workers: int | None = None, progress: bool = False
) -> Tensor:
    """The samples' images in memory, resized to (height, width): uint8 N x 3 x H x W, in the samples' order.

    Decodes in `workers` threads (Pillow lets go of the interpreter lock). Raises VisaError as `read_image` does.
    """
    images = torch.empty((len(samples), 3, *size), dtype=torch.uint8)

    def load(index: int) -> None:
        images[index] = resize_image(read_image(Path(root) / samples[index].image), size)

    with ThreadPoolExecutor(workers) as pool:
        list(tqdm(pool.map(load, range(len(samples))), "images", len(samples), disable=not progress))
    return images


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A uint8 3 x H x W image at `size` = (height, width), bilinear and antialiased."""
    return interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A uint8 H x W mask at `size` = (height, width), each pixel that of the nearest old pixel centre."""
    return interpolate(mask[None, None], size=size, mode="nearest-exact")[0, 0]


def _decode(path: Path) -> Image.Image:
    """The decoded image, upright; whatever fails becomes a VisaError that names the file."""
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return image
    except FileNotFoundError:
        raise VisaError(f"no image at {path}: the data set is incomplete (visa verify lists what is absent).") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VisaError(f"{path} cannot be decoded ({error}): fetch it again.") from error


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[-1]} x {pixels.shape[-2]}"
