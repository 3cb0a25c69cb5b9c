"""The paper's four setups: which images of one object a detector is trained on, and which it is tested on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from visa.data.objects import SPLIT_TYPES
from visa.data.source import Source
from visa.data.splits import Sample, select
from visa.errors import VisaError, check_choice
from visa.provenance import write_text

SETUPS = ("1cls", "2cls_highshot", "2cls_10shot", "2cls_5shot")
SHOTS = {"2cls_10shot": 10, "2cls_5shot": 5}
SPLIT_TYPE = {setup: "2cls_fewshot" if setup in SHOTS else setup for setup in SETUPS}


@dataclass(frozen=True)
class Split:
    """Training and test images of one object in one setup; `draw` numbers the few-shot draws, and is 0 elsewhere.

    Raises VisaError for an unknown setup, another object's image, or an image in both parts.
    """

    setup: str
    object: str
    draw: int
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    def __post_init__(self) -> None:
        check_choice("setup", self.setup, SETUPS)
        if others := {s.object for s in (*self.train, *self.test)} - {self.object}:
            raise VisaError(f"{self.setup} of {self.object} holds images of {', '.join(sorted(others))}.")
        if both := {s.image for s in self.train} & {s.image for s in self.test}:
            raise VisaError(f"{self.setup} of {self.object}: {min(both)} is in training and in test: leave one.")


def splits(source: Source, object: str, setup: str, draws: int = 5, seed: int = 0) -> list[Split]:
    """Return the official split of an object; for a few-shot setup `draws` of them, which share one test part.

    A few-shot draw takes k normal and k anomalous images, without replacement, from the training part of the official
    few-shot split. It depends on `seed` and the object's images alone, so that all backbones and methods get the same
    draws, and a greater `draws` keeps the first ones.
    Raises VisaError if a class has fewer than k images (see `obstacle`).
    """
    check_choice("setup", setup, SETUPS)
    samples = source.samples(SPLIT_TYPE[setup], object=object)
    test = tuple(select(samples, split="test"))
    if setup not in SHOTS:
        return [Split(setup, object, 0, tuple(select(samples, split="train")), test)]
    if reason := obstacle(source, object, setup):
        raise VisaError(reason)
    pools = _pools(samples)
    rng, k = np.random.default_rng(seed), SHOTS[setup]
    drawn = [[pool[i] for pool in pools for i in rng.choice(len(pool), k, replace=False)] for _ in range(draws)]
    return [Split(setup, object, draw, tuple(train), test) for draw, train in enumerate(drawn)]


def clean_normals(source: Source, object: str) -> list[Sample]:
    """Return the normal images of an object that are training images in every setup, sorted by path.

    A pre-training on these images alone sees no test image of any setup. VisA's three split files draw their training
    images independently: of fryum's 450 in 1cls, only 89 are training images in high-shot and few-shot, too.
    """
    training = [source.samples(t, object=object, split="train", label="normal") for t in SPLIT_TYPES]
    shared = set.intersection(*({s.image for s in samples} for samples in training))
    return sorted((s for s in training[0] if s.image in shared), key=lambda s: s.image)


def obstacle(source: Source, object: str, setup: str) -> str:
    """Say in one sentence why an object has too few images for a setup; return "" where it has enough."""
    check_choice("setup", setup, SETUPS)
    samples = source.samples(SPLIT_TYPE[setup], object=object)
    kinds = {"normal": "normal", "anomaly": "anomalous"}
    if absent := [kind for label, kind in kinds.items() if not select(samples, split="test", label=label)]:
        return f"{object} has no {' and no '.join(absent)} test image: nothing can be measured."
    normal, anomaly = map(len, _pools(samples))
    if setup == "1cls" and anomaly:
        return f"{object} has {anomaly} anomalous training images, but 1cls trains on normal ones: move them to test."
    needed = SHOTS.get(setup, 2)  # PaDiM's covariance needs two; high-shot: one to train on, one to test on
    if normal >= needed and (setup == "1cls" or anomaly >= needed):
        return ""
    others, each = ("", "") if setup == "1cls" else (f" and {anomaly} anomalous", " of each")
    return f"{object} has {normal} normal{others} training images: {setup} needs {needed}{each}."


def save_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write splits as JSON, atomically."""
    write_text(path, json.dumps([asdict(s) for s in splits], indent=1) + "\n")


def load_splits(path: Path) -> list[Split]:
    """Read and check splits of `save_splits`; raises VisaError if the file is missing or holds something else."""
    if not path.is_file():
        raise VisaError(f"no splits at {path}: draw and save them first.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts = [{part: tuple(Sample(**row) for row in split[part]) for part in ("train", "test")} for split in found]
        return [Split(**split | part) for split, part in zip(found, parts, strict=True)]
    except (ValueError, TypeError, KeyError) as error:
        raise VisaError(f"{path} holds no splits ({error}): draw and save them again.") from error


def _pools(samples: Sequence[Sample]) -> list[list[Sample]]:
    return [select(samples, split="train", label=label) for label in ("normal", "anomaly")]
