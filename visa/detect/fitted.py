"""A fitted detector as one file for the line: its state, its backbone, the input size and a threshold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from visa.backbone import STAGES, FeatureMaps, create_backbone
from visa.detect import padim, patchcore
from visa.detect.files import ImageBatches
from visa.detect.shared import Scored, check_settings, load_state, save_state, seeded
from visa.errors import VisaError, check_choice
from visa.provenance import machine

DETECTORS = ("padim", "patchcore")
Detector = padim.PaDiM | patchcore.PatchCore
_FORMAT = "visa detector 1"
_BACKBONE, _DETECTOR = "backbone.", "detector."
_SIDES = (32, 4096)
HELD_OUT = 0.1  # of the normal images, for the threshold


@dataclass(frozen=True)
class FittedDetector:
    """All that scoring an image needs.

    `size` (height, width) is what images are resized to; an image whose score exceeds `threshold` counts as anomalous,
    and `rule` says how that was found. `heat` are the map values at which a heat map begins and ends to colour.
    """

    kind: str
    arch: str
    backbone: nn.Module
    detector: Detector
    size: tuple[int, int]
    layers: tuple[str, ...]
    threshold: float
    rule: str
    heat: tuple[float, float]
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the backbone lies, and images have to."""
        return next(self.backbone.parameters()).device

    def score(self, images: Tensor) -> Scored:
        """Image scores (N,) and anomaly maps (N, height, width) of images N,3,height,width in [0,1].

        Raises VisaError if a score is NaN or infinite.
        """
        scores, maps = self.detector.score(images)
        if not np.isfinite(scores).all() or not np.isfinite(maps).all():
            raise VisaError("the detector gives NaN or infinite scores: its backbone diverged; fit another.")
        return scores, maps


def make_detector(
    kind: str, backbone: nn.Module, layers: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> Detector:
    """An unfitted `padim` or `patchcore` on stages of a backbone (none: the paper's), with settings by their names.

    PaDiM draws the paper's number of channels unless `n_channels` is set.
    Raises VisaError for an unknown name, or a value out of its range.
    """
    check_choice("detector", kind, DETECTORS)
    module: Any = {"padim": padim, "patchcore": patchcore}[kind]
    for name in settings or {}:
        check_choice(f"setting of {kind}", name, module.BOUNDS)
    stages = tuple(layers) or module.LAYERS
    if len(set(stages)) < len(stages):
        raise VisaError(f"a layer is given twice: {', '.join(stages)}.")
    extract = FeatureMaps(backbone, tuple(sorted(stages)))
    values = dict(settings or {})
    if kind == "padim" and "n_channels" not in values:
        blank = torch.zeros(1, 3, 64, 64, device=next(backbone.parameters()).device)
        values["n_channels"] = padim.default_channels(sum(m.shape[1] for m in extract(blank)))
    detector: Detector = padim.PaDiM(extract, **values) if kind == "padim" else patchcore.PatchCore(extract, **values)
    check_settings(kind, detector.state()[1], module.BOUNDS, module.OPTIONAL)
    return detector


def fit_detector(
    kind: str,
    arch: str,
    backbone: nn.Module,
    files: Sequence[Path],
    size: tuple[int, int],
    layers: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    false_alarms: float = 0.05,
    progress: bool = False,
) -> FittedDetector:
    """Fit a detector on normal images, resized to `size` = (height, width), all but a tenth, which sets the threshold.

    That tenth is drawn from the setting `seed`. The threshold follows `conformal_threshold`. Heat maps begin to colour
    at the median of the held-out images' maps, and end at twice as far from it as their highest value.
    Raises VisaError for fewer than three images, one that cannot be read, or settings out of range.
    """
    if len(files) < 3:
        raise VisaError(f"{len(files)} normal images are too few: two fit a detector and one sets its threshold.")
    if not 0 < false_alarms < 1:
        raise VisaError(f"the share of false alarms is {false_alarms}: give one between 0 and 1.")
    _check_size(size)
    detector = make_detector(kind, backbone, layers, settings)
    order = torch.randperm(len(files), generator=seeded(detector.seed)).tolist()
    count = max(1, round(HELD_OUT * len(files)))
    held, training = ([files[i] for i in sorted(part)] for part in (order[:count], order[count:]))
    device = next(backbone.parameters()).device
    detector.fit(ImageBatches(training, size, device), progress)
    batches = tqdm(ImageBatches(held, size, device), "threshold", disable=not progress)
    scored = [detector.score(images) for images in batches]
    scores, maps = (np.concatenate(part) for part in zip(*scored, strict=True))
    threshold, rule = conformal_threshold(scores, false_alarms)
    middle, highest = float(np.median(maps)), float(maps.max())
    high = middle + max(2 * (highest - middle), 1e-6 + 1e-3 * abs(middle))
    made = {"images": len(training), "held_out": len(held), "false_alarms": false_alarms, "machine": machine()}
    names = tuple(detector.extract.layers)  # type: ignore[attr-defined]
    return FittedDetector(kind, arch, backbone, detector, size, names, threshold, rule, (middle, high), made)


def conformal_threshold(scores: NDArray[np.float32], false_alarms: float) -> tuple[float, str]:
    """The score that at most this share of new normal images is expected to exceed, and a sentence on how it is found.

    Of n held-out scores in ascending order it is the k-th, k = ceil((n + 1) (1 - false_alarms)): a new image from the
    same line exceeds it with probability at most 1 - k / (n + 1) (split conformal prediction, Papadopoulos et al.
    2002). With too few held-out images for the share asked, the highest of them, and the share is 1 / (n + 1).
    """
    n = len(scores)
    k = min(n, math.ceil((n + 1) * (1 - false_alarms)))
    rule = (
        f"number {k} of {n} held-out normal images' scores in ascending order: of new normal images like these, "
        f"{1 - k / (n + 1):.1%} are expected above it"
    )
    return float(np.sort(scores)[k - 1]), rule


def save_detector(path: Path, fitted: FittedDetector) -> None:
    """Write one safetensors file that holds the detector's state, the backbone's weights and all settings."""
    tensors, settings = fitted.detector.state()
    weights = {_BACKBONE + name: t for name, t in fitted.backbone.state_dict().items()}
    about = {name: getattr(fitted, name) for name in ("kind", "arch", "size", "layers", "threshold", "rule", "heat")}
    about |= {"format": _FORMAT, "settings": settings, "made": dict(fitted.made)}
    save_state(path, ({_DETECTOR + name: t for name, t in tensors.items()} | weights, about), "visa_detector")


def load_detector(path: Path, device: str = "cpu") -> FittedDetector:
    """The detector of a file that `save_detector` wrote, on a device, tried on one grey image.

    Executes no code in the file. Raises VisaError, in one sentence, if it is absent, of another kind, damaged, or its
    parts do not fit together.
    """
    tensors, about = load_state(path, device, "visa_detector")
    try:
        _check_about(about)
        backbone = _load_backbone(about["arch"], tensors).to(device)
        size, layers = (about["size"][0], about["size"][1]), tuple(about["layers"])
        extract = FeatureMaps(backbone, layers)
        own = {k.removeprefix(_DETECTOR): t for k, t in tensors.items() if k.startswith(_DETECTOR)}
        kind: Any = {"padim": padim.PaDiM, "patchcore": patchcore.PatchCore}[about["kind"]]
        detector = kind.restore((own, about["settings"]), extract)
        ends = (float(about["heat"][0]), float(about["heat"][1]))
        rest = (size, layers, float(about["threshold"]), about["rule"], ends, about["made"])
        fitted = FittedDetector(about["kind"], about["arch"], backbone, detector, *rest)
        fitted.score(torch.full((1, 3, *size), 0.5, device=device))
    except VisaError as error:
        raise VisaError(f"{path} cannot be used: {error}") from error
    except (RuntimeError, IndexError) as error:  # of shapes that do not fit the backbone's maps
        reason = str(error).partition("\n")[0]
        raise VisaError(f"{path} cannot be used: its parts do not fit together ({reason}).") from error
    return fitted


def _check_about(about: Mapping[str, Any]) -> None:
    """Raise VisaError unless a file's metadata are what `save_detector` writes."""
    text, lists, tables = ("kind", "arch", "rule"), ("size", "layers", "heat"), ("settings", "made")
    wanted: dict[str, Any] = dict.fromkeys(text, str) | dict.fromkeys(lists, list) | dict.fromkeys(tables, dict)
    if about.get("format") != _FORMAT:
        raise VisaError(f"it is no file of visa fit ({_FORMAT!r}).")
    for name, kind in (wanted | {"threshold": (int, float)}).items():
        if not isinstance(about.get(name), kind):
            raise VisaError(f"its {name} is absent or of another kind.")
    check_choice("detector", about["kind"], DETECTORS)
    _check_size(about["size"])
    layers = about["layers"]
    if not layers or any(name not in STAGES for name in layers) or sorted(set(layers)) != layers:
        raise VisaError(f"its layers are {layers}: they are some of {', '.join(STAGES)}, in order.")
    numbers = [about["threshold"], *about["heat"]]
    sound = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in numbers)
    if len(numbers) != 3 or not sound or numbers[1] >= numbers[2]:
        raise VisaError("its threshold, or the ends of its heat maps, are no such numbers.")


def _check_size(size: Sequence[int]) -> None:
    low, high = _SIDES
    if len(size) != 2 or not all(type(side) is int and low <= side <= high for side in size):
        raise VisaError(f"the image size is {tuple(size)}: give height and width, each {low} to {high} pixels.")


def _load_backbone(arch: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    backbone = create_backbone(arch)
    own = backbone.state_dict()
    weights = {k.removeprefix(_BACKBONE): t for k, t in tensors.items() if k.startswith(_BACKBONE)}
    wrong = weights.keys() ^ own.keys()
    wrong |= {
        k for k in weights.keys() & own.keys() if (own[k].shape, own[k].dtype) != (weights[k].shape, weights[k].dtype)
    }
    if wrong:
        raise VisaError(f"{len(wrong)} of its weights are no {arch}'s (first: {sorted(wrong)[0]}).")
    backbone.load_state_dict(weights)
    return backbone.eval()
