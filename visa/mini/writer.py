"""Mini-VisA on disk: a small rendered data set in VisA's exact layout."""

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import PIL.Image
from filelock import FileLock
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from visa.mini.scene import KINDS, MODULES, render
from visa.mini.tables import Settings, split_objects, write_annotations, write_splits

DEFAULT_OBJECTS = ("pcb1", "capsules", "cashew", "fryum")
INFO = "dataset.json"
DEFAULTS = Settings()
NOTE = "mini-VisA: a synthetic picture, rendered by a program, not a photograph"


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
    """Render mini-VisA into the folder `root` and return it; at once if it is there with the same settings.

    Every object gets `normal` and `anomaly` images of `size` x `size` pixels, or with a `scale` in (0, 1] that share
    of VisA's own numbers and splits. Pixels and splits depend on `seed` and the other settings, not on `workers`
    (processes; None: one a core). A greater `difficulty` makes subtler defects.

    Objects that a mini-VisA of the same settings lacks are added to it; one of other settings is replaced. Each object
    appears under its name only when it is whole, and two processes may ask for the same root at the same time.

    Raises ValueError for an unknown object, for counts that leave a split empty, or where `root` is something else.
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
        for abandoned in root.parent.glob(f".{root.name}-*.new"):  # of a process that was killed: nobody else is here
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(
            prefix=f".{root.name}-", suffix=".new", dir=root.parent, ignore_cleanup_errors=True
        ) as scratch:
            _add(root, settings, names, Path(scratch), workers, progress)
    return root


def present(root: Path, settings: Settings = DEFAULTS) -> list[str]:
    """Objects of a mini-VisA of these settings at `root`; ValueError if something else is there."""
    try:
        info = json.loads((root / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        info = None
    if isinstance(info, dict) and info.get("name") == "mini-VisA":
        return split_objects(root) if info == settings.info() else []
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root} exists and is no mini-VisA: choose a folder that does not exist yet.")
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
    for name in missing:
        write_annotations(new, settings, name)
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


Job = tuple[Path, Settings, str, str, int]


def _write_images(root: Path, settings: Settings, names: Sequence[str], workers: int | None, progress: bool) -> None:
    for name in names:
        for folder in (*(f"Images/{kind}" for kind in KINDS), "Masks/Anomaly"):
            (root / name / "Data" / folder).mkdir(parents=True)
    jobs = [
        (root, settings, name, kind, index)
        for name in names
        for kind, count in zip(KINDS, settings.counts(name), strict=True)
        for index in range(count)
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores if workers is None else workers, len(jobs))
    few = workers is None and len(jobs) < 60  # starting a process takes as long as some twenty images
    if count > 1 and not few and not multiprocessing.current_process().daemon:
        spawn = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(count, spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
                _follow(pool.map(_write_image, jobs, chunksize=8), len(jobs), progress)
            return
        except BrokenProcessPool:  # a script without a main guard cannot start any: go on here
            pass
    _follow(map(_write_image, jobs), len(jobs), progress)


def _follow(written: Iterable[None], total: int, progress: bool) -> None:
    for _ in tqdm(written, "mini-VisA", total, unit="image", disable=not progress):
        pass


def _write_image(job: Job) -> None:
    root, settings, name, kind, index = job
    image, mask = render(name, kind, index, settings.seed, settings.size, settings.difficulty)
    picture = PIL.Image.fromarray(image)
    exif = picture.getexif()
    exif[0x010E] = NOTE  # ImageDescription
    picture.save(root / settings.image(name, kind, index), "JPEG", quality=92, exif=exif, comment=NOTE.encode())
    if kind == "Anomaly":
        text = PngInfo()
        text.add_text("Description", NOTE)
        PIL.Image.fromarray(mask).save(root / settings.mask(name, kind, index), "PNG", pnginfo=text)
