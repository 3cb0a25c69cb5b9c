"""Batches of encoded images: read and decoded by worker processes, corrupt ones replaced and reported."""

import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from visa.errors import VisaError, check_choice
from visa.pretrain.input.decode import decode, decode_on, for_device
from visa.pretrain.input.files import Files

DECODERS = ("cpu", "device", "auto")
BUDGET = 0.001  # share of images that may be corrupt
BUDGET_LEAST = 10  # that many may be corrupt however few the images are
TRIAL = 48  # images that "auto" decodes both ways
AHEAD = 2**30  # bytes of images that the workers together may hold ready
CPU = torch.device("cpu")


class Batch(NamedTuple):
    """Images uint8 N,3,H,W (from workers in channels_last) and their labels int64 N."""

    images: Tensor
    labels: Tensor


class EncodedImages:
    """Training images that lie on disk as `files`, decoded to their centre square of `side` pixels.

    A corrupt image is printed and listed in `skipped` ('path: reason', once each); the next readable one in the order
    of `files` takes its place, whatever process or worker meets it. VisaError follows when more than `budget` of the
    images (but at least `BUDGET_LEAST`) are corrupt, counted by each process over what it has met.
    `decoder`: "cpu" decodes in the workers; "device" has them read and decodes on `device` (JPEG files; the rest by
    the workers); "auto" times both there at the first batch, "cpu" without a GPU. Their pixels differ by a little, so
    name one where a run must repeat exactly.
    """

    def __init__(
        self,
        files: Files,
        side: int,
        workers: int | None = None,
        decoder: str = "cpu",
        device: torch.device = CPU,
        budget: float = BUDGET,
    ) -> None:
        self.files, self.side, self.device = files, side, device
        self.workers = default_workers() if workers is None else workers
        check_choice("decoder", decoder, DECODERS)
        self.decoder = decoder
        self.allowed = corrupt_allowed(len(files), budget)
        self.skipped: list[str] = []
        self._corrupt: set[int] = set()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> int:
        """Number of classes of the labels."""
        return self.files.classes

    def epoch(self, generator: Generator) -> Tensor:
        """A permutation of the indices, drawn from `generator`; shard by shard where the files lie in shards."""
        return self.files.epoch(generator)

    def batches(self, order: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """Yield a Batch for each list of indices; the workers start here, once, and last as long as `order`.

        Raises VisaError when too many images are corrupt.
        """
        if self.decoder == "auto":
            self.decoder = self._faster()
        lists = iter(order)
        first: Any = next(lists, None)
        loader: DataLoader[Any] = DataLoader(
            _Reader(self.files, self.side, self.decoder == "device", self.allowed),
            batch_sampler=itertools.chain([] if first is None else [first], lists),  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            prefetch_factor=prefetched(self.workers, 0 if first is None else len(first), self.side),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else every call would draw from the global one
        )
        for part in loader:
            self._report(part)
            images = self._decoded(part) if part.lengths else part.pixels
            yield Batch(images, self.files.labels[torch.as_tensor(part.taken)])

    def readable(self) -> Tensor:
        """All images in order but the corrupt ones, which are reported: uint8 N,3,side,side."""
        part = _Reader(self.files, self.side, False, self.allowed).__getitems__(range(len(self)))
        self._report(part)
        return part.pixels[[i for i, taken in enumerate(part.taken) if i == taken]]

    def _report(self, part: "_Part") -> None:
        for index, reason in part.failures:
            if index not in self._corrupt:
                self._corrupt.add(index)
                self.skipped.append(f"{self.files.name(index)}: {reason}")
                tqdm.write(f"skipped a corrupt image: {self.skipped[-1]}", file=sys.stderr)
        if len(self._corrupt) > self.allowed or -1 in part.taken:
            raise too_many_corrupt(self.skipped, len(self), self.allowed)

    def _decoded(self, part: "_Part") -> Tensor:
        """The batch on the device, its JPEG files decoded there."""
        images = torch.empty((len(part.taken), 3, self.side, self.side), dtype=torch.uint8, device=self.device)
        encoded = [row for row, length in enumerate(part.lengths) if length]
        files = [f for f in torch.split(part.encoded, part.lengths) if len(f)]
        ready = [row for row, length in enumerate(part.lengths) if not length]
        images[ready] = part.pixels.to(self.device, non_blocking=True)
        for row, image in zip(encoded, decode_on(self.device, files, self.side), strict=True):
            images[row] = self._on_cpu(part, row) if image is None else image
        return images

    def _on_cpu(self, part: "_Part", row: int) -> Tensor:
        again = _Reader(self.files, self.side, False, self.allowed).__getitems__([part.taken[row]])
        self._report(again)
        part.taken[row] = again.taken[0]
        return again.pixels[0].to(self.device)

    def _faster(self) -> str:
        """The decoder that takes less time for the first images; the workers' share their work."""
        if self.device.type != "cuda":
            return "cpu"
        part = _Reader(self.files, self.side, True, self.allowed).__getitems__(range(min(len(self), TRIAL)))
        if not part.lengths:
            return "cpu"
        self._decoded(part)  # the first time sets the device up
        torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        self._decoded(part)
        torch.cuda.synchronize(self.device)
        on_device, start = time.perf_counter() - start, time.perf_counter()
        for file in torch.split(part.encoded, part.lengths):
            if len(file):
                decode(file.numpy().tobytes(), self.side)
        in_workers = (time.perf_counter() - start) / max(1, self.workers)
        return "device" if on_device < in_workers else "cpu"


class _Part(NamedTuple):
    """A batch as a worker hands it over."""

    taken: list[int]  # the index in each row, a corrupt image's replaced; -1: found none readable
    pixels: Tensor  # uint8 n,3,side,side: the rows that are decoded
    encoded: Tensor  # uint8: the other rows' files, one after the other
    lengths: list[int]  # of each row's file, 0 for a decoded row; empty if all rows are decoded
    failures: list[tuple[int, str]]


class _Reader(Dataset[_Part]):
    """Reads a batch in a worker process, and decodes what is not left to the device."""

    def __init__(self, files: Files, side: int, leave: bool, allowed: int) -> None:
        self.files, self.side, self.leave, self.allowed = files, side, leave, allowed

    def __getitems__(self, indices: Sequence[int]) -> _Part:
        failures: list[tuple[int, str]] = []
        rows = [self._row(int(index), failures) for index in indices]
        pixels = [image.permute(1, 2, 0) for _, image, _ in rows if image is not None]  # as decoders lay them out
        stacked = torch.stack(pixels) if pixels else torch.empty((0, self.side, self.side, 3), dtype=torch.uint8)
        joined = torch.frombuffer(bytearray(b"".join(f for _, _, f in rows)) or bytearray(1), dtype=torch.uint8)
        lengths = [len(f) for _, _, f in rows]
        whole = sum(lengths)
        return _Part(
            [i for i, _, _ in rows], stacked.permute(0, 3, 1, 2), joined[:whole], lengths if whole else [], failures
        )

    def _row(self, index: int, failures: list[tuple[int, str]]) -> tuple[int, Tensor | None, bytes]:
        """The first readable image from `index` on: its index, and its pixels or its file."""
        for step in range(min(len(self.files), self.allowed + 1)):
            at = (index + step) % len(self.files)
            try:
                data = self.files.read(at)
                if self.leave and for_device(data):
                    return at, None, data
                return at, decode(data, self.side), b""
            except (OSError, ValueError) as error:
                failures.append((at, error.strerror or str(error) if isinstance(error, OSError) else str(error)))
        return -1, torch.zeros((3, self.side, self.side), dtype=torch.uint8), b""


def corrupt_allowed(images: int, budget: float) -> int:
    """How many of `images` may be corrupt: the share `budget`, but at least `BUDGET_LEAST`."""
    return max(BUDGET_LEAST, int(images * budget))


def too_many_corrupt(skipped: Sequence[str], images: int, allowed: int) -> VisaError:
    """The error for `skipped` corrupt ones among so many images."""
    return VisaError(
        f"{len(skipped)} of {images} images cannot be decoded, the first {skipped[0]}: "
        f"fetch them again or delete them (up to {allowed} are skipped)."
    )


def prefetched(workers: int, batch: int, side: int) -> int | None:
    """Batches that each worker makes ahead: 2, or 1 where all of them would be more than `AHEAD` bytes."""
    if not workers:
        return None
    return 2 if 2 * workers * batch * 3 * side * side <= AHEAD else 1


def default_workers() -> int:
    """One worker for each core that this process may use, shared among the processes of this machine; 16 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _as_it_is(part: _Part) -> _Part:
    return part
