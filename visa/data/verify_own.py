"""Check objects that are not VisA's: no published counts and classes, but everything that scoring relies on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from visa.data.dataset import read_image, read_mask
from visa.data.layouts import TEST_LEAST, Part, images_in, masks_of
from visa.data.report import ObjectReport
from visa.data.splits import Sample, select
from visa.errors import VisaError


def verify_rows(
    root: Path, name: str, samples: Sequence[Sample], workers: int | None = None, progress: bool = False
) -> ObjectReport:
    """Check the images and masks of an object's 1cls rows, and warn of what they do not let measure."""
    normal, anomaly = select(samples, label="normal"), select(samples, label="anomaly")
    report = ObjectReport(name, absent=not normal, normal=len(normal), anomaly=len(anomaly))
    if misplaced := select(anomaly, split="train"):
        report.errors.append(f"{misplaced[0].image} is an anomaly in 1cls training: normal images alone train there")
    _warn_of_limits(samples, report)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda sample: _image_error(root, sample), samples)
        report.errors += [e for e in tqdm(found, name, len(samples), disable=not progress) if e]
    return report


def verify_part(
    root: Path, part: Part, samples: Sequence[Sample], workers: int | None = None, progress: bool = False
) -> ObjectReport:
    """`verify_rows` for an object of folders, with what lies in them and is not read."""
    report = verify_rows(root, part.name, samples, workers, progress)
    if report.absent:
        report.errors.append(f"{root / part.train} holds no images")
    for folder in filter(None, (part.train, part.test, *(a for a, _ in part.anomalies))):
        _warn_of_folder(root, folder, report)
    for folder, mask_folder in part.anomalies:
        _check_mask_folder(root, folder, mask_folder, report)
    return report


def _warn_of_limits(samples: Sequence[Sample], report: ObjectReport) -> None:
    bare = [s.image for s in samples if s.label == "anomaly" and not s.mask]
    held_out = len(select(samples, label="normal", split="test"))
    if bare:
        report.warnings.append(
            f"{len(bare)} of {report.anomaly} anomalies have no mask ({bare[0]}, ...): pixel figures leave them out"
        )
    if not report.anomaly:
        report.warnings.append("no anomalies: detectors can be fitted and can score, but nothing can be measured")
    if report.normal and held_out < TEST_LEAST:
        nothing = "nothing can be measured, and " if not held_out else ""
        report.warnings.append(
            f"{held_out} normal images for 1cls test: {nothing}pre-training needs {TEST_LEAST} to judge what it learned"
        )


def _warn_of_folder(root: Path, folder: str, report: ObjectReport) -> None:
    images = images_in(root / folder)
    if not (root / folder).is_dir():
        return
    if not images and not report.absent:
        report.warnings.append(f"{folder} holds no images")
    unread = sorted(f.name for f in (root / folder).iterdir() if f.name not in images and not f.name.startswith("."))
    if unread:
        report.warnings.append(f"{folder} holds {len(unread)} entries that are no image files ({unread[0]}, ...)")


def _check_mask_folder(root: Path, folder: str, mask_folder: str, report: ObjectReport) -> None:
    images, masks = images_in(root / folder), images_in(root / mask_folder)
    used = list(masks_of(images, masks).values())
    report.errors += [f"{mask_folder}/{m} is the mask of several images of {folder}" for m in _twice(used)]
    if unused := sorted(set(masks) - set(used)):
        more = f" and {len(unused) - 1} more fit" if unused[1:] else " fits"
        report.warnings.append(f"{mask_folder}/{unused[0]}{more} no image of {folder}")


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _image_error(root: Path, sample: Sample) -> str:
    """What is wrong with an image or its mask; empty if nothing is."""
    try:
        size = read_image(root / sample.image).shape[1:]
        mask = read_mask(root / sample.mask) if sample.mask else None
    except VisaError as error:
        return str(error)
    if mask is not None and mask.shape != size:
        return f"{sample.mask} is {tuple(mask.shape)}, its image {sample.image} {tuple(size)} (height, width)"
    return f"{sample.mask} marks no pixel of its anomaly" if mask is not None and not mask.any() else ""
