"""Mini-VisA's names and tables: how many images, how they are called, what they show, and which train."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from visa.mini.scene import KINDS, MODULES, VISA_COUNTS, check_known, classes_of

VERSION = 3  # of the generator: raise it whenever pixels, names or splits change
TRAINING_SHARES = {"1cls": 0.9, "2cls_highshot": 0.6, "2cls_fewshot": 0.2}  # of each label's images, as in VisA
SMALL_1CLS = 2 / 3  # of the normal images, where numbers are given: VisA's share would leave too few to test on
FEW_SHOT_LEAST = 10  # images of each label for few-shot training, so that ten shots can be drawn


@dataclass(frozen=True)
class Settings:
    """What a mini-VisA is made from, beside its objects: pixels and splits depend on nothing else.

    Every object has `normal` and `anomaly` images, or, with a `scale` above 0, that share of VisA's own counts.
    """

    normal: int = 90
    anomaly: int = 30
    scale: float = 0.0
    size: int = 256
    seed: int = 0
    difficulty: float = 1.0

    def check(self, objects: Sequence[str]) -> None:
        """Raise ValueError for an unknown object, or a setting that leaves a split empty."""
        for name in objects:
            check_known("object of mini-VisA", name, MODULES)
        if not 0 <= self.scale <= 1 or (self.scale and any(name not in VISA_COUNTS for name in objects)):
            raise ValueError(f"scale {self.scale}: it is a share of VisA's own numbers, up to 1, for VisA's objects.")
        if not objects or self.seed < 0 or any(self.counts(o)[0] < 3 or self.counts(o)[1] < 2 for o in objects):
            raise ValueError(
                "mini-VisA needs an object, 3 normal and 2 anomalous images or more, and a seed from 0 on."
            )
        if self.size < 64 or self.difficulty <= 0:
            raise ValueError("mini-VisA needs a size of at least 64 pixels and a difficulty above 0.")

    def info(self) -> dict[str, Any]:
        """What `dataset.json` says."""
        return {"name": "mini-VisA", "synthetic": True, "generator_version": VERSION, **asdict(self)}

    def counts(self, name: str) -> tuple[int, int]:
        """How many normal and anomalous images an object has."""
        if not self.scale:
            return self.normal, self.anomaly
        normal, anomaly = VISA_COUNTS[name]
        return round(self.scale * normal), round(self.scale * anomaly)

    def training_counts(self, split_type: str, name: str) -> tuple[int, int]:
        """How many of an object's normal and anomalous images train; the rest is for test.

        VisA's own shares, but for 1cls where numbers of images are given, and at least ten for few-shot training.
        """
        share = TRAINING_SHARES[split_type]
        least = FEW_SHOT_LEAST if split_type == "2cls_fewshot" else 0
        normal, anomaly = (max(round(share * n), min(least, n // 2)) for n in self.counts(name))
        if split_type == "1cls":
            return normal if self.scale else round(SMALL_1CLS * self.normal), 0
        return normal, anomaly

    def image(self, name: str, kind: str, index: int) -> str:
        """An image's path in the root."""
        return f"{name}/Data/Images/{kind}/{self._number(name, index)}.JPG"

    def mask(self, name: str, kind: str, index: int) -> str:
        """Its mask's path; empty for a normal image."""
        return f"{name}/Data/Masks/Anomaly/{self._number(name, index)}.png" if kind == "Anomaly" else ""

    def _number(self, name: str, index: int) -> str:
        """Three digits, or four for an object with 1,000 images of a kind and more, as in VisA."""
        return f"{index:0{3 if max(self.counts(name)) < 1000 else 4}d}"


def write_annotations(root: Path, settings: Settings, name: str) -> None:
    """Write an object's image_anno.csv, which names each image's defects."""
    normal, anomaly = settings.counts(name)
    labels = [("Normal", i, "normal") for i in range(normal)]
    labels += [("Anomaly", i, ",".join(classes_of(name, i, settings.seed))) for i in range(anomaly)]
    rows = [(settings.image(name, k, i), label, settings.mask(name, k, i)) for k, i, label in labels]
    _write_csv(root / name / "image_anno.csv", ("image", "label", "mask"), rows, "\n")


def write_splits(root: Path, settings: Settings, objects: Sequence[str]) -> None:
    """Write the split files of `objects`; 1cls, which says what is there, last."""
    for split_type in reversed(TRAINING_SHARES):
        rows = [row for name in objects for row in _split(settings, split_type, name)]
        file = root / "split_csv" / f"{split_type}.csv"
        _write_csv(file, ("object", "split", "label", "image", "mask"), rows, "\r\n")


def split_objects(root: Path) -> list[str]:
    """The objects that the 1cls split file names, in its order; none where there is no such file."""
    file = root / "split_csv" / "1cls.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(dict.fromkeys(row["object"] for row in csv.DictReader(stream)))


def _split(settings: Settings, split_type: str, name: str) -> list[tuple[str, ...]]:
    """The rows of one object: training before test, normal before anomalous, in shuffled order, as in VisA."""
    rng = np.random.default_rng([settings.seed, crc32(name.encode()), crc32(split_type.encode())])
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "test": []}
    training = settings.training_counts(split_type, name)
    for kind, total, first in zip(KINDS, settings.counts(name), training, strict=True):
        for place, index in enumerate(rng.permutation(total)):
            split, image = "train" if place < first else "test", settings.image(name, kind, index)
            rows[split].append((name, split, kind.lower(), image, settings.mask(name, kind, index)))
    return rows["train"] + rows["test"]


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[str]], end: str) -> None:
    """Write a table whole or not at all; nobody else writes into the root (see `visa.mini.writer`)."""
    file.parent.mkdir(exist_ok=True)
    partial = file.with_name(f".{file.name}.new")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator=end)
        writer.writerow(header)
        writer.writerows(rows)
    partial.replace(file)
