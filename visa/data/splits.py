"""The official split files as rows: which image of which object is for training or test."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from visa.data.objects import SPLIT_TYPES
from visa.errors import VisaError, check_choice

COLUMNS = ("object", "split", "label", "image", "mask")


@dataclass(frozen=True)
class Sample:
    """One row of a split file.

    `split` is train or test, `label` normal or anomaly; `image` and `mask` are paths relative to the VisA root,
    `mask` is empty for a normal image.
    """

    object: str
    split: str
    label: str
    image: str
    mask: str


def split_file(root: Path, setup: str) -> Path:
    """The split file of `setup` (1cls, 2cls_highshot or 2cls_fewshot) in a VisA root."""
    check_choice("setup", setup, SPLIT_TYPES)
    return root / "split_csv" / f"{setup}.csv"


def read_split(file: Path) -> list[Sample]:
    """All rows of a split file, in its order.

    Raises VisaError if the file is absent or lacks a column, or where a row names a path outside the root, an
    unknown split or label, an image twice, or an anomaly without a mask.
    """
    if not file.is_file():
        raise VisaError(f"no split file at {file}: a VisA root holds split_csv/ with {', '.join(SPLIT_TYPES)}.")
    samples = [Sample(*(row[c] or "" for c in COLUMNS)) for row in read_table(file, COLUMNS)]
    if not samples:
        raise VisaError(f"{file} names no image: fetch the split file again.")
    _check_rows(file, samples)
    return samples


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, str | None]]:
    """The rows of a CSV file; raises VisaError if it is no UTF-8 CSV or lacks one of `columns`."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            names, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise VisaError(f"{file} is no CSV file in UTF-8 ({error}): fetch it again.") from error
    if absent := [c for c in columns if c not in names]:
        raise VisaError(f"{file} lacks the columns {', '.join(absent)}: it has {','.join(columns)}.")
    return rows


def select(samples: Iterable[Sample], **wanted: str) -> list[Sample]:
    """The samples whose fields equal `wanted`: `select(samples, object="fryum", split="train")`."""
    return [s for s in samples if all(getattr(s, field) == value for field, value in wanted.items())]


def present_objects(root: Path) -> list[str]:
    """Objects of the 1cls split file that have a folder in `root`, in the file's order."""
    named = dict.fromkeys(s.object for s in read_split(split_file(root, "1cls")))
    return [o for o in named if (root / o).is_dir()]


def description(root: Path) -> dict[str, object]:
    """What `dataset.json` in a root says of it; empty for VisA, which has none. VisaError if it is no JSON object."""
    file = root / "dataset.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise VisaError(f"{file} is no JSON ({error}): mend or delete it.") from error
    if not isinstance(content, dict) or not isinstance(content.get("synthetic", False), bool):
        raise VisaError(f'{file} is not of the form {{"name": "my data", "synthetic": false}}.')
    return content


def is_synthetic(root: Path) -> bool:
    """Whether `dataset.json` in the root says that its images were rendered, not photographed."""
    return bool(description(root).get("synthetic", False))


def _check_rows(file: Path, samples: list[Sample]) -> None:
    seen: set[str] = set()
    for line, s in enumerate(samples, start=2):
        where = f"{file}, line {line}"
        check_choice(f"split ({where})", s.split, ("train", "test"))
        check_choice(f"label ({where})", s.label, ("normal", "anomaly"))
        for path in filter(None, (s.object, s.image, s.mask)):
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise VisaError(f"{where}: {path!r} leaves the data set's folder: paths are relative to the VisA root.")
            if path != PurePosixPath(path).as_posix():  # another spelling would let an image stand there twice
                raise VisaError(f"{where}: {path!r} is no plain path: write {PurePosixPath(path).as_posix()!r}.")
        if not s.image or bool(s.mask) != (s.label == "anomaly"):
            raise VisaError(f"{where}: a row names an image, and a mask if and only if its label is anomaly.")
        if s.image in seen:
            raise VisaError(f"{where}: {s.image} stands there twice: an image is in training or in test, once.")
        seen.add(s.image)
