"""Check a VisA root: annotations, split files, images and masks against each other and the published counts."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from visa.data.dataset import read_image, read_mask
from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.splits import Sample, is_synthetic, read_split, read_table, split_file
from visa.errors import VisaError, check_choice

LABELS = ("normal", "anomaly")


@dataclass
class ObjectReport:
    """What was found for one object: image counts, errors (unusable or contradictory), warnings (odd but usable)."""

    object: str
    absent: bool = False
    normal: int = 0
    anomaly: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the object is there and without errors."""
        return not self.absent and not self.errors


@dataclass(frozen=True)
class Annotation:
    """One row of `image_anno.csv`: image and mask relative to the root, and the defect classes by name."""

    image: str
    classes: tuple[str, ...]
    mask: str

    @property
    def label(self) -> str:
        """Normal or anomaly, as the split files say it."""
        return "anomaly" if self.classes else "normal"


def verify(
    root: Path, objects: Sequence[str] | None = None, workers: int | None = None, progress: bool = False
) -> list[ObjectReport]:
    """One report an object of a VisA root; by default for every object that its split files name.

    An object without a folder is `absent`, and the root stays usable for the others. All images and masks are
    decoded, in `workers` threads. The published counts are compared unless `dataset.json` says that the data are
    synthetic. Raises VisaError for an unknown object, or a root without its split files.
    """
    root = Path(root)
    splits = {setup: read_split(split_file(root, setup)) for setup in SPLIT_TYPES}
    names = objects or list(dict.fromkeys(s.object for rows in splits.values() for s in rows))
    for name in names:
        check_choice("object", name, OBJECTS)
    official = not is_synthetic(root)
    return [_verify_object(root, name, splits, official, workers, progress) for name in names]


def read_annotations(file: Path) -> list[Annotation]:
    """All rows of an `image_anno.csv`, in its order; raises VisaError if it is absent or lacks a column."""
    if not file.is_file():
        raise VisaError(f"no annotations at {file}.")
    rows = read_table(file, ("image", "label", "mask"))
    return [Annotation(r["image"] or "", _class_names(r["label"] or ""), r["mask"] or "") for r in rows]


def _class_names(label: str) -> tuple[str, ...]:
    return () if label == "normal" else tuple(name.strip() for name in label.split(","))


def _verify_object(
    root: Path, name: str, splits: dict[str, list[Sample]], official: bool, workers: int | None, progress: bool
) -> ObjectReport:
    report = ObjectReport(name, absent=not (root / name).is_dir())
    if report.absent:
        return report
    try:
        rows = read_annotations(root / name / "image_anno.csv")
    except VisaError as error:
        report.errors.append(str(error))
        return report
    counts = Counter(row.label for row in rows)
    report.normal, report.anomaly = counts["normal"], counts["anomaly"]
    _check_files(root, name, rows, report)
    for setup, samples in splits.items():
        _check_split(setup, [s for s in samples if s.object == name], rows, report)
    if official:
        _check_counts(report)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda row: _check_image(root, name, row), rows)
        for errors, warnings in tqdm(found, name, len(rows), disable=not progress):
            report.errors += errors
            report.warnings += warnings
    return report


def _check_files(root: Path, name: str, rows: list[Annotation], report: ObjectReport) -> None:
    listed = [path for row in rows for path in (row.image, row.mask) if path]
    report.errors += [f"{path} stands in image_anno.csv twice" for path, n in Counter(listed).items() if n > 1]
    files = (p for p in (root / name / "Data").rglob("*") if p.is_file() and not p.name.startswith("."))
    unlisted = sorted({p.relative_to(root).as_posix() for p in files} - set(listed))
    report.warnings += [f"{path} is not in image_anno.csv" for path in unlisted]


def _check_split(setup: str, samples: list[Sample], rows: list[Annotation], report: ObjectReport) -> None:
    annotated = {row.image: (row.label, row.mask) for row in rows}
    split = {s.image: (s.label, s.mask) for s in samples}
    report.errors += [
        f"{i} is in {setup}.csv but not in image_anno.csv" for i in sorted(split.keys() - annotated.keys())
    ]
    report.errors += [
        f"{i} is in image_anno.csv but not in {setup}.csv" for i in sorted(annotated.keys() - split.keys())
    ]
    for image in sorted(split.keys() & annotated.keys()):
        if split[image] != annotated[image]:
            report.errors.append(f"{image}: {setup}.csv says {split[image]}, image_anno.csv {annotated[image]}")


def _check_counts(report: ObjectReport) -> None:
    published = OBJECTS[report.object]
    for label in LABELS:
        found, expected = getattr(report, label), getattr(published, label)
        if found != expected:
            report.errors.append(f"{found} {label} images, the paper counts {expected}")


def _check_image(root: Path, name: str, row: Annotation) -> tuple[list[str], list[str]]:
    """Errors and warnings of one image and its mask."""
    try:
        size = read_image(root / row.image).shape[1:]
        mask = read_mask(root / row.mask) if row.mask else None
    except VisaError as error:
        return [str(error)], []
    if mask is None:
        return ([f"{row.image} is labelled {', '.join(row.classes)} but has no mask"] if row.classes else []), []
    errors = []
    if mask.shape != size:
        errors.append(f"{row.mask} is {tuple(mask.shape)}, its image {row.image} {tuple(size)} (height, width)")
    ids = [i for i in torch.unique(mask).tolist() if i]
    if bool(ids) != bool(row.classes):
        errors.append(f"{row.mask} marks {len(ids)} classes, but image_anno.csv says {row.label}")
    known = OBJECTS[name].classes
    errors += [f"{row.mask} holds the class id {i}; {name} has 1 to {len(known)}" for i in ids if i > len(known)]
    marked = {known[i - 1] for i in ids if i <= len(known)}
    if errors or marked == set(row.classes):
        return errors, []
    return [], [f"{row.mask} marks {', '.join(sorted(marked))}; image_anno.csv says {', '.join(sorted(row.classes))}"]
