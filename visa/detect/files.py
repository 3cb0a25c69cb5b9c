"""Image files below a folder, read ahead in threads, and heat maps laid over them."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visa.data.dataset import read_image, resize_image
from visa.data.layouts import SUFFIXES
from visa.errors import VisaError
from visa.paths import LOCK, written_whole

TABLE, HEAT, RAW = "scores.csv", "heat", "raw"  # what visa.detect.line writes: a table, and folders of pictures
_PIXELS = 16 * 224 * 224  # of a batch


@dataclass(frozen=True)
class Picture:
    """An image file: its pixels uint8 3,H,W and the same at the size that was asked for, or why there are none."""

    path: Path
    pixels: Tensor
    resized: Tensor
    error: str = ""


def image_files(path: Path) -> list[Path]:
    """The image at `path`, or all below that folder, sorted, through links, too; hidden ones do not count.

    What `visa.detect.line.score_files` wrote is left out. Raises VisaError if there is nothing at `path`, no image, or
    a folder that may not be read.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise VisaError(f"no image or folder at {path}: check the path.")
    files: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(path, onerror=_refuse, followlinks=True):
        here, real = Path(folder), os.path.realpath(folder)
        if real in seen:  # a link to a folder above or beside
            folders.clear()
            continue
        seen.add(real)
        written = (HEAT, RAW) if (here / TABLE).is_file() or (here / LOCK).exists() else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in written)
        found = (here / name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)
        files += [file for file in found if file.is_file() or file.is_symlink()]  # a link to nothing is unreadable
    if not files:
        raise VisaError(f"{path} holds no image: its files end in none of {', '.join(SUFFIXES)}.")
    return sorted(files)


def _refuse(error: OSError) -> None:
    raise VisaError(f"{error.filename} may not be read ({error.strerror}): change its permissions.")


def read_ahead(files: Sequence[Path], size: tuple[int, int]) -> Iterator[list[Picture]]:
    """The files in batches of about 16 x 224 x 224 pixels of `size` = (height, width), one batch read ahead."""

    def read(path: Path) -> Picture:
        try:
            pixels = read_image(path)
            return Picture(path, pixels, resize_image(pixels, size))
        except VisaError as error:
            return Picture(path, torch.empty(0), torch.empty(0), str(error))

    with ThreadPoolExecutor() as pool:
        waiting: list[Future[Picture]] = []
        count = _batch_size(size)
        for start in range(0, len(files), count):
            ready, waiting = waiting, [pool.submit(read, f) for f in files[start : start + count]]
            if ready:
                yield [f.result() for f in ready]
        yield [f.result() for f in waiting]


class ImageBatches:
    """Files as batches N,3,H,W in [0,1] at `size` = (height, width) on a device; may be gone through again.

    Raises VisaError at the first file that cannot be read.
    """

    def __init__(self, files: Sequence[Path], size: tuple[int, int], device: torch.device) -> None:
        self.files, self.size, self.device = files, size, device

    def __len__(self) -> int:
        return -(-len(self.files) // _batch_size(self.size))

    def __iter__(self) -> Iterator[Tensor]:
        for pictures in read_ahead(self.files, self.size):
            for picture in pictures:
                if picture.error:
                    raise VisaError(picture.error)
            yield as_batch(pictures, self.device)


def _batch_size(size: tuple[int, int]) -> int:
    return max(1, _PIXELS // (size[0] * size[1]))


def as_batch(pictures: Sequence[Picture], device: torch.device) -> Tensor:
    """The resized pictures as one tensor N,3,H,W in [0,1] on a device."""
    return torch.stack([p.resized for p in pictures]).to(device).float() / 255


def overlay(pixels: Tensor, heat: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """An image uint8 3,H,W with a map (h, w) over it, as uint8 H,W,3 RGB.

    The map is clear at `low` and below, and covers the image by six tenths in dark red at `high` and above.
    """
    image = pixels.permute(1, 2, 0).numpy()
    full = cv2.resize(heat, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    share = np.clip((full - low) / (high - low), 0, 1).astype(np.float32)
    colours = cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    cover = 0.6 * share[..., None]
    return np.asarray(np.rint(image * (1 - cover) + colours * cover), np.uint8)


def grey16(heat: NDArray[np.float32], size: tuple[int, int]) -> tuple[NDArray[np.uint16], float, float]:
    """A map at `size` = (height, width) as uint16, with low and high: value = low + pixel / 65535 * (high - low)."""
    full = cv2.resize(heat, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    low, high = float(full.min()), float(full.max())
    scale = 65535 / (high - low) if high > low else 0.0
    return np.rint((full - low) * scale).astype(np.uint16), low, high


def write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write grey or RGB pixels as PNG, whole or not at all."""
    done, content = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    if not done:
        raise VisaError(f"{path} cannot be encoded as PNG: its image is {pixels.shape[1]} x {pixels.shape[0]}.")
    with written_whole(path) as partial:
        partial.write_bytes(content.tobytes())


def printable(path: Path) -> str:
    """A path as text that any file or terminal takes."""
    return str(path).encode("utf-8", "backslashreplace").decode()
