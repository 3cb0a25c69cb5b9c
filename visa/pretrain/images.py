"""Where training images come from: an object's normal images in memory, or an ImageNet-style folder."""

import hashlib
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from tqdm import tqdm

from visa.data.dataset import load_images
from visa.data.images import UNREADABLE, open_image
from visa.data.setups import clean_normals
from visa.data.source import Source
from visa.errors import VisaError
from visa.runs import folder_scope

HELD_OUT_LEAST, HELD_OUT_MOST = 8, 100  # bounds of the tenth of images that is held out to measure what was learned
BUDGET = 0.001  # share of images that may be corrupt
BUDGET_LEAST = 10  # images that may always be corrupt


class Batch(NamedTuple):
    """Images uint8 N,3,H,W and their labels int64 N."""

    images: Tensor
    labels: Tensor


class ImagesInMemory:
    """Images of one size, decoded once: uint8 N,3,H,W; without `labels` (int64 N) every image is its own class."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images = images
        self.labels = torch.arange(len(images)) if labels is None else labels
        self.classes = int(self.labels.max()) + 1 if len(self.labels) else 0
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """Yield a Batch for each list of indices."""
        for indices in order:
            rows = torch.as_tensor(indices)
            yield Batch(self.images[rows], self.labels[rows])


class Files(NamedTuple):
    """Image files below `root` in a fixed order: names below it, and labels, of `classes` classes.

    Names are kept in one array of bytes: worker processes would copy a list of strings page by page.
    """

    root: str
    names: np.ndarray[Any, np.dtype[np.bytes_]]
    labels: Tensor
    classes: int

    def path(self, index: int) -> Path:
        """Return an image's path."""
        return Path(self.root, os.fsdecode(self.names[index]))

    def some(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> "Files":
        """Return some of the files, with their labels among all classes."""
        return Files(self.root, self.names[indices], self.labels[torch.as_tensor(indices)], self.classes)

    def fingerprint(self) -> str:
        """Compute the digest of the files' names and sizes; it ignores modification times."""
        sizes = np.array([_size(self.path(i)) for i in range(len(self.names))], dtype=np.int64)
        return hashlib.sha256(self.names.tobytes() + sizes.tobytes()).hexdigest()[:16]


def find_files(root: Path) -> Files:
    """Find the images below a folder of class folders, sorted by class folder, then by path.

    Labels: the index of the class folder among those that hold images; in a flat folder every image is its own class
    (exemplar learning, Dosovitskiy et al. 2014). Hidden files and folders are skipped.
    Raises VisaError if images lie both in class folders and beside them.
    """
    entries = sorted(f for f in root.iterdir() if f.name[0] != ".") if root.is_dir() else []
    folders = {f.name: number for number, f in enumerate(f for f in entries if f.is_dir())}
    loose = [f.name for f in entries if f.name not in folders and _is_image(f.name)]
    found = make_dataset(str(root), folders, is_valid_file=_is_image, allow_empty=True) if folders else []
    below = sorted((label, path.removeprefix(f"{root}/")) for path, label in found)
    below = [(label, name) for label, name in below if "/." not in f"/{name}"]
    if loose and below:
        first = list(folders)[below[0][0]]
        raise VisaError(
            f"{str(root)!r} holds {len(loose)} images beside class folders such as {first!r}: "
            "move them into folders of their class, or take the folders away."
        )
    names = np.array([os.fsencode(name) for name in loose or [name for _, name in below]], dtype=np.bytes_)
    classes, labels = np.unique([label for label, _ in below] or np.arange(len(loose)), return_inverse=True)
    return Files(str(root), names, torch.as_tensor(labels), len(classes))


class FolderImages(Dataset["Decoded"]):
    """Training images that lie on disk as `files`, decoded by worker processes to centre squares of `side` pixels.

    A corrupt image is printed and listed in `skipped` ('path: reason', once each); the next readable one in the order
    of `files` takes its place, the same one in all processes and workers. VisaError is raised when more than the share
    BUDGET of the images, and more than BUDGET_LEAST, are corrupt; each process counts those that it has read.
    `workers`: see `default_workers`; 0 decodes in this process.
    """

    def __init__(self, files: Files, side: int, workers: int | None = None) -> None:
        self.files, self.side = files, side
        self.workers = default_workers() if workers is None else workers
        self.classes = files.classes
        self.allowed = max(BUDGET_LEAST, int(len(files.names) * BUDGET))
        self.skipped: list[str] = []
        self._corrupt: set[int] = set()

    def __len__(self) -> int:
        return len(self.files.names)

    def batches(self, order: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """Yield a Batch for each list of indices; the workers start here, once, and last as long as `order`.

        Raises VisaError when too many images are corrupt.
        """
        loader: DataLoader[Any] = DataLoader(
            self,
            batch_sampler=order,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            prefetch_factor=1 if self.workers else None,  # batches of thousands of images fill the memory quickly
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else every call would draw from the global one
        )
        for decoded in loader:
            self._report(decoded)
            yield Batch(decoded.images, self.files.labels[decoded.taken])

    def readable(self) -> Tensor:
        """Decode all images in order, uint8 N,3,side,side; corrupt ones are reported and left out."""
        decoded = self.__getitems__(range(len(self)))
        self._report(decoded)
        return decoded.images[[i for i, taken in enumerate(decoded.taken) if i == taken]]

    def __getitems__(self, indices: Sequence[int]) -> "Decoded":
        """Read and decode images, in a worker process."""
        failures: list[tuple[int, str]] = []
        rows = [self._next_readable(int(index), failures) for index in indices]
        return Decoded([at for at, _ in rows], torch.stack([image for _, image in rows]), failures)

    def _next_readable(self, index: int, failures: list[tuple[int, str]]) -> tuple[int, Tensor]:
        """Return index and pixels of the first readable image from `index` on; -1 and zeros if there is none."""
        for at in (i % len(self) for i in range(index, index + min(len(self), self.allowed + 1))):
            try:
                return at, decode(self.files.path(at), self.side)
            except ValueError as error:
                failures.append((at, str(error)))
        return -1, torch.zeros((3, self.side, self.side), dtype=torch.uint8)

    def _report(self, decoded: "Decoded") -> None:
        for index, reason in decoded.failures:
            if index not in self._corrupt:
                self._corrupt.add(index)
                self.skipped.append(f"{self.files.path(index)}: {reason}")
                tqdm.write(f"skipped a corrupt image: {self.skipped[-1]}", file=sys.stderr)
        if len(self._corrupt) > self.allowed or -1 in decoded.taken:
            raise VisaError(
                f"{len(self.skipped)} of {len(self)} images cannot be decoded, the first {self.skipped[0]}: "
                f"fetch them again or delete them (up to {self.allowed} are skipped)."
            )


Images = ImagesInMemory | FolderImages
"""Training images: their number, `classes` of labels, batches in a given order, and 'path: reason' of corrupt ones."""


@dataclass(frozen=True)
class TrainingData:
    """Training images, held-out images (uint8 N,3,S,S), and the names under which results are stored.

    `scope`: the object, `all`, or the folder's name. `seen`: paths of all these images below the data set's root; none
    of them is a test image of any setup. `seen` is empty for a folder.
    """

    images: Images
    held_out: Tensor
    scope: str
    dataset: str
    synthetic: bool
    fingerprint: str
    seen: tuple[str, ...] = ()


def training_data(source: Source, object: str, folder: str, view_side: int) -> TrainingData:
    """Load the normal images of an object (or `all`), or find every image below `folder` where one is given.

    Only clean images are used (see `clean_normals`), so none is a test image. Some of them are held out. Images are an
    eighth larger than the views that are cut from them. Labels: for `all`, the object; for one object, every image is
    its own class.
    Raises VisaError as `folder_data`, and for too few clean images.
    """
    if folder:
        return folder_data(folder, view_side)
    whole, side = object == "all", (view_side * 9 // 8,) * 2
    objects = source.objects if whole else (object,)
    clean = [sample for name in objects for sample in clean_normals(source, name)]
    if len(clean) < 2 * HELD_OUT_LEAST:
        raise VisaError(
            f"{object} has {len(clean)} normal images that train in every setup, and {2 * HELD_OUT_LEAST} are needed: "
            "give more images, or the folder of good ones with --images (notebook 03: pretrain_root)."
        )
    chosen = held_out_of(len(clean))
    held_out, train = [clean[i] for i in chosen], [s for i, s in enumerate(clean) if i not in chosen]
    labels = torch.tensor([source.objects.index(s.object) for s in train]) if whole else None
    images = ImagesInMemory(load_images(source.root, train, side), labels)
    judged = load_images(source.root, held_out, side)
    seen = tuple(sample.image for sample in clean)
    return TrainingData(images, judged, object, source.name, source.synthetic, source.fingerprint(*objects), seen)


def folder_data(folder: str, view_side: int, dataset: str = "", workers: int | None = None) -> TrainingData:
    """Find every image below an ImageNet-style `folder`, called `dataset` or by the folder's name.

    Some are held out, evenly spaced in the sorted paths and so spread over the classes; corrupt ones are left out.
    `workers` decode the others (see `FolderImages`).
    Raises VisaError for a missing folder, a name that is taken (see `folder_scope`), images both in class folders and
    beside them, too few images, and too many corrupt ones.
    """
    scope, side = folder_scope(folder, dataset), view_side * 9 // 8
    files = find_files(Path(folder).expanduser().resolve())
    if (n := len(files.names)) < 2 * HELD_OUT_LEAST:
        raise VisaError(f"{n} images below pretrain_root {files.root!r}: give {2 * HELD_OUT_LEAST} or more.")
    chosen = np.array(held_out_of(n))
    held_out = FolderImages(files.some(chosen), side)
    train = FolderImages(files.some(np.setdiff1d(np.arange(n), chosen)), side, workers)
    images = held_out.readable()
    train.skipped += held_out.skipped
    return TrainingData(train, images, scope, scope, False, files.fingerprint())


def held_out_of(n: int) -> list[int]:
    """Choose the indices of the images that are held out of n, evenly spaced."""
    count = min(HELD_OUT_MOST, max(HELD_OUT_LEAST, n // 10))
    return [k * n // count for k in range(count)]


def decode(file: Path, side: int) -> Tensor:
    """Decode an image file's centre square to uint8 3,side,side RGB: upright, antialiased.

    Large JPEG files are decoded at 1/2, 1/4 or 1/8 of their size, never below `side`, which is several times as fast.
    Raises ValueError with the reason if the file is truncated, no image, or has more than 8 bits a channel.
    """
    try:
        with open_image(file) as image:
            scale = side / max(1, min(image.size))
            image.draft("RGB", (math.ceil(image.width * scale), math.ceil(image.height * scale)))
            upright = ImageOps.exif_transpose(image)
            upright.load()
            if upright.mode.startswith(("I", "F")):  # Pillow would silently clip these to 255
                raise ValueError(f"more than 8 bits a channel ({upright.mode})")
            square = ImageOps.fit(upright.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(square)).permute(2, 0, 1)
    except UnidentifiedImageError as error:
        raise ValueError("the file is empty" if _size(file) == 0 else "not an image") from error
    except UNREADABLE as error:
        raise ValueError((isinstance(error, OSError) and error.strerror) or str(error)) from error


def default_workers() -> int:
    """Return one worker for each core that this process may use, shared among this machine's processes; 16 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class Decoded(NamedTuple):
    """A batch as a worker returns it."""

    taken: list[int]  # each row's index, that of the substitute for a corrupt image; -1: none was readable
    images: Tensor  # uint8 N,3,side,side
    failures: list[tuple[int, str]]  # index and reason of each corrupt image met


def _as_it_is(decoded: Decoded) -> Decoded:
    return decoded


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMG_EXTENSIONS)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a broken link: reading it will raise an error
        return -1
