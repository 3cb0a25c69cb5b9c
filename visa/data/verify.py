"""Check a root: annotations, split files, images and masks against each other, VisA's against the published counts."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from visa.data.dataset import read_image, read_mask
from visa.data.layouts import find_parts, root_samples
from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.report import ObjectReport
from visa.data.source import MINI_VISA, VISA, dataset_name
from visa.data.splits import Sample, is_synthetic, present_objects, read_table, select
from visa.data.verify_own import verify_part, verify_rows
from visa.errors import VisaError, check_choice

LABELS = ("normal", "anomaly")


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
    """One report an object of a root in any layout; by default for every object that it names.

    An object without a folder is `absent`, and the root stays usable for the others. All images and masks are
    decoded, in `workers` threads. The published counts are compared for VisA alone, class ids for it and mini-VisA;
    an object of other data may lack image_anno.csv. Raises VisaError for an unknown object or an unknown layout.
    """
    root = Path(root)
    splits = {split_type: root_samples(root, split_type) for split_type in SPLIT_TYPES}
    known = list(dict.fromkeys(s.object for rows in splits.values() for s in rows))
    if not (root / "split_csv").is_dir():
        parts = {part.name: part for part in find_parts(root)}
        for name in objects or ():
            check_choice("object", name, parts)
        rows = splits["1cls"]
        return [verify_part(root, parts[o], select(rows, object=o), workers, progress) for o in objects or parts]
    official = dataset_name(root, tuple(known)) in (VISA, MINI_VISA) or is_synthetic(root)
    for name in objects or ():
        check_choice("object", name, dict.fromkeys((*known, *OBJECTS)) if official else known)
    return [_verify_object(root, o, splits, official and o in OBJECTS, workers, progress) for o in objects or known]


def read_annotations(file: Path) -> list[Annotation]:
    """All rows of an `image_anno.csv`, in its order; raises VisaError if it is absent or lacks a column."""
    if not file.is_file():
        raise VisaError(f"no annotations at {file}.")
    rows = read_table(file, ("image", "label", "mask"))
    return [Annotation(r["image"], _class_names(r.get("label", "")), r.get("mask", "")) for r in rows]


def _class_names(label: str) -> tuple[str, ...]:
    return () if label == "normal" else tuple(name.strip() for name in label.split(","))


def _verify_object(
    root: Path, name: str, splits: dict[str, list[Sample]], official: bool, workers: int | None, progress: bool
) -> ObjectReport:
    mine = {split_type: select(samples, object=name) for split_type, samples in splits.items()}
    present = (root / name).is_dir() or name in present_objects(root, mine["1cls"])
    if present and not official:
        return _verify_own(root, name, mine, workers, progress)
    report = ObjectReport(name, absent=not present)
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
    for split_type, samples in mine.items():
        _check_split(split_type, samples, rows, report)
    if not is_synthetic(root):
        _check_counts(report)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda row: _check_image(root, name, row), rows)
        for errors, warnings in tqdm(found, name, len(rows), disable=not progress):
            report.errors += errors
            report.warnings += warnings
    return report


def _verify_own(
    root: Path, name: str, splits: dict[str, list[Sample]], workers: int | None, progress: bool
) -> ObjectReport:
    """An object that is not VisA's: its rows, which must hold the same images in every split file."""
    report = verify_rows(root, name, splits["1cls"], workers, progress)
    annotations = root / name / "image_anno.csv"
    rows = read_annotations(annotations) if annotations.is_file() else None
    facts = {split_type: {s.image: (s.label, s.mask) for s in samples} for split_type, samples in splits.items()}
    for split_type, found in facts.items():
        odd = sorted({image for image, _ in found.items() ^ facts["1cls"].items()})
        if odd:
            report.errors.append(f"{odd[0]} and {len(odd) - 1} more differ between 1cls.csv and {split_type}.csv")
        if rows is not None:
            _check_split(split_type, splits[split_type], rows, report)
    return report


def _check_files(root: Path, name: str, rows: list[Annotation], report: ObjectReport) -> None:
    listed = [path for row in rows for path in (row.image, row.mask) if path]
    report.errors += [f"{path} stands in image_anno.csv twice" for path, n in Counter(listed).items() if n > 1]
    files = (p for p in (root / name / "Data").rglob("*") if p.is_file() and not p.name.startswith("."))
    unlisted = sorted({p.relative_to(root).as_posix() for p in files} - set(listed))
    report.warnings += [f"{path} is not in image_anno.csv" for path in unlisted]


def _check_split(split_type: str, samples: list[Sample], rows: list[Annotation], report: ObjectReport) -> None:
    annotated = {row.image: (row.label, row.mask) for row in rows}
    split = {s.image: (s.label, s.mask) for s in samples}
    report.errors += [
        f"{i} is in {split_type}.csv but not in image_anno.csv" for i in sorted(split.keys() - annotated.keys())
    ]
    report.errors += [
        f"{i} is in image_anno.csv but not in {split_type}.csv" for i in sorted(annotated.keys() - split.keys())
    ]
    for image in sorted(split.keys() & annotated.keys()):
        if split[image] != annotated[image]:
            report.errors.append(f"{image}: {split_type}.csv says {split[image]}, image_anno.csv {annotated[image]}")


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
