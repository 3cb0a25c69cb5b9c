"""The train/test tree of VisA's own `prepare_data.py`, for code that reads MVTec-like folders."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from visa.data.dataset import read_mask
from visa.data.objects import OBJECTS
from visa.data.splits import Sample, read_split
from visa.errors import VisaError, check_choice

FOLDERS = {"normal": "good", "anomaly": "bad"}
ONE_CLASS = ("train/good", "test/good", "test/bad", "ground_truth/bad")
TWO_CLASS = ("train/good", "train/bad", "test/good", "test/bad", "ground_truth/train/bad", "ground_truth/test/bad")
LEAVES = {"1cls": ONE_CLASS, "2cls_highshot": TWO_CLASS, "2cls_fewshot": TWO_CLASS}
# Run lengths suit a binary mask: half the time of the usual strategy, and fewer bytes.
PNG_OPTIONS = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


@dataclass(frozen=True)
class Summary:
    """The folder that was prepared, its objects, those absent as a whole, and how many files were written or kept."""

    folder: Path
    objects: tuple[str, ...]
    absent: tuple[str, ...]
    written: int
    kept: int


@dataclass(frozen=True)
class _File:
    """One file to make: an image to link or copy, or a mask to binarise."""

    source: Path
    target: Path
    is_mask: bool


def prepare(
    split_type: str,
    data_folder: Path,
    save_folder: Path,
    split_file: Path,
    objects: Sequence[str] | None = None,
    link: bool = True,
    workers: int | None = None,
    progress: bool = False,
) -> Summary:
    """Write the split's tree under `save_folder/split_type`, as VisA's `prepare_data.py` does with its four options.

    1cls gives `{train/good, test/good, test/bad, ground_truth/bad}` an object, the 2-class types
    `{train,test}/{good,bad}` and `ground_truth/{train,test}/bad`. Images keep their names and bytes; masks become
    PNG with 0 and 255. The folders of `objects`, by default of all twelve, are made even where an object is absent.

    With `link` an image is a hard link where the file system allows one, and takes no room, but then it *is* the
    original: who edits one edits the other. Without, it is a copy. What is up to date (size and time) is kept.
    Raises VisaError, before anything is written, for an unknown choice, a missing or empty file of a present object,
    a row that the layout has no folder for, or a file in the tree that is not in the split; and on its way for a mask
    that cannot be read. Images are not decoded: `visa verify` does.
    """
    check_choice("split type", split_type, LEAVES)
    for name in objects or ():
        check_choice("object", name, OBJECTS)
    data_folder, folder = Path(data_folder), Path(save_folder) / split_type
    samples = [s for s in read_split(Path(split_file)) if objects is None or s.object in objects]
    named = tuple(dict.fromkeys(s.object for s in samples))
    absent = tuple(o for o in named if not (data_folder / o).is_dir())
    files = [f for s in samples if s.object not in absent for f in _files(split_type, data_folder, folder, s)]
    made_for = dict.fromkeys((*(objects or OBJECTS), *named))
    folders = [folder / o / leaf for o in made_for for leaf in LEAVES[split_type]]
    _check_sources(files)
    _check_targets(files, folders)
    for leaf in folders:
        leaf.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(lambda file: _make(file, link), files)
        written = sum(tqdm(made, "prepare", len(files), disable=not progress))
    return Summary(folder, tuple(o for o in named if o not in absent), absent, written, len(files) - written)


def _files(split_type: str, data_folder: Path, folder: Path, sample: Sample) -> list[_File]:
    """The image of a sample and, for an anomaly, its mask."""
    leaf = f"{sample.split}/{FOLDERS[sample.label]}"
    if leaf not in LEAVES[split_type]:
        raise VisaError(f"{sample.image} is an anomaly for training, which {split_type} has not: check the split file.")
    pairs = [(sample.image, leaf)]
    if sample.mask:
        pairs.append((sample.mask, "ground_truth/bad" if split_type == "1cls" else f"ground_truth/{sample.split}/bad"))
    return [
        _File(data_folder / path, folder / sample.object / leaf / Path(path).name, path == sample.mask)
        for path, leaf in pairs
    ]


def _check_sources(files: list[_File]) -> None:
    missing = [str(f.source) for f in files if not f.source.is_file() or not f.source.stat().st_size]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise VisaError(
            f"{missing[0]}{more} is missing or empty though its object is there: complete the data set (visa verify)."
        )


def _check_targets(files: list[_File], folders: list[Path]) -> None:
    """Left over from another split, a file would silently join the training or the test images."""
    wanted = {f.target for f in files}
    if len(wanted) < len(files):
        raise VisaError("two images of the split file would get the same name: names are unique in a folder.")
    for leaf in filter(Path.is_dir, folders):
        for file in leaf.iterdir():
            if file not in wanted and not file.name.startswith("."):
                raise VisaError(f"{file} is not in the split file: name a save folder without another split's files.")


def _make(file: _File, link: bool) -> bool:
    """Make one file unless it is up to date; True if it was written."""
    if _is_current(file, link):
        return False
    part = file.target.with_name(f".{file.target.name}.{os.getpid()}.part")  # no image suffix: loaders skip it
    part.unlink(missing_ok=True)
    try:
        if file.is_mask:
            _write_mask(file.source, part)
        elif not (link and _hard_link(file.source, part)):
            shutil.copy2(file.source, part)
        part.replace(file.target)
    finally:
        part.unlink(missing_ok=True)
    return True


def _is_current(file: _File, link: bool) -> bool:
    if not file.target.is_file():
        return False
    source, target = file.source.stat(), file.target.stat()
    if file.is_mask:  # written with its source's time
        return source.st_mtime_ns == target.st_mtime_ns
    if os.path.samestat(source, target):
        return link
    return (source.st_size, source.st_mtime_ns) == (target.st_size, target.st_mtime_ns)


def _hard_link(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without links
        return False
    return True


def _write_mask(source: Path, target: Path) -> None:
    binary = cv2.threshold(read_mask(source).numpy(), 0, 255, cv2.THRESH_BINARY)[1]
    target.write_bytes(cv2.imencode(".png", binary, PNG_OPTIONS)[1].tobytes())
    time = source.stat().st_mtime_ns
    os.utime(target, ns=(time, time))
