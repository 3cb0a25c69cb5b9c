"""Check a root in any layout: tables, images and masks must agree, and VisA must have the published counts.

Objects that are not VisA's have no published counts and classes; for them, only what scoring needs is checked.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from visa.data.dataset import read_image, read_mask
from visa.data.layouts import Part, find_parts, images_in, masks_of, root_samples
from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.source import MINI_VISA, VISA, Annotated, annotations, dataset_name
from visa.data.splits import Sample, is_synthetic, present_objects, select
from visa.errors import VisaError, check_choice


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
        """Whether the object is present and has no errors."""
        return not self.absent and not self.errors


def verify(
    root: Path, objects: Sequence[str] | None = None, workers: int | None = None, progress: bool = False
) -> list[ObjectReport]:
    """Report on each of `objects` (default: every object that the root names) of a root in any layout.

    An object without a folder is reported as `absent`; the root stays usable for the others. All images and masks are
    decoded, in `workers` threads. Only VisA's counts are compared with the published ones, and only VisA's and
    mini-VisA's class ids are checked. Raises VisaError for an unknown object or layout.
    """
    root = Path(root)
    splits = {split_type: root_samples(root, split_type) for split_type in SPLIT_TYPES}
    known = list(dict.fromkeys(s.object for rows in splits.values() for s in rows))
    parts = {} if (root / "split_csv").is_dir() else {part.name: part for part in find_parts(root)}
    official = not parts and (dataset_name(root, tuple(known)) in (VISA, MINI_VISA) or is_synthetic(root))
    classes = {name: about.classes for name, about in OBJECTS.items()} if official else {}
    for name in objects or ():
        check_choice("object", name, parts or dict.fromkeys((*known, *classes)))
    reports = []
    for name in objects or list(parts) or known:
        mine = {split_type: select(samples, object=name) for split_type, samples in splits.items()}
        if not parts and not (root / name).is_dir() and not present_objects(root, mine["1cls"]):
            reports.append(ObjectReport(name, absent=True))
            continue
        report, rows = _official(root, name, mine) if name in classes else _own(root, name, mine, parts.get(name))
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(partial(_check_image, root, classes.get(name, ())), rows)
            for errors, warnings in tqdm(found, name, len(rows), disable=not progress):
                report.errors += errors
                report.warnings += warnings
        reports.append(report)
    return reports


def _official(root: Path, name: str, splits: dict[str, list[Sample]]) -> tuple[ObjectReport, Annotated]:
    """Check an object of VisA or mini-VisA by its annotations; also return the rows whose images are to be checked."""
    report = ObjectReport(name)
    try:
        annotated = annotations(root, name)
    except VisaError as error:
        report.errors.append(str(error))
        return report, []
    rows = [row for row, _ in annotated]
    counts = Counter(row.label for row in rows)
    report.normal, report.anomaly = counts["normal"], counts["anomaly"]
    listed = [path for row in rows for path in (row.image, row.mask) if path]
    report.errors += [f"{path} stands in image_anno.csv twice" for path, n in Counter(listed).items() if n > 1]
    files = (p for p in (root / name / "Data").rglob("*") if p.is_file() and not p.name.startswith("."))
    unlisted = sorted({p.relative_to(root).as_posix() for p in files} - set(listed))
    report.warnings += [f"{path} is not in image_anno.csv" for path in unlisted]
    for split_type, samples in splits.items():
        _compare(f"{split_type}.csv", samples, "image_anno.csv", rows, report)
    if not is_synthetic(root):
        published = {"normal": OBJECTS[name].normal, "anomaly": OBJECTS[name].anomaly}
        odd = [(label, n) for label, n in published.items() if counts[label] != n]
        report.errors += [f"{counts[label]} {label} images, the paper counts {n}" for label, n in odd]
    unmasked = [(row, defects) for row, defects in annotated if defects and not row.mask]
    report.errors += [f"{row.image} is labelled {', '.join(defects)} but has no mask" for row, defects in unmasked]
    return report, annotated


def _own(root: Path, name: str, splits: dict[str, list[Sample]], part: Part | None) -> tuple[ObjectReport, Annotated]:
    """Check an object that is not VisA's by its 1cls rows; `part` is given if it has folders but no split files."""
    samples = splits["1cls"]
    normal, anomaly = select(samples, label="normal"), select(samples, label="anomaly")
    report = ObjectReport(name, absent=not normal, normal=len(normal), anomaly=len(anomaly))
    if misplaced := select(anomaly, split="train"):
        report.errors.append(f"{misplaced[0].image} is an anomaly in 1cls training: normal images alone train there")
    if bare := [s.image for s in anomaly if not s.mask]:
        told = f"{len(bare)} of {report.anomaly} anomalies have no mask ({bare[0]}, ...)"
        report.warnings.append(f"{told}: pixel metrics leave them out")
    if not anomaly:
        report.warnings.append("no anomalies: detectors can be fitted and can score, but nothing can be measured")
    if normal and not select(normal, split="test"):
        report.warnings.append("no normal image for 1cls test: nothing can be measured")
    if part:
        _check_folders(root, part, report)
    else:
        for split_type in SPLIT_TYPES[1:]:
            _compare(f"{split_type}.csv", splits[split_type], "1cls.csv", samples, report)
        if (root / name / "image_anno.csv").is_file():
            _compare("1cls.csv", samples, "image_anno.csv", [row for row, _ in annotations(root, name)], report)
    return report, [(s, ()) for s in samples]


def _compare(table: str, samples: Sequence[Sample], other: str, rows: Sequence[Sample], report: ObjectReport) -> None:
    """Report an error for each image, label or mask that differs between two tables of an object."""
    mine, theirs = ({row.image: (row.label, row.mask) for row in each} for each in (samples, rows))
    report.errors += [f"{image} is in {table} but not in {other}" for image in sorted(mine.keys() - theirs.keys())]
    report.errors += [f"{image} is in {other} but not in {table}" for image in sorted(theirs.keys() - mine.keys())]
    odd = [image for image in sorted(mine.keys() & theirs.keys()) if mine[image] != theirs[image]]
    report.errors += [f"{image}: {table} says {mine[image]}, {other} {theirs[image]}" for image in odd]


def _check_folders(root: Path, part: Part, report: ObjectReport) -> None:
    """Report files in an object's folders that are not read, and masks that are read twice."""
    if report.absent:
        report.errors.append(f"{root / part.train} holds no images")
    for folder in filter(None, (part.train, part.test, *(a for a, _ in part.anomalies))):
        if not (root / folder).is_dir():
            continue
        images = images_in(root / folder)
        if not images and not report.absent:
            report.warnings.append(f"{folder} holds no images")
        if unread := sorted(f.name for f in (root / folder).iterdir() if f.name not in images and f.name[0] != "."):
            report.warnings.append(f"{folder} holds {len(unread)} entries that are not image files ({unread[0]}, ...)")
    for folder, mask_folder in part.anomalies:
        masks = images_in(root / mask_folder)
        used = Counter(masks_of(images_in(root / folder), masks).values())
        twice = sorted(mask for mask, count in used.items() if count > 1)
        report.errors += [f"{mask_folder}/{mask} is the mask of several images of {folder}" for mask in twice]
        if unused := sorted(set(masks) - set(used)):
            more = f" and {len(unused) - 1} more fit" if unused[1:] else " fits"
            report.warnings.append(f"{mask_folder}/{unused[0]}{more} no image of {folder}")


def _check_image(
    root: Path, known: Sequence[str], annotated: tuple[Sample, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Return errors and warnings for one image and its mask; `known` names the class ids, if they have names."""
    row, defects = annotated
    try:
        size = read_image(root / row.image).shape[1:]
        mask = read_mask(root / row.mask) if row.mask else None
    except VisaError as error:
        return [str(error)], []
    if mask is None:
        return [], []
    errors = []
    if mask.shape != size:
        errors.append(f"{row.mask} is {tuple(mask.shape)}, its image {row.image} {tuple(size)} (height, width)")
    ids = [i for i in torch.unique(mask).tolist() if i]
    if not known:
        return errors + ([] if ids else [f"{row.mask} marks no pixel of its anomaly"]), []
    if bool(ids) != bool(defects):
        errors.append(f"{row.mask} marks {len(ids)} classes, but image_anno.csv says {row.label}")
    errors += [f"{row.mask} holds the class id {i}; {row.object} has 1 to {len(known)}" for i in ids if i > len(known)]
    marked = {known[i - 1] for i in ids if i <= len(known)}
    if errors or marked == set(defects):
        return errors, []
    return [], [f"{row.mask} marks {', '.join(sorted(marked))}; image_anno.csv says {', '.join(sorted(defects))}"]
