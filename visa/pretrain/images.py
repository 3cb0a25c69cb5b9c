"""Where training images come from: an object's normal images in memory, or an ImageNet-style folder of classes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as tv

from visa.data.dataset import load_images, read_image
from visa.data.source import Source
from visa.data.splits import Sample, read_split, select, split_file
from visa.errors import VisaError

HELD_OUT = 100  # images kept from training to judge what was learned


class Images(Protocol):
    """Training images: their number, and batches of them in a given order."""

    def __len__(self) -> int: ...

    def batches(self, order: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """Yield uint8 N,3,H,W for each list of indices."""
        ...


class ImagesInMemory:
    """Images of one size, decoded once: uint8 N,3,H,W."""

    def __init__(self, root: Path, samples: Sequence[Sample], side: int) -> None:
        self.images = load_images(root, samples, (side, side))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """Yield uint8 N,3,H,W for each list of indices."""
        for indices in order:
            yield self.images[torch.as_tensor(indices)]


class ImageFolder(Dataset[Tensor]):
    """Image files, decoded by worker processes: short side `side`, cropped to the middle square."""

    def __init__(self, paths: Sequence[Path], side: int, workers: int = 2) -> None:
        self.paths, self.side, self.workers = paths, side, workers

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = tv.resize(read_image(self.paths[index]), [self.side], antialias=True)
        square: Tensor = tv.center_crop(image, [self.side])
        return square

    def batches(self, order: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """Yield uint8 N,3,side,side for each list of indices."""
        yield from DataLoader(self, batch_sampler=order, num_workers=self.workers)  # type: ignore[arg-type]


def object_images(source: Source, name: str, side: int) -> tuple[Images, Tensor]:
    """Normal images of an object, or of `all`: those of 1cls training, and the held-out ones of 1cls test (uint8)."""
    samples = [s for s in read_split(split_file(source.root, "1cls")) if s.object in source.objects]
    normal = select(samples if name == "all" else select(samples, object=name), label="normal")
    held_out = select(normal, split="test")
    if len(held_out) < 5:
        raise VisaError(f"{name} has {len(held_out)} normal test images: 5 are needed to judge what was learned.")
    spread = held_out[:: max(1, len(held_out) // HELD_OUT)][:HELD_OUT]
    train = ImagesInMemory(source.root, select(normal, split="train"), side)
    return train, load_images(source.root, spread, (side, side))


def folder_images(root: Path, side: int) -> tuple[Images, Tensor]:
    """Every image below an ImageNet-style folder; one in twenty is held out, 5 to HELD_OUT (uint8 N,3,side,side).

    The held-out ones are spread evenly over the sorted paths, and so over the classes.
    Raises VisaError if the folder is absent or holds fewer than ten images.
    """
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
    if len(paths) < 10:
        raise VisaError(f"{len(paths)} images below pretrain_root {str(root)!r}: give a folder with ten or more.")
    count = min(HELD_OUT, max(5, len(paths) // 20))
    held_out = ImageFolder([paths[i * len(paths) // count] for i in range(count)], side)
    kept = set(held_out.paths)
    return ImageFolder([p for p in paths if p not in kept], side), torch.stack(
        [held_out[i] for i in range(len(held_out))]
    )
