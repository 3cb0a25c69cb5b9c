"""The images in a folder of WebDataset shards: read by their offsets, in an order that suits slow disks."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from visa.errors import VisaError
from visa.paths import written_whole
from visa.provenance import digest

PLAN, INDEX = "shards.json", "index.npz"
WINDOW = 8  # shards whose images are shuffled together
OPEN = 64  # shards held open
READ_AHEAD = 4  # images read from a shard after which the system is asked to fetch all of it


@dataclass(frozen=True)
class Plan:
    """What a folder of shards is made of: `source` is a digest of the image files' names and sizes."""

    images: int
    classes: list[str]
    side: int
    quality: int
    per_shard: int
    source: str

    @property
    def shards(self) -> list[str]:
        """The shards' file names."""
        return [f"shard-{i:06d}.tar" for i in range(-(-self.images // self.per_shard))]


def is_sharded(folder: Path) -> bool:
    """Whether `write_shards` made this folder."""
    return (Path(folder) / PLAN).is_file()


class ShardFiles:
    """The images in a folder of shards, sorted as in the folder they come from, read by their offsets.

    Raises VisaError if shards are missing or the folder holds none.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        plan = read_plan(self.out)
        missing = [shard for shard in plan.shards if not (self.out / shard).is_file()]
        if missing:
            raise VisaError(
                f"{len(missing)} of {len(plan.shards)} shards are missing in {self.out}, the first {missing[0]}: "
                "write_shards goes on where it stopped."
            )
        self.plan, self.shards = plan, plan.shards
        self._number, label, self._shard, self._offset, self._length = index(self.out, plan)
        self.labels = torch.from_numpy(label) if plan.classes else torch.arange(len(label))
        self.classes = len(plan.classes) or len(label)
        self._open: dict[int, list[int]] = {}  # shard -> file descriptor, images read from it

    def __len__(self) -> int:
        return len(self._number)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def __del__(self) -> None:
        for descriptor, _ in self.__dict__.get("_open", {}).values():
            os.close(descriptor)

    def name(self, index: int) -> str:
        """The shard's path and the member in it."""
        return f"{self.out / self.shards[self._shard[index]]}/{self._number[index]:08d}.jpg"

    def read(self, index: int) -> bytes:
        """The image file's bytes."""
        return os.pread(self._descriptor(int(self._shard[index])), int(self._length[index]), int(self._offset[index]))

    def epoch(self, generator: Generator) -> Tensor:
        """A permutation of the indices: shards shuffled, then the images of every `WINDOW` shards among themselves.

        A disk then reads `WINDOW` shards at a time, each but once.
        """
        by_shard = torch.from_numpy(np.argsort(self._shard, kind="stable"))
        groups = torch.split(by_shard, np.bincount(self._shard, minlength=len(self.shards)).tolist())
        shards = torch.randperm(len(groups), generator=generator).tolist()
        windows = [torch.cat([groups[s] for s in shards[i : i + WINDOW]]) for i in range(0, len(shards), WINDOW)]
        return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for rows in windows])

    def fingerprint(self) -> str:
        """Digest of what the shards were made of, and of the images in them."""
        return digest([asdict(self.plan), self._number.tolist()])

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= OPEN:
                os.close(self._open.pop(next(iter(self._open)))[0])
            self._open[shard] = [os.open(self.out / self.shards[shard], os.O_RDONLY), 0]
        entry = self._open[shard]
        entry[1] += 1
        if entry[1] == READ_AHEAD and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(entry[0], 0, 0, os.POSIX_FADV_WILLNEED)
        return entry[0]


def read_plan(out: Path) -> Plan:
    """What the folder was to hold; raises VisaError if that cannot be read."""
    try:
        return Plan(**json.loads((out / PLAN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise VisaError(f"{out / PLAN} cannot be read ({error}): write the shards again, into a new folder.") from error


def members(shard: Path) -> Iterator[tuple[int, int, int, int]]:
    """Number, label, offset and length of each image in a shard; raises VisaError if it is broken."""
    try:
        with tarfile.open(shard, "r:") as tar:
            entries = iter(tar)
            for image, label in zip(entries, entries, strict=True):
                text = tar.extractfile(label)
                assert text is not None
                yield int(image.name[:8]), int(text.read()), image.offset_data, image.size
    except (OSError, ValueError, tarfile.TarError) as error:
        raise VisaError(f"{shard} is broken ({error}): delete it and write the shards again.") from error


def index(out: Path, plan: Plan) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Number, label, shard, offset and length of each image, sorted by number; kept beside the shards."""
    sizes = np.array([(out / shard).stat().st_size for shard in plan.shards])
    if (out / INDEX).is_file():
        with np.load(out / INDEX, allow_pickle=False) as stored:
            if np.array_equal(stored["sizes"], sizes):
                return list(stored["rows"])
    rows = [(n, label, i, *place) for i, s in enumerate(plan.shards) for n, label, *place in members(out / s)]
    table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 5).T
    with written_whole(out / INDEX) as partial, partial.open("wb") as stream:
        np.savez(stream, rows=table, sizes=sizes)
    return list(table)
