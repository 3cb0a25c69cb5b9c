"""Read split files as rows: which images of which object are for training and which for test."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from visa.data.objects import SPLIT_TYPES
from visa.errors import VisaError, check_choice

COLUMNS = ("object", "split", "label", "image", "mask")
PLAIN_NAME = r"\w[\w.+ -]{0,59}"  # of objects and data sets: they name folders and files of a run
CONTROL = r"\0-\x1f"  # characters, such as line ends, that a name in a table cannot have
_NAME = rf"[^/.\\:{CONTROL}][^/\\:{CONTROL}]*"
_PLAIN_PATH = re.compile(f"{_NAME}(/{_NAME})*")  # paths that need no further check
RESERVED = ("all", "object", "given", "mean")  # have another meaning where an object may be named


@dataclass(frozen=True)
class Sample:
    """One row of a split file.

    `split` is train or test, `label` normal or anomaly; `image` and `mask` are paths relative to the root. `mask` is
    empty for a normal image, and for an anomaly whose defective pixels are not known.
    """

    object: str
    split: str
    label: str
    image: str
    mask: str


def split_file(root: Path, setup: str) -> Path:
    """Return the path of the split file of `setup` (1cls, 2cls_highshot or 2cls_fewshot) in a VisA root."""
    check_choice("setup", setup, SPLIT_TYPES)
    return root / "split_csv" / f"{setup}.csv"


def read_split(file: Path) -> list[Sample]:
    """Read all rows of a split file, in its order.

    Raises VisaError if the file is missing or lacks a column, or if a row names a path outside the root, an unknown
    split or label, an image of an earlier row, or a mask for a normal image.
    """
    if not file.is_file():
        raise VisaError(f"no split file at {file}: a VisA root holds split_csv/ with {', '.join(SPLIT_TYPES)}.")
    samples = [Sample(*(row.get(column, "") for column in COLUMNS)) for row in read_table(file, COLUMNS)]
    if not samples:
        raise VisaError(f"{file} names no image: fetch the split file again.")
    _check_rows(file, samples)
    return samples


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file that are not empty; a short row lacks its last fields.

    Raises VisaError if the file is not a UTF-8 CSV, or does not have each of `columns` once.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            names, *rows = [row for row in csv.reader(stream) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise VisaError(f"{file} is not a CSV file in UTF-8 ({error}): fetch it again.") from error
    if absent := [c for c in columns if c not in names]:
        raise VisaError(f"{file} lacks the columns {', '.join(absent)}: its first line must be {','.join(columns)}.")
    if twice := [c for c in columns if names.count(c) > 1]:
        raise VisaError(f"{file} has the column {twice[0]} twice: leave one.")
    return [dict(zip(names, row, strict=False)) for row in rows]


def select(samples: Iterable[Sample], **wanted: str) -> list[Sample]:
    """Select the samples whose fields equal `wanted`: `select(samples, object="fryum", split="train")`."""
    return [s for s in samples if all(getattr(s, field) == value for field, value in wanted.items())]


def present_objects(root: Path, samples: Sequence[Sample]) -> list[str]:
    """List the objects of `samples` that are in `root`, in their order.

    An object is present if its folder or its first image exists.
    """
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(sample.object, sample)
    return [o for o, s in first.items() if (root / o).is_dir() or (root / s.image).is_file()]


def check_object_name(name: str, where: object) -> None:
    """Raise VisaError unless `name` can name a run's folders and is not one of RESERVED; `where` begins the message."""
    if name in RESERVED or not re.fullmatch(PLAIN_NAME, name):
        raise VisaError(
            f"{where}: an object cannot be called {name!r}: use at most 60 letters, digits, '.', '+', '-', '_' and "
            f"spaces, and none of {', '.join(RESERVED)}."
        )


def description(root: Path) -> dict[str, object]:
    """Read a root's `dataset.json`; empty if there is none, as in VisA. Raises VisaError if it is malformed."""
    file = root / "dataset.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise VisaError(f"{file} is not JSON ({error}): fix or delete it.") from error
    if not isinstance(content, dict) or not isinstance(content.get("synthetic", False), bool):
        raise VisaError(f'{file} is not of the form {{"name": "my data", "synthetic": false}}.')
    return content


def is_synthetic(root: Path) -> bool:
    """Tell whether `dataset.json` in the root says that its images were rendered, not photographed."""
    return bool(description(root).get("synthetic", False))


def _check_rows(file: Path, samples: list[Sample]) -> None:
    seen: set[str] = set()
    for name in dict.fromkeys(s.object for s in samples):
        check_object_name(name, file)
    for line, s in enumerate(samples, start=2):
        where = f"{file}, line {line}"
        check_choice(f"split ({where})", s.split, ("train", "test"))
        check_choice(f"label ({where})", s.label, ("normal", "anomaly"))
        for path in filter(None, (s.image, s.mask)):
            if not _PLAIN_PATH.fullmatch(path):
                _check_path(path, where)
        if not s.image or (s.mask and s.label == "normal"):
            raise VisaError(f"{where}: a row names an image, and a mask only if its label is anomaly.")
        if s.image in seen:
            raise VisaError(f"{where}: {s.image} is listed twice: an image is in training or in test, once.")
        seen.add(s.image)


def _check_path(path: str, where: str) -> None:
    if not path.isprintable() and re.search(f"[{CONTROL}]", path):  # an unclosed quote takes in further lines
        raise VisaError(f"{where}: {path[:60]!r} holds a line's end or another control character: mend the file.")
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise VisaError(f"{where}: {path!r} leaves the data set's folder: paths are relative to the root.")
    if path != PurePosixPath(path).as_posix():  # another spelling could list an image twice
        raise VisaError(f"{where}: {path!r} is not a plain path: write {PurePosixPath(path).as_posix()!r}.")
