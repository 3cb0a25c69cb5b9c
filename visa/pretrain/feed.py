"""Feeding a training: each process's part of every batch, in order, on its device."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Generator

from visa.pretrain.input.images import Images
from visa.pretrain.input.loader import Batch
from visa.pretrain.settings import PretrainSettings
from visa.provenance import digest


@dataclass(frozen=True)
class Order:
    """This process's part of each global batch from step `first` on; an epoch's incomplete last batch is left out."""

    images: Images
    settings: PretrainSettings
    first: int
    part: int
    parts: int

    def __iter__(self) -> Iterator[list[int]]:
        size = self.settings.batch_size
        per_epoch, own = len(self.images) // size, size // self.parts
        for epoch in range(self.first // per_epoch, self.settings.epochs):
            order = self.images.epoch(seeded(self.settings.seed, "order", epoch)).tolist()
            for batch in range(max(0, self.first - epoch * per_epoch), per_epoch):
                start = batch * size + self.part * own
                yield order[start : start + own]


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on the device; on CUDA a second stream copies one while the steps before it still run."""
    if device.type != "cuda":
        yield from (Batch(*(t.to(device) for t in batch)) for batch in batches)
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(copies):
            pinned = [t if t.is_cuda else t.pin_memory() for t in batch]
            copied = Batch(*(t.to(device, non_blocking=True) for t in pinned))
        torch.cuda.current_stream(device).wait_stream(copies)
        for t in copied:
            t.record_stream(torch.cuda.current_stream(device))
        yield copied


def all_skipped(images: Images, fabric: Fabric) -> list[str]:
    """Corrupt images that any process met."""
    if fabric.world_size == 1:
        return sorted(set(images.skipped))
    parts: list[list[str]] = [[] for _ in range(fabric.world_size)]
    dist.all_gather_object(parts, images.skipped)
    return sorted({path for part in parts for path in part})


def seeded(seed: int, use: str, count: int, device: torch.device | str = "cpu") -> Generator:
    """A generator that depends on nothing but its arguments, so that a resumed run draws the same."""
    return Generator(device).manual_seed(int(digest([seed, use, count])[:15], 16))
