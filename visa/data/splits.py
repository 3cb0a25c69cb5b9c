"""The official split files as rows: which image of which object is for training or test."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from visa.data.objects import SETUPS
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
    check_choice("setup", setup, SETUPS)
    return root / "split_csv" / f"{setup}.csv"


def read_split(file: Path) -> list[Sample]:
    """All rows of a split file, in its order.

    Raises VisaError if the file is absent or lacks a column, or where a row names a path outside the root, an
    unknown split or label, an image twice, or an anomaly without a mask.
    """
    if not file.is_file():
        raise VisaError(f"no split file at {file}: a VisA root holds split_csv/ with {', '.join(SETUPS)}.")
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        absent = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
        if absent:
            raise VisaError(f"{file} lacks the columns {', '.join(absent)}: a split file has {','.join(COLUMNS)}.")
        samples = [Sample(*(row[c] or "" for c in COLUMNS)) for row in reader]
    _check_rows(file, samples)
    return samples


def select(samples: Iterable[Sample], **wanted: str) -> list[Sample]:
    """The samples whose fields equal `wanted`: `select(samples, object="fryum", split="train")`."""
    return [s for s in samples if all(getattr(s, field) == value for field, value in wanted.items())]


def present_objects(root: Path) -> list[str]:
    """Objects of the 1cls split file that have a folder in `root`, in the file's order."""
    named = dict.fromkeys(s.object for s in read_split(split_file(root, "1cls")))
    return [o for o in named if (root / o).is_dir()]


def _check_rows(file: Path, samples: list[Sample]) -> None:
    seen: set[str] = set()
    for line, s in enumerate(samples, start=2):
        where = f"{file}, line {line}"
        check_choice(f"split ({where})", s.split, ("train", "test"))
        check_choice(f"label ({where})", s.label, ("normal", "anomaly"))
        for path in filter(None, (s.object, s.image, s.mask)):
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise VisaError(f"{where}: {path!r} leaves the data set's folder: paths are relative to the VisA root.")
        if not s.image or bool(s.mask) != (s.label == "anomaly"):
            raise VisaError(f"{where}: a row names an image, and a mask if and only if its label is anomaly.")
        if s.image in seen:
            raise VisaError(f"{where}: {s.image} stands there twice: an image is in training or in test, once.")
        seen.add(s.image)
