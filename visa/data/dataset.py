"""VisA samples as tensors: image, label, anomaly mask and class ids, straight from the raw layout."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_jpeg
from tqdm import tqdm

from visa.data.images import ORIENTATION, UNREADABLE, open_image, open_mask, open_upright, undecodable, upright_size
from visa.data.splits import Sample
from visa.errors import VisaError


class VisaDataset(Dataset[dict[str, Any]]):
    """The samples of a root; each item is a dict.

    `image` uint8 3 x H x W RGB, `label` 0 normal or 1 anomaly, `mask` uint8 H x W in {0, 1}, `classes` uint8 H x W
    class ids with 0 the background, `path` the image's path relative to the root, `known` whether the mask is the
    truth. Masks of normal samples are all zero; so are those of anomalies without a mask, whose `known` is False.
    `size` = (height, width) resizes the image (bilinear, antialiased) and the masks (nearest); without it, full size.
    Raises VisaError for an unreadable file, or a mask that does not have its image's size.
    """

    def __init__(self, root: Path, samples: Sequence[Sample], size: tuple[int, int] | None = None) -> None:
        self.root, self.samples, self.size = Path(root), list(samples), size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        image = read_image(self.root / sample.image)
        shape = (image.shape[1], image.shape[2])
        classes = _classes(self.root, sample, shape) if sample.mask else torch.zeros(shape, dtype=torch.uint8)
        if self.size is not None:
            image, classes = resize_image(image, self.size), resize_mask(classes, self.size)
        return {
            "image": image,
            "label": int(sample.label == "anomaly"),
            "mask": (classes > 0).to(torch.uint8),
            "classes": classes,
            "path": sample.image,
            "known": is_known(sample),
        }


def is_known(sample: Sample) -> bool:
    """Tell whether it is known which pixels of a sample are defective: it is normal or has a mask."""
    return sample.label == "normal" or bool(sample.mask)


def read_image(path: Path) -> Tensor:
    """Read an image file as uint8 3 x H x W RGB, upright: EXIF rotation applied; grey, palette and CMYK converted.

    torchvision decodes plain JPEG files (8 bits, RGB or grey, upright), because it is faster than Pillow; the pixels
    are equal if both use the same libjpeg-turbo. Pillow decodes all other files.
    Raises VisaError if the file is missing, truncated, not an image, or grey with more than 8 bits (16-bit colour is
    reduced to 8).
    """
    if (quick := _read_plain_jpeg(path)) is not None:
        return quick
    image = open_upright(path)
    if image.mode.startswith(("I", "F")):  # Pillow would silently clip these to 255
        raise VisaError(f"{path} has more than 8 bits a channel ({image.mode}): save it with 8.")
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_mask(path: Path) -> Tensor:
    """Read a mask file as uint8 H x W class ids, 0 the background; raises VisaError as `open_mask` does."""
    return torch.from_numpy(np.array(open_mask(path)))


def load_images(
    root: Path, samples: Sequence[Sample], size: tuple[int, int], workers: int | None = None, progress: bool = False
) -> Tensor:
    """Read the samples' images, resized to (height, width): uint8 N x 3 x H x W, in the samples' order.

    `workers` threads decode them (the decoders release the interpreter lock). Raises VisaError as `read_image` does.
    """

    def load(sample: Sample) -> Tensor:
        return resize_image(read_image(Path(root) / sample.image), size)

    pixels = torch.empty((len(samples), 3, *size), dtype=torch.uint8)
    with ThreadPoolExecutor(workers) as pool:
        for index, image in enumerate(tqdm(pool.map(load, samples), "read", len(samples), disable=not progress)):
            pixels[index] = image
    return pixels


def load_masks(root: Path, samples: Sequence[Sample], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Read masks as `VisaDataset` does, uint8 N x H x W in {0, 1}, and whether each is known, bool N.

    Of images only the size is read. Raises VisaError as `VisaDataset` does.
    """

    def load(sample: Sample, mask: Tensor) -> None:
        if sample.mask:
            classes = _classes(Path(root), sample, upright_size(Path(root) / sample.image))
            mask[:] = resize_mask(classes, size) > 0

    masks = torch.zeros((len(samples), *size), dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        list(pool.map(load, samples, masks))
    return masks, torch.tensor([is_known(s) for s in samples], dtype=torch.bool)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a uint8 3 x H x W image to `size` = (height, width), bilinear and antialiased."""
    return interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a uint8 H x W mask to `size` = (height, width); each pixel takes the nearest old pixel's value."""
    return interpolate(mask[None, None], size=size, mode="nearest-exact")[0, 0]


def _read_plain_jpeg(path: Path) -> Tensor | None:
    """Decode a plain JPEG file, in the memory order that `resize_image` is fastest on; None for all else."""
    try:
        data = bytearray(path.read_bytes())
        with open_image(io.BytesIO(data)) as image:
            if image.format != "JPEG" or image.mode not in ("RGB", "L") or image.getexif().get(ORIENTATION, 1) != 1:
                return None
        pixels: Tensor = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=ImageReadMode.RGB)
        return pixels
    except RuntimeError:  # let Pillow decide whether the file is broken
        return None
    except UNREADABLE as error:
        raise undecodable(path, error) from error


def _classes(root: Path, sample: Sample, shape: tuple[int, int]) -> Tensor:
    """Read the class ids of a sample's mask; raises VisaError unless they have their image's `shape`."""
    classes = read_mask(root / sample.mask)
    if classes.shape != shape:
        raise VisaError(
            f"{root / sample.mask} is {classes.shape[1]} x {classes.shape[0]} but its image {sample.image} is "
            f"{shape[1]} x {shape[0]}: a mask must have its image's size."
        )
    return classes
