"""Deploy a detector for new parts: fit it on normal images, save it to one file, score image files with it."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy.stats import beta
from torch import Tensor, nn
from tqdm import tqdm

from visa.backbone import FeatureMaps, create_backbone
from visa.data.dataset import read_image, resize_image
from visa.data.layouts import SUFFIXES
from visa.data.splits import read_table
from visa.detect import DETECTORS
from visa.detect.scores import write_png
from visa.detect.shared import OneClass, Scored
from visa.errors import VisaError, check_choice
from visa.paths import LOCK, locked, written_whole
from visa.provenance import machine, write_rows

DEPLOYABLE = tuple(name for name, entry in DETECTORS.items() if entry.one_class)
HELD_OUT = 0.1  # share of normal images that set the threshold
COLUMNS = ("path", "score", "threshold", "verdict")
TABLE, HEAT = "scores.csv", "heat"  # what `score_files` writes: a table, and a folder of pictures
_FORMAT = "visa detector 1"
_BACKBONE, _DETECTOR = "backbone.", "detector."
_SIDES = (32, 4096)
_PIXELS = 16 * 224 * 224  # pixels per batch


@dataclass(frozen=True)
class FittedDetector:
    """Everything that is needed to score an image.

    Images are resized to `size` (height, width). An image whose score exceeds `threshold` counts as anomalous, and
    `rule` says how the threshold was found. A heat map's colours run from the first to the second map value of `heat`.
    """

    kind: str
    arch: str
    backbone: nn.Module
    detector: OneClass
    size: tuple[int, int]
    layers: tuple[str, ...]
    threshold: float
    rule: str
    heat: tuple[float, float]
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The backbone's device, on which images have to lie."""
        return next(self.backbone.parameters()).device

    def score(self, images: Tensor) -> Scored:
        """Return image scores (N,) and anomaly maps (N, height, width) of images N,3,height,width in [0,1].

        Raises VisaError if a score is NaN or infinite.
        """
        scores, maps = self.detector.score(images)
        if not np.isfinite(scores).all() or not np.isfinite(maps).all():
            raise VisaError("the detector gives NaN or infinite scores: its backbone diverged; fit another.")
        return scores, maps


def make_detector(
    kind: str, backbone: nn.Module, layers: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> OneClass:
    """Make an unfitted detector on `layers` of a backbone (empty: the paper's), with `settings` by name.

    Raises VisaError for an unknown name, a layer given twice, or a value out of its range.
    """
    check_choice("detector", kind, DEPLOYABLE)
    module = import_module(DETECTORS[kind].module)
    stages = tuple(layers) or module.LAYERS
    if len(set(stages)) < len(stages):
        raise VisaError(f"a layer is given twice: {', '.join(stages)}.")
    for name, value in (settings or {}).items():
        check_choice(f"setting of {kind}", name, module.BOUNDS)
        low, high = module.BOUNDS[name]
        whole, optional = isinstance(low, int), getattr(module.Detector, name) is None
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not (optional and value is None) and not (number and low <= value <= high):  # NaN fails, too
            raise VisaError(f"{kind}'s {name} is {value!r}: it is a{' whole' * whole} number, {low} to {high}.")
    detector: OneClass = module.Detector(FeatureMaps(backbone, tuple(sorted(stages))), **settings or {})
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
    prepare: Callable[[Sequence[Path]], Mapping[str, Any]] | None = None,
    progress: bool = False,
) -> FittedDetector:
    """Fit a detector on nine tenths of the normal images, resized to `size` = (height, width); the rest is held out.

    The held-out tenth is drawn by the setting `seed` and sets the threshold (see `conformal_threshold`). `prepare` is
    called with the other images before the fit: it may train the backbone, and returns facts for `made`. The heat maps'
    colours begin at the median of the held-out maps and end twice as far from it as their maximum.
    Raises VisaError for fewer than three images, one that cannot be read, or settings out of range.
    """
    if len(files) < 3:
        raise VisaError(f"{len(files)} normal images are too few: two fit a detector and one sets its threshold.")
    if not 0 < false_alarms < 1:
        raise VisaError(f"the share of false alarms is {false_alarms}: give one between 0 and 1.")
    _check_size(size)
    detector = make_detector(kind, backbone, layers, settings)
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(detector.seed)).tolist()
    count = max(1, round(HELD_OUT * len(files)))
    held, training = ([files[i] for i in sorted(part)] for part in (order[:count], order[count:]))
    device = next(backbone.parameters()).device
    facts = prepare(training) if prepare else {}
    detector.fit(image_batches(training, size, device), progress)
    scored = [detector.score(images) for images in image_batches(held, size, device)]
    scores, maps = (np.concatenate(part) for part in zip(*scored, strict=True))
    threshold, rule = conformal_threshold(scores, false_alarms)
    middle, highest = float(np.median(maps)), float(maps.max())
    high = middle + max(2 * (highest - middle), 1e-6 + 1e-3 * abs(middle))
    made = {"images": len(training), "held_out": len(held), "false_alarms": false_alarms, "machine": machine(), **facts}
    names = tuple(sorted(layers)) or import_module(DETECTORS[kind].module).LAYERS
    return FittedDetector(kind, arch, backbone, detector, size, names, threshold, rule, (middle, high), made)


def conformal_threshold(scores: NDArray[np.float32], false_alarms: float) -> tuple[float, str]:
    """Return the score that at most this share of new normal images is expected to exceed, and a sentence about it.

    It is the k-th of the n held-out `scores` in ascending order, k = ceil((n + 1) (1 - false_alarms)): a new image of
    the same distribution exceeds it with probability at most 1 - k / (n + 1) (split conformal prediction, Papadopoulos
    et al. 2002). If n is too small for the share, it is the highest score, and the share is 1 / (n + 1). Over draws of
    the held-out images the share has a Beta(n + 1 - k, k) distribution (Vovk 2012), which gives its interval.
    """
    n = len(scores)
    k = min(n, math.ceil((n + 1) * (1 - false_alarms)))
    low, high = beta.ppf((0.025, 0.975), n + 1 - k, k)
    rule = (
        f"{1 - k / (n + 1):.1%} of new normal images are expected above it (95% interval {low:.1%} to {high:.1%})\n"
        f"It is number {k} of {n} held-out images' scores in ascending order."
    )
    return float(np.sort(scores)[k - 1]), rule


def save_detector(path: Path, fitted: FittedDetector) -> None:
    """Write one safetensors file that holds the detector's state, the backbone's weights and all settings."""
    module = import_module(DETECTORS[fitted.kind].module)
    tensors = {_DETECTOR + name: getattr(fitted.detector, name) for name in module.STATE}
    tensors |= {_BACKBONE + name: t for name, t in fitted.backbone.state_dict().items()}
    about = {name: getattr(fitted, name) for name in ("kind", "arch", "size", "layers", "threshold", "rule", "heat")}
    about |= {"settings": {name: getattr(fitted.detector, name) for name in module.BOUNDS}}
    about |= {"format": _FORMAT, "made": dict(fitted.made)}
    with written_whole(path) as partial:
        contiguous = {key: t.detach().cpu().contiguous() for key, t in tensors.items()}
        partial.write_bytes(save(contiguous, {"visa_detector": json.dumps(about, sort_keys=True)}))


def load_detector(path: Path, device: str = "cpu") -> FittedDetector:
    """Load a file that `save_detector` wrote onto a device, and test the detector on one grey image.

    No code in the file is executed. Raises VisaError if the file is missing, of another kind or damaged, or if its
    parts do not fit together.
    """
    if not path.is_file():
        raise VisaError(f"no fitted detector at {path}: fit one and save it there.")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            about = json.loads(file.metadata()["visa_detector"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError, ValueError, RecursionError, OSError) as error:
        raise VisaError(f"{path} holds no fitted detector ({error}): fit it again.") from error
    try:
        fitted = _restore(tensors, about)
        fitted.score(torch.full((1, 3, *fitted.size), 0.5, device=device))
    except VisaError as error:
        raise VisaError(f"{path} cannot be used: {error}") from error
    except (RuntimeError, LookupError, AttributeError, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise VisaError(f"{path} cannot be used: its parts do not fit together ({reason}).") from error
    return fitted


def _restore(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> FittedDetector:
    """Restore a detector from a file's tensors and metadata, neither of which can be trusted."""
    if about.get("format") != _FORMAT:
        raise VisaError(f"it is not a file of visa fit ({_FORMAT!r}).")
    kind, (height, width), (low, high) = about["kind"], about["size"], about["heat"]
    check_choice("detector", kind, DEPLOYABLE)
    _check_size((height, width))
    if not all(map(math.isfinite, (about["threshold"], low, high))) or low >= high:
        raise VisaError("its threshold or the range of its heat maps is not finite or is empty.")
    if wrong := [name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        raise VisaError(f"its {wrong[0]} holds NaN or infinite values.")
    own, weights = (
        {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
        for part in (_DETECTOR, _BACKBONE)
    )
    backbone = create_backbone(about["arch"])
    backbone.load_state_dict(weights)
    backbone.to(next(iter(weights.values())).device).eval()
    module, layers = import_module(DETECTORS[kind].module), tuple(about["layers"])
    if not own.keys() >= set(module.STATE):
        raise VisaError(f"it holds no {kind}: its state is {', '.join(sorted(own)) or 'empty'}.")
    # Files of earlier versions hold further settings, None or 0 unless they were chosen, and further tensors.
    settings = {name: value for name, value in about["settings"].items() if name in module.BOUNDS or value}
    detector = make_detector(kind, backbone, layers, settings)
    for name in module.STATE:
        setattr(detector, name, own[name])
    rest = (float(about["threshold"]), str(about["rule"]), (float(low), float(high)), about["made"])
    return FittedDetector(kind, about["arch"], backbone, detector, (height, width), layers, *rest)


def _check_size(size: Sequence[int]) -> None:
    low, high = _SIDES
    if not all(type(side) is int and low <= side <= high for side in size):
        raise VisaError(f"the image size is {tuple(size)}: give height and width, each {low} to {high} pixels.")


class Summary(NamedTuple):
    """How many images were scored and found anomalous, why others were not scored, and where the table is."""

    scored: int
    anomalous: int
    unreadable: list[str]
    table: Path


def score_files(fitted: FittedDetector, source: Path, out: Path, progress: bool = False) -> Summary:
    """Score the image at `source`, or all images below it, and write `out`/scores.csv and `out`/heat/<path>.png.

    A row of the table has `path` (relative to `source`), `score`, `threshold` and `verdict`: anomalous if the score
    exceeds the threshold, normal, or unreadable. A heat map has its image's size. The table is written last: without
    it the result is incomplete. Raises VisaError if there is no image, a score is NaN, or another process uses `out`.
    """
    files = image_files(source)  # before the lock: a mistake leaves no folder behind
    root, table = source if source.is_dir() else source.parent, out / TABLE
    scores: dict[Path, float] = {}
    unreadable: list[str] = []

    def read(file: Path) -> tuple[Path, Tensor, Tensor] | None:
        try:
            pixels = read_image(file)
        except VisaError as error:
            unreadable.append(str(error))
            return None
        return file, pixels, resize_image(pixels, fitted.size)

    def draw(file: Path, pixels: Tensor, heat: NDArray[np.float32]) -> None:
        write_png(out / HEAT / f"{file.relative_to(root)}.png", overlay(pixels, heat, *fitted.heat))

    bar = tqdm(total=len(files), desc="score", unit="image", disable=not progress)
    with locked(out), ThreadPoolExecutor() as pool, bar:
        _remove_last(out)
        for batch in _batches(files, fitted.size):
            if sound := [picture for picture in pool.map(read, batch) if picture]:
                names, pixels, resized = zip(*sound, strict=True)
                values, maps = fitted.score(_on_device(resized, fitted.device))
                scores |= zip(names, values.tolist(), strict=True)
                list(pool.map(draw, names, pixels, maps))
            bar.update(len(batch))
        write_rows(table, COLUMNS, (_row(f.relative_to(root), scores.get(f), fitted.threshold) for f in files))
    anomalous = sum(score > fitted.threshold for score in scores.values())
    return Summary(len(scores), anomalous, sorted(unreadable), table)


def _row(name: Path, score: float | None, threshold: float) -> dict[str, Any]:
    text = str(name).encode("utf-8", "backslashreplace").decode()  # any file or terminal can show it
    verdict = "unreadable" if score is None else "anomalous" if score > threshold else "normal"
    return {"path": text, "score": score, "threshold": threshold, "verdict": verdict}


def _remove_last(out: Path) -> None:
    """Remove the table of the last scoring and its heat maps, whose colours may have had another scale."""
    with suppress(VisaError, OSError, KeyError, ValueError):  # no table, or another one of that name
        for row in read_table(out / TABLE, COLUMNS):
            name = Path(row["path"] + ".png")
            if not name.is_absolute() and ".." not in name.parts:
                (out / HEAT / name).unlink(missing_ok=True)
    (out / TABLE).unlink(missing_ok=True)


def overlay(pixels: Tensor, heat: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Blend an anomaly map `heat` (h, w) over an image, uint8 3,H,W; return uint8 H,W,3 RGB.

    The map is transparent at `low` and below, and dark red with an opacity of 60 % at `high` and above.
    """
    image = pixels.permute(1, 2, 0).numpy()
    full = cv2.resize(heat, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    share = np.clip((full - low) / (high - low), 0, 1).astype(np.float32)
    colours = cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    cover = 0.6 * share[..., None]
    return np.asarray(np.rint(image * (1 - cover) + colours * cover), np.uint8)


def image_files(path: Path) -> list[Path]:
    """List the image at `path`, or all images below it, sorted; links are followed, and hidden files are skipped.

    The heat maps of `score_files` are skipped, too. Raises VisaError if there is nothing at `path` or no image below
    it, or if a folder may not be read.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise VisaError(f"no image or folder at {path}: check the path.")
    files: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(path, onerror=_refuse, followlinks=True):
        here, real = Path(folder), os.path.realpath(folder)
        if real in seen:  # a link led to a folder that was listed before
            folders.clear()
            continue
        seen.add(real)
        written = (here / TABLE).is_file() or (here / LOCK).exists()
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not (written and n == HEAT))
        found = (here / name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)
        files += [file for file in found if file.is_file() or file.is_symlink()]  # a broken link counts as unreadable
    if not files:
        raise VisaError(f"{path} holds no image: its files end in none of {', '.join(SUFFIXES)}.")
    return sorted(files)


def _refuse(error: OSError) -> None:
    raise VisaError(f"{error.filename} may not be read ({error.strerror}): change its permissions.")


def image_batches(files: Sequence[Path], size: tuple[int, int], device: torch.device) -> Iterator[Tensor]:
    """Read files as batches N,3,H,W in [0,1] at `size` = (height, width) on a device.

    Raises VisaError at the first file that cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        for batch in _batches(files, size):
            yield _on_device(list(pool.map(lambda file: resize_image(read_image(file), size), batch)), device)


def _batches(files: Sequence[Path], size: tuple[int, int]) -> Iterator[Sequence[Path]]:
    """Split files into batches of about 16 x 224 x 224 pixels at `size`."""
    count = max(1, _PIXELS // (size[0] * size[1]))
    return (files[start : start + count] for start in range(0, len(files), count))


def _on_device(images: Sequence[Tensor], device: torch.device) -> Tensor:
    return torch.stack(list(images)).to(device).float() / 255
