"""A folder of images as WebDataset shards, small and quick to read from slow disks: written once, resumable."""

import io
import itertools
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import to_pil_image
from tqdm import tqdm

from visa.data.images import UNREADABLE, is_plain_jpeg, open_image
from visa.errors import VisaError
from visa.paths import locked, written_whole
from visa.pretrain.input.decode import decode_exact, reason
from visa.pretrain.input.files import FolderFiles
from visa.pretrain.input.loader import BUDGET, EncodedImages, corrupt_allowed, default_workers, too_many_corrupt
from visa.pretrain.input.shard_files import PLAN, Plan, ShardFiles, index, is_sharded, members, read_plan

CHUNK = 16  # images that a worker hands over at once


def write_shards(
    root: Path,
    out: Path,
    side: int = 256,
    quality: int = 90,
    per_shard: int = 4096,
    workers: int | None = None,
    progress: bool = True,
    budget: float = BUDGET,
) -> list[str]:
    """Write the images below `root` (see FolderFiles) as WebDataset tars into `out`; returns the corrupt ones' paths.

    A member's key is the image's place among the sorted paths: `00000001.jpg` with its label in `00000001.cls`; the
    class names are in `shards.json`. Images go to the shards in a fixed random order, so that every shard holds all
    sorts of classes. Short side `side` (bilinear, antialiased), JPEG of `quality`; an upright JPEG file that is no
    larger is kept as it is. Interrupted, the same call goes on after the last whole shard.
    Raises VisaError if another process writes into `out`, it holds something else or shards of other settings or
    images, `root` holds no images, or more than `budget` of them (but at least ten) are corrupt.
    """
    out, files = Path(out), FolderFiles(root)
    if not len(files):
        raise VisaError(f"no images below {str(root)!r}: give the folder that holds the class folders.")
    plan = Plan(len(files), files.class_names, side, quality, per_shard, files.fingerprint())
    _claim(out, plan)
    with locked(out):
        return _write(files, out, plan, workers, progress, budget)


def _write(files: FolderFiles, out: Path, plan: Plan, workers: int | None, progress: bool, budget: float) -> list[str]:
    todo, corrupt = _left(out, plan)
    chunks = [numbers[i : i + CHUNK] for numbers in todo.values() for i in range(0, len(numbers), CHUNK)]
    encoded = iter(_encoded(files, plan, chunks, default_workers() if workers is None else workers))
    allowed, skipped = corrupt_allowed(len(files), budget), [files.name(number) for number in corrupt]
    done = len(files) - sum(map(len, todo.values()))
    with tqdm(desc="shards", unit="image", total=len(files), initial=done, disable=not progress) as bar:
        for shard, numbers in todo.items():
            with written_whole(out / shard) as partial, tarfile.open(partial, "w") as tar:
                for number, image in itertools.islice(encoded, len(numbers)):
                    if isinstance(image, bytes):
                        _add(tar, f"{number:08d}.jpg", image)
                        _add(tar, f"{number:08d}.cls", str(int(files.labels[number])).encode())
                    else:
                        skipped.append(f"{files.name(number)}: {image}")
                        tqdm.write(f"skipped a corrupt image: {skipped[-1]}", file=sys.stderr)
                    bar.update()
                    if len(skipped) > allowed:
                        raise too_many_corrupt(skipped, len(files), allowed)
    index(out, plan)
    return skipped


class ShardedImages(EncodedImages):
    """The images of a folder of shards as training images; see ShardFiles and EncodedImages."""

    def __init__(self, out: Path, side: int, workers: int | None = None, **settings: Any) -> None:
        super().__init__(ShardFiles(out), side, workers, **settings)


class _Encoder(Dataset[list[tuple[int, bytes | str]]]):
    """Encodes a chunk of images in a worker process: the JPEG file of each, or why there is none."""

    def __init__(self, files: FolderFiles, plan: Plan) -> None:
        self.files, self.plan = files, plan

    def __getitems__(self, numbers: Sequence[int]) -> list[tuple[int, bytes | str]]:
        return [(number, self._encode(number)) for number in numbers]

    def _encode(self, number: int) -> bytes | str:
        data = b""
        try:
            data = self.files.read(number)
            return _smaller(data, self.plan.side, self.plan.quality)
        except UNREADABLE as error:
            return reason(data, error)


def _encoded(
    files: FolderFiles, plan: Plan, chunks: list[list[int]], workers: int
) -> Iterator[tuple[int, bytes | str]]:
    loader: DataLoader[Any] = DataLoader(
        _Encoder(files, plan), batch_sampler=chunks, num_workers=workers, collate_fn=list, generator=torch.Generator()
    )
    return itertools.chain.from_iterable(loader)


def _smaller(data: bytes, side: int, quality: int) -> bytes:
    with open_image(io.BytesIO(data)) as image:
        if is_plain_jpeg(image) and min(image.size) <= side:
            image.load()  # fails if it is broken
            return data
    whole: Image.Image = to_pil_image(decode_exact(data))
    scale = min(1.0, side / min(whole.size))
    size = (round(whole.width * scale), round(whole.height * scale))
    stream = io.BytesIO()
    whole.resize(size, Image.Resampling.BILINEAR).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _claim(out: Path, plan: Plan) -> None:
    """Make `out` the folder of this plan, or check that it is."""
    if is_sharded(out):
        theirs = read_plan(out)
        other = [key for key, value in asdict(plan).items() if value != getattr(theirs, key)]
        if other:
            what = "other images" if "source" in other else f"another {other[0]} ({getattr(theirs, other[0])})"
            raise VisaError(f"{out} holds shards of {what}: give another folder, or delete that one.")
        return
    if out.exists() and (not out.is_dir() or any(not f.name.startswith(".") for f in out.iterdir())):
        raise VisaError(f"{out} is no folder of shards and not empty: give a new folder to write them to.")
    with written_whole(out / PLAN) as partial:
        partial.write_text(json.dumps(asdict(plan), indent=1) + "\n", encoding="utf-8")


def _left(out: Path, plan: Plan) -> tuple[dict[str, list[int]], list[int]]:
    """The numbers of the images of each shard that is still to write, and those that the others were to hold."""
    order = torch.randperm(plan.images, generator=torch.Generator().manual_seed(0)).tolist()
    todo, corrupt = {}, []
    for i, shard in enumerate(plan.shards):
        numbers = order[i * plan.per_shard : (i + 1) * plan.per_shard]
        if (out / shard).is_file():
            corrupt += sorted(set(numbers) - {number for number, *_ in members(out / shard)})
        else:
            todo[shard] = numbers
    return todo, corrupt


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
