"""Mini-VisA on disk: a small rendered data set in VisA's exact layout."""

import csv
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, astuple, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import PIL.Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from visa.data.objects import SPLIT_TYPES
from visa.data.splits import COLUMNS, Sample, split_file
from visa.data.synthetic.scene import KINDS, MODULES, classes_of, render
from visa.errors import VisaError, check_choice
from visa.paths import scratch_folder

VERSION = 1  # of the generator: raise it whenever pixels, names or splits change
DEFAULT_OBJECTS = ("pcb1", "capsules", "cashew", "fryum")
INFO = "dataset.json"
NOTE = "mini-VisA: a synthetic picture, rendered by a program, not a photograph"
FEW_SHOT_LEAST = 10  # images of each label for few-shot training, so that ten shots can be drawn


@dataclass(frozen=True)
class _Settings:
    objects: tuple[str, ...]
    normal: int
    anomaly: int
    size: int
    seed: int
    difficulty: float

    def info(self) -> dict[str, Any]:
        """What `dataset.json` says."""
        counts = {s: _training_counts(s, self.normal, self.anomaly) for s in SPLIT_TYPES}
        fields = asdict(self) | {"objects": list(self.objects), "training_images_an_object": counts}
        return {"name": "mini-VisA", "synthetic": True, "generator_version": VERSION, **fields}


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
) -> Path:
    """Render mini-VisA into the folder `root` and return it; at once if it is there with the same settings.

    Every object gets `normal` and `anomaly` images of `size` x `size` pixels. Pixels and splits depend on `seed` and
    the other settings, not on `workers` (processes; None: one a core). A greater `difficulty` makes subtler defects.
    The folder appears under its name only when it is whole; a mini-VisA of other settings in its place is replaced.

    Raises VisaError for an unknown object, for counts that leave a split empty, or where `root` is something else.
    """
    root = Path(root)
    settings = _Settings(tuple(dict.fromkeys(objects)), normal, anomaly, size, seed, float(difficulty))
    _check(settings)
    if _is_current(root, settings):
        return root
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker that imports the caller's script
        raise VisaError('put the call under `if __name__ == "__main__":`, or say workers=1; rendering in one process.')
    with scratch_folder(root) as scratch:
        new = scratch / "new"
        _write_images(new, settings, workers, progress)
        _write_tables(new, settings)
        _publish(new, root, settings)
    return root


def _check(settings: _Settings) -> None:
    for name in settings.objects:
        check_choice("object of mini-VisA", name, MODULES)
    if not settings.objects or settings.normal < 3 or settings.anomaly < 2 or settings.seed < 0:
        raise VisaError("mini-VisA needs an object, at least 3 normal and 2 anomalous images, and a seed from 0 on.")
    if settings.size < 64 or settings.difficulty <= 0:
        raise VisaError("mini-VisA needs a size of at least 64 pixels and a difficulty above 0.")


def _is_current(root: Path, settings: _Settings) -> bool:
    """Whether `root` is a mini-VisA of these settings; VisaError if it is anything else than a mini-VisA."""
    try:
        info = json.loads((root / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        info = None
    if isinstance(info, dict) and info.get("name") == "mini-VisA":
        return bool(info == settings.info())
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise VisaError(f"{root} exists and is no mini-VisA: choose a folder that does not exist yet.")
    return False


def _publish(new: Path, root: Path, settings: _Settings) -> None:
    """Move the whole folder to its name; if another process was faster with the same settings, keep the other's."""
    for attempt in range(5):
        try:
            new.replace(root)
            return
        except OSError:
            if _is_current(root, settings):
                return
            if root.exists():
                root.replace(new.with_name(f"old{attempt}"))  # it goes with the temporary folder
    raise VisaError(f"{root} is being written by another process with other settings: run again, or choose another.")


def _write_images(root: Path, settings: _Settings, workers: int | None, progress: bool) -> None:
    for name, kind in product(settings.objects, KINDS):
        (root / name / "Data" / "Images" / kind).mkdir(parents=True)
    for name in settings.objects:
        (root / name / "Data" / "Masks" / "Anomaly").mkdir(parents=True)
    jobs = [
        (root, settings, name, kind, index)
        for name in settings.objects
        for kind, count in zip(KINDS, (settings.normal, settings.anomaly), strict=True)
        for index in range(count)
    ]
    bar = tqdm(total=len(jobs), desc="mini-VisA", unit="image", disable=not progress)
    with bar:
        _each(_write_image, jobs, workers, bar.update)


Job = tuple[Path, _Settings, str, str, int]


def _each(work: Callable[[Job], None], jobs: Sequence[Job], workers: int | None, done: Callable[[], object]) -> None:
    """Do every job, in processes where that pays and where this process may have any."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores if workers is None else workers, len(jobs))
    if workers is None and len(jobs) < 60:  # starting a process takes as long as some twenty images
        count = 1
    left = list(jobs)
    if count > 1 and not multiprocessing.current_process().daemon:
        pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
        )
        try:
            for _ in pool.map(work, jobs, chunksize=8):
                left.pop(0)
                done()
        except BrokenProcessPool:  # a script without a main guard cannot start any: go on here
            pass
        finally:
            pool.shutdown(cancel_futures=True)
    for job in left:
        work(job)
        done()


def _write_image(job: Job) -> None:
    root, settings, name, kind, index = job
    image, mask = render(name, kind, index, settings.seed, settings.size, settings.difficulty)
    picture = PIL.Image.fromarray(image)
    exif = picture.getexif()
    exif[0x010E] = NOTE  # ImageDescription
    picture.save(root / _image(settings, name, kind, index), "JPEG", quality=92, exif=exif, comment=NOTE.encode())
    if kind == "Anomaly":
        text = PngInfo()
        text.add_text("Description", NOTE)
        PIL.Image.fromarray(mask).save(root / _mask(settings, name, kind, index), "PNG", pnginfo=text)


def _image(settings: _Settings, name: str, kind: str, index: int) -> str:
    return f"{name}/Data/Images/{kind}/{_number(settings, index)}.JPG"


def _mask(settings: _Settings, name: str, kind: str, index: int) -> str:
    return f"{name}/Data/Masks/Anomaly/{_number(settings, index)}.png" if kind == "Anomaly" else ""


def _number(settings: _Settings, index: int) -> str:
    """Three digits, or four for an object with 1,000 normal images and more, as in VisA."""
    return f"{index:0{3 if max(settings.normal, settings.anomaly) < 1000 else 4}d}"


def _write_tables(root: Path, settings: _Settings) -> None:
    for name in settings.objects:
        labels = [("Normal", i, "normal") for i in range(settings.normal)]
        labels += [("Anomaly", i, ",".join(classes_of(name, i, settings.seed))) for i in range(settings.anomaly)]
        rows = [(_image(settings, name, k, i), label, _mask(settings, name, k, i)) for k, i, label in labels]
        _write_csv(root / name / "image_anno.csv", ("image", "label", "mask"), rows, "\n")
    (root / "split_csv").mkdir()
    for setup in SPLIT_TYPES:
        samples = [astuple(s) for name in settings.objects for s in _split(settings, setup, name)]
        _write_csv(split_file(root, setup), COLUMNS, samples, "\r\n")
    (root / INFO).write_text(json.dumps(settings.info(), indent=2) + "\n", encoding="utf-8")


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[str]], end: str) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator=end)
        writer.writerow(header)
        writer.writerows(rows)


def _split(settings: _Settings, setup: str, name: str) -> list[Sample]:
    """The rows of one object: training before test, normal before anomalous, in shuffled order, as in VisA."""
    rng = np.random.default_rng([settings.seed, crc32(name.encode()), crc32(setup.encode())])
    train: list[Sample] = []
    test: list[Sample] = []
    counts = _training_counts(setup, settings.normal, settings.anomaly)
    for kind, total in zip(KINDS, (settings.normal, settings.anomaly), strict=True):
        for place, index in enumerate(rng.permutation(total)):
            paths = _image(settings, name, kind, index), _mask(settings, name, kind, index)
            sample = Sample(name, "train", kind.lower(), *paths)
            (train if place < counts[kind.lower()] else test).append(sample)
    return train + [replace(s, split="test") for s in test]


def _training_counts(setup: str, normal: int, anomaly: int) -> dict[str, int]:
    """How many images of each label train in `setup`; the rest is for test."""
    if setup == "1cls":
        return {"normal": round(normal * 2 / 3), "anomaly": 0}
    if setup == "2cls_highshot":
        return {"normal": round(normal * 0.6), "anomaly": round(anomaly * 0.6)}
    least = {k: min(FEW_SHOT_LEAST, n // 2) for k, n in (("normal", normal), ("anomaly", anomaly))}
    return {"normal": max(round(normal * 0.2), least["normal"]), "anomaly": max(round(anomaly * 0.2), least["anomaly"])}
