"""From a backbone and an object to scores and figures, setup by setup: what notebook 04 calls."""

import copy
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from visa.data.dataset import is_known, load_images, load_masks
from visa.data.images import upright_size
from visa.data.setups import SETUPS, Split, obstacle, save_splits, splits
from visa.data.source import Source
from visa.data.splits import Sample
from visa.detect.classifier import fit_classifier, score_images
from visa.detect.finetune import Labelled
from visa.detect.fitted import make_detector
from visa.detect.probe import PooledFeatures, score_probe
from visa.detect.scores import EVALUATION_SIZE, Scores, load_scores, save_scores
from visa.detect.two_class import TwoClass
from visa.detect.unet import fit_unet, score_unet
from visa.errors import check_choice
from visa.metrics import image_metrics, pixel_metrics
from visa.provenance import code_digest, digest, read_sidecar, sidecar_of, write_rows, write_sidecar

ONE_CLASS, TWO_CLASS = ("padim", "patchcore"), ("probe", "classifier", "unet")
DETECTORS = (*ONE_CLASS, *TWO_CLASS)
FIGURES = ("auroc", "au_pr", "ap", "f1_max", "au_pro")
FACTS = ("setup", "draw", "detector", "defect", "level", "metric", "value")
COLUMNS = ("dataset", "object", "setup", "draw", "pretraining", "seed", *FACTS[2:])
_FINE_TUNING = ("detect/finetune.py", "detect/two_class.py")
_ONE_CLASS_CODE = ("detect/fitted.py", "detect/shared.py")
_CODE = {  # scores stay good while other detectors' code changes
    "padim": ("detect/padim.py", *_ONE_CLASS_CODE),
    "patchcore": ("detect/patchcore.py", "detect/coreset.py", "detect/neighbors.py", *_ONE_CLASS_CODE),
    "probe": ("detect/probe.py",),
    "classifier": ("detect/classifier.py", *_FINE_TUNING),
    "unet": ("detect/unet.py", *_FINE_TUNING),
}
_ALL_CODE = ("backbone.py", "data/dataset.py", "data/images.py", "data/setups.py", "detect/scores.py")


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


def score_setups(
    evaluator: Evaluator,
    source: Source,
    object: str,
    folder: Path,
    detectors: Sequence[str] = DETECTORS,
    setups: Sequence[str] = SETUPS,
    draws: int = 5,
) -> Iterator[Scores]:
    """Scores of an object in each setup, by each of `detectors` that belongs to it, draw by draw.

    Each is written to `folder`/<setup>/<detector>/draw<n>/scores.npz with a sidecar as soon as it is there, the splits
    to `folder`/<setup>/splits.json. What was written before is read where backbone, data, settings and code are still
    the same, so that an interrupted run goes on where it stopped. A setup for which the object has too few images is
    left out with a sentence. Raises VisaError for an unknown detector, setup or object.
    """
    source.check_object(object)
    for detector in detectors:
        check_choice("detector", detector, DETECTORS)
    common = [weights_digest(evaluator.backbone), source.fingerprint(object)]
    for setup in setups:
        chosen = [d for d in detectors_of(setup) if d in detectors]
        if chosen and (reason := obstacle(source, object, setup)):
            print(f"{setup} is left out: {reason}")
        elif chosen:
            drawn = splits(source, object, setup, draws)
            save_splits(folder / setup / "splits.json", drawn)
            yield from (_resumed(evaluator, d, split, folder, common) for split in drawn for d in chosen)


def _resumed(evaluator: Evaluator, detector: str, split: Split, folder: Path, common: Sequence[str]) -> Scores:
    file = folder / split.setup / detector / f"draw{split.draw}" / "scores.npz"
    settings = evaluator.settings.of(detector)
    key = digest([*common, detector, settings, asdict(split), code_digest(*_ALL_CODE, *_CODE[detector])])
    if file.is_file() and (read_sidecar(file) or {}).get("key") == key:
        return load_scores(file)
    started = time.process_time()
    scores = evaluator.score(detector, split)
    sidecar_of(file).unlink(missing_ok=True)  # scores without a sidecar are unfinished
    save_scores(file, scores)
    write_sidecar(file, key, settings, cpu_seconds=time.process_time() - started)
    return scores


def weights_digest(backbone: nn.Module) -> str:
    """Digest of a backbone's weights and statistics, wherever they came from."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in backbone.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()[:16]


def score_metrics(scores: Scores, defects: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, object]]:
    """Rows of FACTS: image figures, and pixel figures at EVALUATION_SIZE where there are maps.

    `defect` is empty for all anomalies. With `defects`, the classes of each image by its path, there are rows for each
    class, too: of the normal images and those anomalous ones that show it, perhaps beside others. Pixel figures are of
    the images whose mask is known; where none of an anomaly is, they are left out with a sentence.
    """
    names = sorted({name for path in scores.paths for name in (defects or {}).get(path, ())})
    shows = {name: np.array([name in (defects or {}).get(path, ()) for path in scores.paths]) for name in names}
    chosen = {"": np.ones(len(scores.paths), bool)} | {n: (scores.labels == 0) | shows[n] for n in names}
    return [row for defect, keep in chosen.items() for row in _figures(scores, defect, keep)]


def _figures(scores: Scores, defect: str, keep: NDArray[np.bool_]) -> list[dict[str, object]]:
    levels = {"image": image_metrics(scores.image_scores[keep], scores.labels[keep])}
    known = keep & scores.known
    if scores.maps is not None and scores.masks is not None:
        if scores.masks[known].any():
            levels["pixel"] = pixel_metrics(scores.maps[known], scores.masks[known])
        else:
            what = f"{scores.object}, {scores.setup}" + (f", {defect}" if defect else "")
            print(f"{what}: no anomalous test image has a mask, so pixel figures are left out.")
    shared = {"setup": scores.setup, "draw": scores.draw, "detector": scores.detector, "defect": defect}
    return [
        {**shared, "level": level, "metric": name, "value": figures[name]}
        for level, figures in levels.items()
        for name in FIGURES
        if name in figures
    ]


def image_sizes(root: Path, paths: Sequence[str]) -> list[tuple[int, int]]:
    """Height and width of each image, upright."""
    return [upright_size(root / path) for path in paths]


def write_metrics(path: Path, rows: Sequence[Mapping[str, object]], **common: object) -> None:
    """Write rows as a long-format CSV with COLUMNS; `common` fills the columns that all rows share."""
    write_rows(path, COLUMNS, ({**common, **row} for row in rows))


def _labels(samples: Sequence[Sample]) -> Tensor:
    return torch.tensor([s.label == "anomaly" for s in samples], dtype=torch.long)
