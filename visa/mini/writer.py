"""Write mini-VisA in VisA's exact layout: numbers of images, file names, splits, and the files themselves."""

import csv
import json
import multiprocessing
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import PIL.Image
from filelock import FileLock
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from visa.mini.scene import KINDS, MODULES, VISA_COUNTS, check_known, classes_of, render

DEFAULT_OBJECTS = ("pcb1", "capsules", "cashew", "fryum")
INFO = "dataset.json"
NOTE = "mini-VisA: a synthetic picture, rendered by a program, not a photograph"

VERSION = 4  # of the generator: raise it whenever pixels, names or splits change
TRAINING_SHARES = {"1cls": 0.9, "2cls_highshot": 0.6, "2cls_fewshot": 0.2}  # of each label's images, as in VisA
# Shares of normal images if numbers are given: more test images, and more training images common to all setups.
SMALL_SHARES = {"1cls": 2 / 3, "2cls_highshot": 0.6, "2cls_fewshot": 0.5}
FEW_SHOT_LEAST = 10  # images of each label for few-shot training, so that ten shots can be drawn


@dataclass(frozen=True)
class Settings:
    """The settings of a mini-VisA besides its objects; see `write_mini_visa`."""

    normal: int = 90
    anomaly: int = 30
    scale: float = 0.0
    size: int = 256
    seed: int = 0
    difficulty: float = 1.0

    def check(self, objects: Sequence[str]) -> None:
        """Raise ValueError for an unknown object, or a setting that leaves a split empty."""
        for name in objects:
            check_known("object of mini-VisA", name, MODULES)
        if not 0 <= self.scale <= 1 or (self.scale and any(name not in VISA_COUNTS for name in objects)):
            raise ValueError(f"scale {self.scale}: it is a share of VisA's own numbers, up to 1, for VisA's objects.")
        if not objects or self.seed < 0 or any(self.counts(o)[0] < 3 or self.counts(o)[1] < 2 for o in objects):
            raise ValueError("mini-VisA needs an object, 3 normal and 2 anomalous images, and a seed from 0 on.")
        if self.size < 64 or self.difficulty <= 0:
            raise ValueError("mini-VisA needs a size of at least 64 pixels and a difficulty above 0.")

    def info(self) -> dict[str, Any]:
        """Return what `dataset.json` says."""
        return {"name": "mini-VisA", "synthetic": True, "generator_version": VERSION, **asdict(self)}

    def counts(self, name: str) -> tuple[int, int]:
        """Return how many normal and anomalous images an object has."""
        if not self.scale:
            return self.normal, self.anomaly
        normal, anomaly = VISA_COUNTS[name]
        return round(self.scale * normal), round(self.scale * anomaly)

    def training_counts(self, split_type: str, name: str) -> tuple[int, int]:
        """Return how many of an object's normal and anomalous images are for training; the others are for test.

        The shares are VisA's, or SMALL_SHARES where numbers of images are given; few-shot training has at least ten.
        """
        shares = (TRAINING_SHARES if self.scale else SMALL_SHARES)[split_type], TRAINING_SHARES[split_type]
        least = FEW_SHOT_LEAST if split_type == "2cls_fewshot" else 0
        counts = zip(shares, self.counts(name), strict=True)
        normal, anomaly = (max(round(share * n), min(least, n // 2)) for share, n in counts)
        return normal, 0 if split_type == "1cls" else anomaly

    def files(self, name: str, kind: str, index: int) -> tuple[str, str]:
        """Return the paths in the root of an image and of its mask, "" for a normal image."""
        number = f"{index:0{3 if max(self.counts(name)) < 1000 else 4}d}"  # as in VisA
        mask = f"{name}/Data/Masks/Anomaly/{number}.png" if kind == "Anomaly" else ""
        return f"{name}/Data/Images/{kind}/{number}.JPG", mask


def write_mini_visa(
    root: Path,
    objects: Sequence[str] = DEFAULT_OBJECTS,
    normal: int = 90,
    anomaly: int = 30,
    size: int = 256,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
    difficulty: float = 1.0,
    scale: float = 0.0,
) -> Path:
    """Render mini-VisA into the folder `root` and return it; one that has the same settings is kept.

    Every object gets `normal` and `anomaly` images of `size` x `size` pixels, or with a `scale` in (0, 1] that share
    of VisA's own numbers and splits. Pixels and splits depend on `seed` and the other settings, not on `workers`
    (processes; None: one for each core). A greater `difficulty` makes subtler defects.

    If `root` holds a mini-VisA of the same settings, missing objects are added; one of other settings is replaced. Each
    object appears under its name only when it is complete, and two processes may write the same root at the same time.

    Raises ValueError for an unknown object, for counts that leave a split empty, or where `root` holds something else.
    """
    root, names = Path(root), tuple(dict.fromkeys(objects))
    settings = Settings(normal, anomaly, float(scale), size, seed, float(difficulty))
    settings.check(names)
    if set(names) <= set(present(root, settings)):
        return root
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that imports the caller's script
        raise ValueError('put the call under `if __name__ == "__main__":`, or say workers=1; rendering in one process.')
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.parent / f".{root.name}.lock"):
        for abandoned in root.parent.glob(f".{root.name}-*.new"):  # of a killed process: the lock is held here
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(
            prefix=f".{root.name}-", suffix=".new", dir=root.parent, ignore_cleanup_errors=True
        ) as scratch:
            _add(root, settings, names, Path(scratch), workers, progress)
    return root


def present(root: Path, settings: Settings | None = None) -> list[str]:
    """List the objects of a mini-VisA of these settings (None: defaults); ValueError if `root` holds other files."""
    try:
        info = json.loads((root / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        info = None
    if isinstance(info, dict) and info.get("name") == "mini-VisA":
        splits = root / "split_csv" / "1cls.csv"  # names the objects, in its order
        if info != (settings or Settings()).info() or not splits.is_file():
            return []
        with splits.open(newline="", encoding="utf-8") as stream:
            return list(dict.fromkeys(row["object"] for row in csv.DictReader(stream)))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root} exists and is not a mini-VisA: choose a folder that does not exist yet.")
    return []


def _add(
    root: Path, settings: Settings, names: Sequence[str], scratch: Path, workers: int | None, progress: bool
) -> None:
    """Render the objects that are missing in `scratch`, then move them to their place."""
    there = present(root, settings)
    missing = [name for name in names if name not in there]
    if not missing:
        return
    new = scratch / "root"
    _write_images(new, settings, missing, workers, progress)
    if there:
        for name in missing:
            if (root / name).exists():  # it was moved here, and then the process was killed
                (root / name).replace(scratch / name)
            (new / name).replace(root / name)
        write_splits(root, settings, [name for name in MODULES if name in (*there, *missing)])
        return
    write_splits(new, settings, [name for name in MODULES if name in missing])
    (new / INFO).write_text(json.dumps(settings.info(), indent=2) + "\n", encoding="utf-8")
    if root.exists():
        root.replace(scratch / "old")  # of other settings: it goes with the temporary folder
    new.replace(root)


def _write_images(root: Path, settings: Settings, names: Sequence[str], workers: int | None, progress: bool) -> None:
    for name in names:
        for folder in (*(f"Images/{kind}" for kind in KINDS), "Masks/Anomaly"):
            (root / name / "Data" / folder).mkdir(parents=True)
        write_annotations(root, settings, name)
    jobs = [
        (root, settings, name, kind, index)
        for name in names
        for kind, count in zip(KINDS, settings.counts(name), strict=True)
        for index in range(count)
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores if workers is None else workers, len(jobs))
    few = workers is None and len(jobs) < 60  # starting a process takes as long as some twenty images
    follow = partial(tqdm, desc="mini-VisA", total=len(jobs), unit="image", disable=not progress)
    if count > 1 and not few and not multiprocessing.current_process().daemon:
        spawn = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(count, spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
                deque(follow(pool.map(_write_image, jobs, chunksize=8)), maxlen=0)
            return
        except BrokenProcessPool:  # a script without a main guard cannot start any: go on here
            pass
    deque(follow(map(_write_image, jobs)), maxlen=0)


def _write_image(job: tuple[Path, Settings, str, str, int]) -> None:
    root, settings, name, kind, index = job
    image, mask = render(name, kind, index, settings.seed, settings.size, settings.difficulty)
    picture = PIL.Image.fromarray(image)
    exif = picture.getexif()
    exif[0x010E] = NOTE  # ImageDescription
    file, mask_file = settings.files(name, kind, index)
    picture.save(root / file, "JPEG", quality=92, exif=exif, comment=NOTE.encode())
    if kind == "Anomaly":
        text = PngInfo()
        text.add_text("Description", NOTE)
        PIL.Image.fromarray(mask).save(root / mask_file, "PNG", pnginfo=text)


def write_annotations(root: Path, settings: Settings, name: str) -> None:
    """Write an object's image_anno.csv, which names each image's defects."""
    normal, anomaly = settings.counts(name)
    rows = [(settings.files(name, "Normal", i)[0], "normal", "") for i in range(normal)]
    for i in range(anomaly):
        image, mask = settings.files(name, "Anomaly", i)
        rows.append((image, ",".join(classes_of(name, i, settings.seed)), mask))
    _write_csv(root / name / "image_anno.csv", ("image", "label", "mask"), rows, "\n")


def write_splits(root: Path, settings: Settings, objects: Sequence[str]) -> None:
    """Write the split files of `objects`, 1cls last, because it tells which objects are present."""
    for split_type in reversed(TRAINING_SHARES):
        rows = [row for name in objects for row in _split(settings, split_type, name)]
        file = root / "split_csv" / f"{split_type}.csv"
        _write_csv(file, ("object", "split", "label", "image", "mask"), rows, "\r\n")


def _split(settings: Settings, split_type: str, name: str) -> list[tuple[str, ...]]:
    """Make an object's rows: training before test, normal before anomalous, shuffled as in VisA, but nested."""
    rng = np.random.default_rng([settings.seed, crc32(name.encode())])
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "test": []}
    training = settings.training_counts(split_type, name)
    for kind, total, first in zip(KINDS, settings.counts(name), training, strict=True):
        for place, index in enumerate(rng.permutation(total)):
            split = "train" if place < first else "test"
            rows[split].append((name, split, kind.lower(), *settings.files(name, kind, index)))
    return rows["train"] + rows["test"]


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[str]], end: str) -> None:
    """Write a table atomically; no other process writes to the root."""
    file.parent.mkdir(exist_ok=True)
    partial = file.with_name(f".{file.name}.new")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator=end)
        writer.writerow(header)
        writer.writerows(rows)
    partial.replace(file)
