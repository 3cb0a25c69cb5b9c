"""Read folders without split files as rows, in MVTec-AD's layout or as plain good/, bad/, masks/."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visa.data.objects import SPLIT_TYPES
from visa.data.splits import CONTROL, Sample, check_object_name, read_split, split_file
from visa.errors import VisaError, check_choice

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")  # in either case
TRAINING_SHARES = {"1cls": 0.9, "2cls_highshot": 0.6, "2cls_fewshot": 0.2}  # as in VisA
TEST_LEAST = 5  # normal images that 1cls keeps for test: fewer would say little about false alarms
FEW_SHOT_LEAST = 10  # images of each label for few-shot training, so that ten shots can be drawn
FEW_SHOT_NORMAL = 0.5  # share of normal images to train on: with VisA's, few would be training images in every setup


@dataclass(frozen=True)
class Part:
    """The folders of one object; all paths are relative to the root.

    `train` and `test` hold normal images; `test` is "" if there is no such folder. `anomalies` are pairs: a folder of
    anomalous images and the folder of their masks.
    """

    name: str
    train: str
    test: str
    anomalies: tuple[tuple[str, str], ...]


def find_parts(root: Path) -> list[Part]:
    """Find the objects of a root without split files, sorted by name: its folders, or the root itself as one object.

    A folder is an object if it holds train/good (MVTec-AD's layout) or good (plain folders). Raises VisaError if there
    is no object, or if an object's name cannot be used.
    """
    if found := _part(root, "", (root if root.name not in ("", "..") else root.resolve()).name):
        parts = [found]
    else:
        parts = [part for f in _visible(root) if (part := _part(root, f"{f.name}/", f.name))]
    if not parts:
        raise VisaError(
            f"no split file at {split_file(root, '1cls')}, nor folders to make splits of: give a VisA root, or folders "
            "<object>/good with <object>/bad and <object>/masks, or MVTec-AD's <object>/train/good and <object>/test."
        )
    for part in parts:
        check_object_name(part.name, root)
    return parts


def root_samples(root: Path, split_type: str) -> list[Sample]:
    """Return the rows of a split: read from split_csv/ if the root has it, else made from its folders.

    MVTec-AD's folders are its 1cls split. Every other split takes a share of an object's images for training: 1cls
    90 % of the normal ones (at least 5 stay for test if there are 10), 2cls_highshot 60 % of each label, as in VisA,
    and 2cls_fewshot half of the normal and 20 % of the anomalous ones (at least 10 if there are 20). A hash of the
    names picks them, so splits are reproducible and nested: training images of a smaller split are in every larger one.
    Raises VisaError as `read_split` and `find_parts` do, and for a file name with control characters or bytes that
    are not UTF-8.
    """
    check_choice("split type", split_type, SPLIT_TYPES)
    if (root / "split_csv").is_dir():
        return read_split(split_file(root, split_type))
    return [s for part in find_parts(root) for s in _part_samples(root, part, split_type)]


def images_in(folder: Path) -> list[str]:
    """List the image files of a folder, none without one, sorted, no hidden ones. Raises VisaError for bad names."""
    names = [f.name for f in _visible(folder) if f.suffix.lower() in SUFFIXES and f.is_file()]
    for name in names:
        if re.search(rf"[{CONTROL}\ud800-\udfff]", name):  # the last are bytes that are no UTF-8
            raise VisaError(f"{str(folder / name)!a} has a control character or no UTF-8 in its name: rename it.")
    return names


def masks_of(images: Sequence[str], masks: Sequence[str]) -> dict[str, str]:
    """Find the mask file of each image that has one: with the same stem, or the stem and `_mask`."""
    by_stem = {Path(mask).stem: mask for mask in masks}
    found = {image: by_stem.get(Path(image).stem) or by_stem.get(f"{Path(image).stem}_mask") for image in images}
    return {image: mask for image, mask in found.items() if mask}


def _visible(folder: Path) -> list[Path]:
    """List the entries of a folder, sorted, hidden ones left out; empty if there is no such folder."""
    return sorted(f for f in folder.iterdir() if not f.name.startswith(".")) if folder.is_dir() else []


def _part(root: Path, prefix: str, name: str) -> Part | None:
    folder = root / prefix
    if (folder / "train/good").is_dir():
        defects = [f.name for f in _visible(folder / "test") if f.is_dir() and f.name != "good"]
        anomalies = tuple((f"{prefix}test/{d}", f"{prefix}ground_truth/{d}") for d in defects)
        return Part(name, f"{prefix}train/good", f"{prefix}test/good", anomalies)
    if (folder / "good").is_dir():
        return Part(name, f"{prefix}good", "", ((f"{prefix}bad", f"{prefix}masks"),))
    return None


def _part_samples(root: Path, part: Part, split_type: str) -> list[Sample]:
    """Make an object's rows: training before test, normal before anomalous, then by name."""
    train, test = ([f"{f}/{name}" for name in images_in(root / f)] if f else [] for f in (part.train, part.test))
    masks: dict[str, str] = {}  # of each anomalous image; "" where it has none
    for folder, mask_folder in part.anomalies:
        images = images_in(root / folder)
        found = masks_of(images, images_in(root / mask_folder))
        masks |= {f"{folder}/{image}": f"{mask_folder}/{found[image]}" if image in found else "" for image in images}
    chosen = set(train)
    if split_type != "1cls" or not test:
        pools = {"normal": train + test, "anomaly": list(masks)}
        chosen = {i for label, images in pools.items() for i in _training(split_type, label, images, part, set(test))}
    labelled = [(image, "normal", "") for image in train + test]
    labelled += [(image, "anomaly", mask) for image, mask in masks.items()]
    rows = [Sample(part.name, "train" if i in chosen else "test", label, i, mask) for i, label, mask in labelled]
    return [s for split in ("train", "test") for s in rows if s.split == split]


def _training(split_type: str, label: str, images: Sequence[str], part: Part, last: set[str]) -> list[str]:
    """Pick the training images: those whose paths below the object's folder hash lowest; `last` are picked last."""
    half = len(images) // 2
    few_normal = split_type == "2cls_fewshot" and label == "normal"
    count = round((FEW_SHOT_NORMAL if few_normal else TRAINING_SHARES[split_type]) * len(images))
    if split_type == "1cls":
        count = 0 if label == "anomaly" else min(count, len(images) - min(TEST_LEAST, half))
    if split_type == "2cls_fewshot":
        count = max(count, min(FEW_SHOT_LEAST, half))
    hashes = {i: hashlib.sha256(i.removeprefix(f"{part.name}/").encode()).hexdigest() for i in images}
    return sorted(images, key=lambda image: (image in last, hashes[image]))[:count]
