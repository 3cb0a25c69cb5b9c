"""Write the train/test tree of VisA's own `prepare_data.py`, and split files for folders that have none.

The module imports neither torch nor NumPy, so that it starts fast.
"""

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from visa.data.images import open_mask
from visa.data.layouts import root_samples
from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.source import open_source
from visa.data.splits import COLUMNS, Sample, description, present_objects, read_split
from visa.data.splits import split_file as split_file_of
from visa.errors import VisaError, check_choice
from visa.paths import written_whole
from visa.provenance import write_rows, write_text

FOLDERS = {"normal": "good", "anomaly": "bad"}
TWO_CLASS = ("train/good", "train/bad", "test/good", "test/bad", "ground_truth/train/bad", "ground_truth/test/bad")
LEAVES = dict.fromkeys(SPLIT_TYPES, TWO_CLASS) | {"1cls": ("train/good", "test/good", "test/bad", "ground_truth/bad")}


@dataclass(frozen=True)
class Summary:
    """The prepared folder, its objects, those missing from the root, and the numbers of files written and kept.

    `unmasked`: the number of anomalies without a mask, which have none in the tree either.
    """

    folder: Path
    objects: tuple[str, ...]
    absent: tuple[str, ...]
    written: int
    kept: int
    unmasked: int = 0


class _File(NamedTuple):
    """One file to make: an image to link or copy, or a mask to binarise."""

    source: Path
    target: Path
    is_mask: bool


def prepare(
    split_type: str,
    data_folder: Path,
    save_folder: Path,
    split_file: Path | None = None,
    objects: Sequence[str] | None = None,
    link: bool = True,
    workers: int | None = None,
    progress: bool = False,
) -> Summary:
    """Write the split's tree under `save_folder/split_type`, as VisA's `prepare_data.py` does with its four options.

    Without `split_file` the rows come from the root, in any of its layouts (`visa.data.layouts.root_samples`).

    1cls gives an object `{train/good, test/good, test/bad, ground_truth/bad}`, the 2-class types give it
    `{train,test}/{good,bad}` and `ground_truth/{train,test}/bad`. Images keep their names and bytes; masks become
    PNG with 0 and 255. For VisA, the folders of `objects` (default: all twelve) are created even if an object is
    missing. In MVTec-AD's layout names repeat, so an image's name includes its folders (`test-crack-000.png`).

    With `link`, an image is a hard link where the file system allows one: it takes no space, but whoever edits it edits
    the original. Otherwise it is a copy. Files that are up to date (by size and time) are kept.
    Raises VisaError, before anything is written, for an unknown choice, a missing or empty file of a present object,
    a row that the tree has no folder for, or a file in the tree that is not in the split; and while it writes, for a
    mask that cannot be read. Images are not decoded: `visa verify` does that.
    """
    check_choice("split type", split_type, LEAVES)
    data_folder, folder = Path(data_folder), Path(save_folder) / split_type
    rows = read_split(Path(split_file)) if split_file else root_samples(data_folder, split_type)
    named = list(dict.fromkeys(s.object for s in rows))
    every = list(dict.fromkeys((*OBJECTS, *named))) if OBJECTS.keys() >= set(named) else named
    for name in objects or ():
        check_choice("object", name, every)
    every = list(objects or every)
    samples = [s for s in rows if s.object in every]
    present = present_objects(data_folder, samples)
    absent = tuple(o for o in named if o in every and o not in present)
    samples = [s for s in samples if s.object in present]
    files = [f for s in samples for f in _files(split_type, data_folder, folder, s)]
    folders = [folder / o / leaf for o in every for leaf in LEAVES[split_type]]
    _check(files, folders)
    for leaf in folders:
        leaf.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(lambda file: _make(file, link), files)
        written = sum(tqdm(made, "prepare", len(files), disable=None if progress else True))  # None: only on a terminal
    unmasked = sum(s.label == "anomaly" and not s.mask for s in samples)
    return Summary(folder, tuple(present), absent, written, len(files) - written, unmasked)


def write_splits(root: Path) -> list[Path]:
    """Write `split_csv/*.csv`, and `dataset.json` where there is none, into a root of folders; return the split files.

    The rows are those of `visa.data.layouts.root_samples`; from then on the files decide which images are for training.
    Raises VisaError if there are split files already, or no images.
    """
    source = open_source(str(root))
    if (source.root / "split_csv").exists():
        raise VisaError(f"{source.root / 'split_csv'} is there already: edit its files, or delete it and try again.")
    rows = {split_file_of(source.root, t): root_samples(source.root, t) for t in SPLIT_TYPES}
    if not description(source.root):
        about = {"name": source.name, "synthetic": False}
        write_text(source.root / "dataset.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    for file, samples in rows.items():
        write_rows(file, COLUMNS, map(asdict, samples))
    return list(rows)


def _files(split_type: str, data_folder: Path, folder: Path, sample: Sample) -> list[_File]:
    """List the image of a sample and, if it has one, its mask."""
    leaf = f"{sample.split}/{FOLDERS[sample.label]}"
    if leaf not in LEAVES[split_type]:
        raise VisaError(f"{sample.image} is an anomaly for training, which {split_type} lacks: check the split file.")
    files = [_File(data_folder / sample.image, folder / sample.object / leaf / _names(sample)[0], False)]
    if sample.mask:
        files.append(_File(data_folder / sample.mask, mask_target(folder, split_type, sample), True))
    return files


def mask_target(folder: Path, split_type: str, sample: Sample) -> Path:
    """Return where a sample's mask lies in the tree `folder` of a prepared split."""
    place = "bad" if split_type == "1cls" else f"{sample.split}/bad"
    return folder / sample.object / "ground_truth" / place / _names(sample)[1]


def _names(sample: Sample) -> tuple[str, str]:
    """Return the names of image and mask in the tree; a mask is always a PNG file."""
    parts = sample.image.removeprefix(f"{sample.object}/").split("/")
    if parts[0] in ("train", "test"):  # MVTec-AD
        name = "-".join(parts)
        return name, f"{name.rpartition('.')[0]}.png"
    return parts[-1], f"{sample.mask.rpartition('/')[2].rpartition('.')[0]}.png"


def _check(files: list[_File], folders: list[Path]) -> None:
    """Raise VisaError unless all sources exist, targets differ, and the folders hold no file of another split."""
    missing = [str(f.source) for f in files if not (f.source.is_file() and f.source.stat().st_size)]
    if missing:
        told = f"{missing[0]} and {len(missing) - 1} more" if missing[1:] else missing[0]
        raise VisaError(f"{told} is missing or empty though its object is there: complete the data set (visa verify).")
    wanted = {f.target: f.source for f in files}
    if len(wanted) < len(files):
        first, second = next((wanted[f.target], f.source) for f in files if wanted[f.target] != f.source)
        raise VisaError(f"{first} and {second} would get the same name in the prepared tree: rename one of them.")
    for leaf in filter(Path.is_dir, folders):
        for file in leaf.iterdir():
            if file not in wanted and not file.name.startswith("."):
                raise VisaError(f"{file} is not in the split file: name a save folder without another split's files.")


def _make(file: _File, link: bool) -> bool:
    """Make one file unless it is up to date; True if it was written."""
    if _is_current(file, link):
        return False
    with written_whole(file.target) as part:
        if file.is_mask:  # 255 on defects, 0 elsewhere; the file gets its source's modification time
            open_mask(file.source).point([0] + 255 * [255]).save(part, "PNG", compress_level=1)
            time = file.source.stat().st_mtime_ns
            os.utime(part, ns=(time, time))
            return True
        with suppress(OSError):  # on another file system, or on one without links, it is copied
            if link:
                part.hardlink_to(file.source.resolve())
                return True
        shutil.copy2(file.source, part)
    return True


def _is_current(file: _File, link: bool) -> bool:
    if not file.target.is_file():
        return False
    source, target = file.source.stat(), file.target.stat()
    if os.path.samestat(source, target):
        return link
    return source.st_mtime_ns == target.st_mtime_ns and (file.is_mask or source.st_size == target.st_size)
