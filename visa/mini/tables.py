"""Mini-VisA's names and tables: how many images, how they are called, what they show, and which train."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from visa.data.layouts import FEW_SHOT_LEAST, TRAINING_SHARES
from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.splits import COLUMNS, Sample, split_file
from visa.errors import VisaError, check_choice
from visa.mini.scene import KINDS, MODULES, classes_of
from visa.paths import written_whole

VERSION = 3  # of the generator: raise it whenever pixels, names or splits change
SMALL_1CLS = 2 / 3  # of the normal images, where numbers are given: VisA's share would leave too few to test on


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
        """Raise VisaError for an unknown object, or a setting that leaves a split empty."""
        for name in objects:
            check_choice("object of mini-VisA", name, MODULES)
        if not 0 <= self.scale <= 1 or (self.scale and any(name not in OBJECTS for name in objects)):
            raise VisaError(f"scale {self.scale}: it is a share of VisA's own numbers, up to 1, for VisA's objects.")
        if not objects or self.seed < 0 or any(self.counts(o)[0] < 3 or self.counts(o)[1] < 2 for o in objects):
            raise VisaError("mini-VisA needs an object, 3 normal and 2 anomalous images or more, and a seed from 0 on.")
        if self.size < 64 or self.difficulty <= 0:
            raise VisaError("mini-VisA needs a size of at least 64 pixels and a difficulty above 0.")

    def info(self) -> dict[str, Any]:
        """What `dataset.json` says."""
        return {"name": "mini-VisA", "synthetic": True, "generator_version": VERSION, **asdict(self)}

    def counts(self, name: str) -> tuple[int, int]:
        """How many normal and anomalous images an object has."""
        if not self.scale:
            return self.normal, self.anomaly
        return round(self.scale * OBJECTS[name].normal), round(self.scale * OBJECTS[name].anomaly)

    def training_counts(self, split_type: str, name: str) -> tuple[int, int]:
        """How many of an object's normal and anomalous images train; the rest is for test.

        VisA's own shares, but for 1cls where numbers of images are given, and at least ten for few-shot training.
        """
        normal, anomaly = self.counts(name)
        share = TRAINING_SHARES[split_type]
        if split_type == "1cls":
            return round((share if self.scale else SMALL_1CLS) * normal), 0
        least = FEW_SHOT_LEAST if split_type == "2cls_fewshot" else 0
        return max(round(share * normal), min(least, normal // 2)), max(
            round(share * anomaly), min(least, anomaly // 2)
        )

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
    for split_type in reversed(SPLIT_TYPES):
        samples = [astuple(s) for name in objects for s in _split(settings, split_type, name)]
        _write_csv(split_file(root, split_type), COLUMNS, samples, "\r\n")


def _split(settings: Settings, split_type: str, name: str) -> list[Sample]:
    """The rows of one object: training before test, normal before anomalous, in shuffled order, as in VisA."""
    rng = np.random.default_rng([settings.seed, crc32(name.encode()), crc32(split_type.encode())])
    train: list[Sample] = []
    test: list[Sample] = []
    training = settings.training_counts(split_type, name)
    for kind, total, first in zip(KINDS, settings.counts(name), training, strict=True):
        for place, index in enumerate(rng.permutation(total)):
            paths = settings.image(name, kind, index), settings.mask(name, kind, index)
            sample = Sample(name, "train", kind.lower(), *paths)
            (train if place < first else test).append(sample)
    return train + [replace(s, split="test") for s in test]


def _write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[str]], end: str) -> None:
    with written_whole(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator=end)
        writer.writerow(header)
        writer.writerows(rows)
