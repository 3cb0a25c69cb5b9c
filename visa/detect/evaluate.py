"""From a backbone and an object to scores and figures, setup by setup: what notebook 04 calls."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from visa.data.images import upright_size
from visa.data.setups import SETUPS, Split, obstacle, save_splits, splits
from visa.data.source import Source
from visa.detect.evaluator import DETECTORS, Evaluator, detectors_of
from visa.detect.scores import Scores, load_scores, save_scores
from visa.errors import check_choice
from visa.metrics import image_metrics, pixel_metrics
from visa.provenance import code_digest, digest, read_sidecar, sidecar_of, write_rows, write_sidecar

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
_ALL_CODE = (
    *("backbone.py", "data/dataset.py", "data/images.py", "data/setups.py"),
    *("detect/evaluator.py", "detect/scores.py"),
)


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
