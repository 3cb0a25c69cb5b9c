"""Where training images come from: an object's normal images in memory, an ImageNet-style folder, or shards of one."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from visa.data.dataset import load_images
from visa.data.source import Source
from visa.data.splits import select
from visa.errors import VisaError
from visa.pretrain.input.files import Files, FolderFiles, Kept
from visa.pretrain.input.loader import BUDGET, CPU, Batch, EncodedImages
from visa.pretrain.input.shard_files import ShardFiles, is_sharded

HELD_OUT = 100  # images kept from training to judge what was learned


class Images(Protocol):
    """Training images: their number, and batches of them in a given order."""

    skipped: list[str]  # 'path: reason' of each corrupt image met so far

    @property
    def classes(self) -> int:
        """Number of classes of the labels."""
        ...

    def __len__(self) -> int: ...

    def batches(self, order: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """Yield a Batch for each list of indices."""
        ...

    def epoch(self, generator: Generator) -> Tensor:
        """A permutation of range(len(self)) that is quick to read."""
        ...


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

    def epoch(self, generator: Generator) -> Tensor:
        """A permutation of the indices, drawn from `generator`."""
        return torch.randperm(len(self), generator=generator)


class ImageFolder(EncodedImages):
    """The images below a folder as training images; see FolderFiles for labels, EncodedImages for the rest."""

    def __init__(self, root: Path, side: int, workers: int | None = None, **settings: Any) -> None:
        super().__init__(FolderFiles(root), side, workers, **settings)


def object_images(source: Source, name: str, side: int) -> tuple[Images, Tensor]:
    """Normal images of an object, or of `all`: those of 1cls training, and the held-out ones of 1cls test (uint8).

    Labels: of `all` the object, of one object every image its own.
    """
    normal = source.samples("1cls", object="" if name == "all" else name, label="normal")
    held_out = select(normal, split="test")
    if len(held_out) < 5:
        raise VisaError(f"{name} has {len(held_out)} normal test images: 5 are needed to judge what was learned.")
    spread = held_out[:: max(1, len(held_out) // HELD_OUT)][:HELD_OUT]
    train = select(normal, split="train")
    labels = torch.tensor([source.objects.index(s.object) for s in train]) if name == "all" else None
    return ImagesInMemory(load_images(source.root, train, (side, side)), labels), load_images(
        source.root, spread, (side, side)
    )


def folder_images(
    root: Path,
    side: int,
    workers: int | None = None,
    decoder: str = "cpu",
    device: torch.device = CPU,
    budget: float = BUDGET,
) -> tuple[EncodedImages, Tensor]:
    """Every image below an ImageNet-style folder, or in a folder of shards (`visa.pretrain.input.shards`).

    One in twenty is held out, 5 to HELD_OUT (uint8 N,3,side,side): spread evenly over the sorted paths, and so over
    the classes; corrupt ones are left out. `workers`, `decoder`, `device` and `budget`: see EncodedImages.
    Raises VisaError if the folder is absent, holds fewer than ten images, or too many corrupt ones.
    """
    files = _files(Path(root))
    if len(files) < 10:
        raise VisaError(f"{len(files)} images below pretrain_root {str(root)!r}: give a folder with ten or more.")
    count = min(HELD_OUT, max(5, len(files) // 20))
    chosen = torch.arange(count) * len(files) // count
    rest = torch.ones(len(files), dtype=torch.bool)
    rest[chosen] = False
    kept = Kept(files, rest.nonzero().flatten(), relabel=files.classes == len(files))
    train = EncodedImages(kept, side, workers, decoder, device, budget)
    held_out = EncodedImages(Kept(files, chosen), side, budget=budget)
    images = held_out.readable()
    train.skipped += held_out.skipped
    return train, images


def _files(root: Path) -> Files:
    return ShardFiles(root) if is_sharded(root) else FolderFiles(root)
