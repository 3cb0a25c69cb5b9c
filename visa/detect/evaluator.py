"""Any detector on one backbone, trained and scored by one split of an object."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from visa.data.dataset import is_known, load_images, load_masks
from visa.data.setups import SETUPS, Split
from visa.data.splits import Sample
from visa.detect.classifier import fit_classifier, score_images
from visa.detect.finetune import Labelled
from visa.detect.fitted import make_detector
from visa.detect.probe import PooledFeatures, score_probe
from visa.detect.scores import EVALUATION_SIZE, Scores
from visa.detect.two_class import TwoClass
from visa.detect.unet import fit_unet, score_unet
from visa.errors import check_choice

ONE_CLASS, TWO_CLASS = ("padim", "patchcore"), ("probe", "classifier", "unet")
DETECTORS = (*ONE_CLASS, *TWO_CLASS)


@dataclass(frozen=True)
class ScoreSettings:
    """What scores depend on beside backbone and data: the seed of every detector, and their settings."""

    seed: int = 0
    coreset_ratio: float = 0.01
    two_class: TwoClass = field(default_factory=TwoClass)

    def of(self, detector: str) -> dict[str, Any]:
        """The settings that one detector reads."""
        own: dict[str, dict[str, Any]] = {
            "padim": {"seed": self.seed},
            "patchcore": {"seed": self.seed, "ratio": self.coreset_ratio},
            "probe": {},  # convex: no seed
        }
        return own.get(detector, {"seed": self.seed, **asdict(self.two_class)})


@dataclass
class Evaluator:
    """Scores splits of the objects below `root` with any detector on one backbone, which stays as it is."""

    backbone: nn.Module
    root: Path
    settings: ScoreSettings = field(default_factory=ScoreSettings)
    progress: bool = False

    def score(self, detector: str, split: Split) -> Scores:
        """Train `detector` on the split's training images and score its test images.

        `padim` and `patchcore` belong to the setup 1cls, `probe`, `classifier` and `unet` to the others. Maps and masks
        have EVALUATION_SIZE. Raises VisaError for a detector that does not fit the setup.
        """
        check_choice(f"detector for {split.setup}", detector, detectors_of(split.setup))
        scores, maps = getattr(self, f"_{detector}" if detector in TWO_CLASS else "_one_class")(detector, split)
        masks = None if maps is None else load_masks(self.root, split.test, EVALUATION_SIZE)[0].numpy()
        return Scores(
            paths=[s.image for s in split.test],
            labels=np.array([s.label == "anomaly" for s in split.test], np.uint8),
            image_scores=scores,
            maps=maps,
            masks=masks,
            known=np.array([is_known(s) for s in split.test], np.bool_),
            setup=split.setup,
            object=split.object,
            detector=detector,
            draw=split.draw,
        )

    @cached_property
    def _features(self) -> PooledFeatures:
        return PooledFeatures(self.backbone, self.root, self.progress)

    def _one_class(self, detector: str, split: Split) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        fitted = make_detector(detector, self.backbone, settings=self.settings.of(detector))
        fitted.fit(self._batches(split.train), progress=self.progress)
        scores, maps = zip(*(fitted.score(images) for images in self._batches(split.test)), strict=True)
        return np.concatenate(scores), np.concatenate(maps)

    def _probe(self, detector: str, split: Split) -> tuple[NDArray[np.float32], None]:
        return score_probe(self._features, split), None

    def _classifier(self, detector: str, split: Split) -> tuple[NDArray[np.float32], None]:
        backbone, s = copy.deepcopy(self.backbone), self.settings.two_class
        images = load_images(self.root, split.train, s.size)
        model = fit_classifier(backbone, images, _labels(split.train), s, self.settings.seed, self.progress)
        return score_images(model, load_images(self.root, split.test, s.size), s.precision, self.progress), None

    def _unet(self, detector: str, split: Split) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        backbone, s = copy.deepcopy(self.backbone), self.settings.two_class
        train = [sample for sample in split.train if is_known(sample)]
        if unusable := len(split.train) - len(train):
            print(f"{split.object}, {split.setup}: {unusable} anomalies without a mask do not train the U-Net.")
        masks, _ = load_masks(self.root, train, s.size)
        data = Labelled(load_images(self.root, train, s.size), masks, _labels(train))
        model = fit_unet(backbone, data, s, self.settings.seed, self.progress)
        images = load_images(self.root, split.test, s.size)
        return score_unet(model, images, EVALUATION_SIZE, s.precision, self.progress)

    def _batches(self, samples: Sequence[Sample]) -> Iterator[Tensor]:
        device = next(self.backbone.parameters()).device
        images = load_images(self.root, samples, EVALUATION_SIZE, progress=self.progress)
        return (part.to(device).float() / 255 for part in torch.split(images, 16))


def detectors_of(setup: str) -> tuple[str, ...]:
    """The detectors that a setup's training images can train."""
    check_choice("setup", setup, SETUPS)
    return ONE_CLASS if setup == "1cls" else TWO_CLASS


def _labels(samples: Sequence[Sample]) -> Tensor:
    return torch.tensor([s.label == "anomaly" for s in samples], dtype=torch.long)
