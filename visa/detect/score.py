"""Score an object with a backbone in every setup and compute the metrics, as notebook 04 does."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from visa.data.dataset import is_known, load_masks
from visa.data.setups import SETUPS, Split, obstacle, save_splits, splits
from visa.data.source import Source
from visa.detect import DETECTORS
from visa.detect.scores import COLUMNS, Scores, load_scores, save_scores
from visa.detect.shared import Context, is_anomaly
from visa.errors import check_choice
from visa.metrics import image_metrics, pixel_metrics
from visa.provenance import digest, read_sidecar, sidecar_of, write_rows, write_sidecar

METRICS = ("auroc", "au_pr", "ap", "f1_max", "au_pro")


def score_setups(
    context: Context,
    source: Source,
    object: str,
    folder: Path,
    detectors: Sequence[str] = tuple(DETECTORS),
    setups: Sequence[str] = SETUPS,
    draws: int = 5,
) -> Iterator[Scores]:
    """Score an object in each setup and draw, with each of `detectors` that the setup can train.

    Each result is written at once to `folder`/<setup>/<detector>/draw<n>/scores.npz with a sidecar, and the splits to
    `folder`/<setup>/splits.json. Earlier scores are read back if backbone, data, settings and the detector's version
    are unchanged, so that an interrupted run resumes. A setup for which the object has too few images is skipped with
    a message. Raises VisaError for an unknown detector, setup or object.
    """
    source.check_object(object)
    for detector in detectors:
        check_choice("detector", detector, DETECTORS)
    common = [weights_digest(context.backbone), source.fingerprint(object), context.size]
    for setup in setups:
        chosen = [d for d in detectors_of(setup) if d in detectors]
        if chosen and (reason := obstacle(source, object, setup)):
            print(f"{setup} is left out: {reason}")
        elif chosen:
            drawn = splits(source, object, setup, draws)
            save_splits(folder / setup / "splits.json", drawn)
            yield from (_resumed(context, d, split, folder, common) for split in drawn for d in chosen)


def score_split(context: Context, detector: str, split: Split) -> Scores:
    """Train `detector` on the split's training images and score its test images.

    Raises VisaError for a detector that the split's setup cannot train.
    """
    check_choice(f"detector for {split.setup}", detector, detectors_of(split.setup))
    context.facts.clear()
    scores, maps = import_module(DETECTORS[detector].module).score_split(context, split)
    masks = None if maps is None else load_masks(context.root, split.test, context.size)[0].numpy()
    paths, labels = [s.image for s in split.test], is_anomaly(split.test)
    known = np.array([is_known(s) for s in split.test], np.bool_)
    return Scores(paths, labels, scores, maps, masks, known, split.setup, split.object, detector, split.draw)


def detectors_of(setup: str) -> list[str]:
    """List the detectors that a setup can train: one-class detectors in 1cls, two-class detectors elsewhere."""
    check_choice("setup", setup, SETUPS)
    return [name for name, entry in DETECTORS.items() if entry.one_class == (setup == "1cls")]


def _resumed(context: Context, detector: str, split: Split, folder: Path, common: Sequence[object]) -> Scores:
    file = folder / split.setup / detector / f"draw{split.draw}" / "scores.npz"
    entry = DETECTORS[detector]
    settings = {name: value for name, value in asdict(context.settings).items() if name in entry.settings}
    settings |= settings.pop("two_class", {})
    key = digest([*common, detector, entry.version, settings, asdict(split)])
    if file.is_file() and (read_sidecar(file) or {}).get("key") == key:
        return load_scores(file)
    started = time.process_time()
    scores = score_split(context, detector, split)
    sidecar_of(file).unlink(missing_ok=True)  # scores without a sidecar are unfinished
    save_scores(file, scores)
    write_sidecar(file, key, settings, cpu_seconds=time.process_time() - started, **context.facts)
    return scores


def weights_digest(backbone: nn.Module) -> str:
    """Compute the digest (16 hexadecimal digits) of a backbone's weights and batch-norm statistics."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in backbone.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()[:16]


def score_metrics(scores: Scores, defects: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, object]]:
    """Compute the image metrics of scores and, if there are maps, the pixel metrics: one metric per row.

    `defect` is empty for all anomalies together. `defects` gives each image's classes by its path; each class then has
    rows, too, computed on the normal images and the anomalous ones that show it, perhaps with other classes. Pixel
    metrics use the images whose mask is known; they are skipped with a message if no anomaly has a mask.
    """
    shown = [(defects or {}).get(path, ()) for path in scores.paths]
    rows = []
    for defect in ("", *sorted({name for names in shown for name in names})):
        shows = np.array([not defect or defect in names for names in shown])
        rows += _metrics(scores, defect, shows | (scores.labels == 0))
    return rows


def _metrics(scores: Scores, defect: str, keep: NDArray[np.bool_]) -> list[dict[str, object]]:
    levels = {"image": image_metrics(scores.image_scores[keep], scores.labels[keep])}
    known = keep & scores.known
    if scores.maps is not None and scores.masks is not None:
        if scores.masks[known].any():
            levels["pixel"] = pixel_metrics(scores.maps[known], scores.masks[known])
        else:
            what = f"{scores.object}, {scores.setup}" + (f", {defect}" if defect else "")
            print(f"{what}: no anomalous test image has a mask, so pixel metrics are left out.")
    shared = {"setup": scores.setup, "draw": scores.draw, "detector": scores.detector, "defect": defect}
    return [
        {**shared, "level": level, "metric": name, "value": metrics[name]}
        for level, metrics in levels.items()
        for name in METRICS
        if name in metrics
    ]


def write_metrics(path: Path, rows: Sequence[Mapping[str, object]], **common: object) -> None:
    """Write rows as a long-format CSV with COLUMNS; `common` fills the columns that all rows share."""
    write_rows(path, COLUMNS, ({**common, **row} for row in rows))
