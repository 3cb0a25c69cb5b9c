"""Image files in a fixed order: those below an ImageNet-style folder, or some of any others."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from visa.errors import VisaError


class Files(Protocol):
    """Encoded images in a fixed order: those of a folder, or of shards."""

    labels: Tensor
    classes: int

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call an image when it is corrupt: its path."""
        ...

    def read(self, index: int) -> bytes:
        """The image file's bytes; raises OSError."""
        ...

    def epoch(self, generator: Generator) -> Tensor:
        """A permutation of the indices, in an order that is quick to read."""
        ...

    def fingerprint(self) -> str:
        """Digest of what the images are, blind to when their files were written."""
        ...


class FolderFiles:
    """The images below a folder of class folders, sorted by class folder, then by path.

    `labels`: the index of the class folder among those that hold images (`class_names`); in a flat folder every image
    is its own class (exemplar learning, Dosovitskiy et al. 2014). Names with a leading dot are no images.
    Names are kept in one array of bytes: worker processes would copy a list of strings page by page.
    Raises VisaError if images lie both in class folders and beside them.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        loose, folders = _listed(self.root)
        found = [(name, sorted(_below(f"{self.root}/{name}", name))) for name in sorted(folders)]
        classes = [(name, paths) for name, paths in found if paths]
        if loose and classes:
            raise VisaError(
                f"{str(root)!r} holds {len(loose)} images beside class folders such as {classes[0][0]!r}: "
                "move them into folders of their class, or take the folders away."
            )
        paths = sorted(loose) if loose else [path for _, paths in classes for path in paths]
        self.names = np.array([os.fsencode(path) for path, _ in paths], dtype=np.bytes_)
        self.file_sizes = np.array([size for _, size in paths], dtype=np.int64)
        self.flat = not classes
        self.class_names = [name for name, _ in classes]
        sizes = torch.tensor([len(paths) for _, paths in classes], dtype=torch.int64)
        self.labels = torch.arange(len(paths)) if self.flat else torch.arange(len(classes)).repeat_interleave(sizes)
        self.classes = len(paths) if self.flat else len(classes)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The image's path."""
        return f"{self.root}/{os.fsdecode(self.names[index])}"

    def read(self, index: int) -> bytes:
        """The image file's bytes."""
        with open(self.name(index), "rb", buffering=0) as stream:  # noqa: PTH123
            return stream.read()

    def epoch(self, generator: Generator) -> Tensor:
        """A permutation of the indices, drawn from `generator`."""
        return torch.randperm(len(self), generator=generator)

    def fingerprint(self) -> str:
        """Digest of the images' paths below the folder and of their sizes."""
        return hashlib.sha256(self.names.tobytes() + self.file_sizes.tobytes()).hexdigest()[:16]


class Kept:
    """Some of the files, in the order of `indices`; `relabel` numbers their classes anew, one for each."""

    def __init__(self, files: Files, indices: Tensor, relabel: bool = False) -> None:
        self.files, self.indices = files, indices
        self.labels = torch.arange(len(indices)) if relabel else files.labels[indices]
        self.classes = len(indices) if relabel else files.classes

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """The image's path."""
        return self.files.name(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        """The image file's bytes."""
        return self.files.read(int(self.indices[index]))

    def epoch(self, generator: Generator) -> Tensor:
        """The files' own permutation without those left out."""
        place = torch.full((len(self.files),), -1)
        place[self.indices] = torch.arange(len(self.indices))
        order = place[self.files.epoch(generator)]
        return order[order >= 0]

    def fingerprint(self) -> str:
        """Digest of all the files, kept or not."""
        return self.files.fingerprint()


def _listed(folder: str) -> tuple[list[tuple[str, int]], list[str]]:
    """Names and sizes of the images, and names of the folders, in a folder; none if it is absent."""
    images, folders = [], []
    if not Path(folder).is_dir():
        return [], []
    with os.scandir(folder) as entries:  # asks the file system once for each folder, not for each file
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(IMG_EXTENSIONS):
                images.append((entry.name, _size(entry)))
            elif entry.is_dir():
                folders.append(entry.name)
    return images, folders


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nothing: reading it will say so
        return -1


def _below(folder: str, name: str) -> Iterator[tuple[str, int]]:
    """The images at any depth below a folder: paths that begin with `name`, and sizes."""
    images, folders = _listed(folder)
    yield from ((f"{name}/{image}", size) for image, size in images)
    for inner in folders:
        yield from _below(f"{folder}/{inner}", f"{name}/{inner}")
