"""What the browser's page needs of one file of scores: image scores, maps in 256 levels, and the pixels at each."""

import base64
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from visa.detect.scores import load_scores
from visa.errors import VisaError
from visa.metrics import image_metrics
from visa.metrics.exact import curve_metrics, steps_of_groups
from visa.provenance import code_digest, digest, write_text

LEVELS = 256


@dataclass(frozen=True)
class Record:
    """One file of scores, as JSON can hold it.

    `image_scores` with the fewest digits that tell float32 values apart. `maps` None, or `low` and `step`: level k
    holds the scores from low + k * step up to the next; `positives` and `negatives`: the pixels of either kind in each
    level, of the images whose mask is known; `middle`: the level of the median pixel. `masks`: a PNG as a data address
    for each image with a known, not empty mask. `au_pr` of images and pixels, the latter from levels. `folder`: where
    the maps lie, one `<index of the image>.js` each.
    """

    paths: list[str]
    labels: list[int]
    known: list[bool]
    image_scores: list[float]
    folder: str
    maps: dict[str, Any] | None = None
    masks: dict[str, str] = field(default_factory=dict)
    au_pr: dict[str, float] = field(default_factory=dict)


def read_record(file: Path, below: Path) -> Record:
    """The record of a file of scores, with its maps written to a folder `below`; read again while the file is the same.

    Raises VisaError for a file that holds no scores, and for maps that are not finite.
    """
    code = code_digest("report/browser/records.py", "detect/scores.py")
    folder = below / digest([str(file.relative_to(below.parents[1])), _contents(file), code])
    stored = folder / "record.json"  # written last: a folder without it is unfinished
    if stored.is_file():
        return Record(**json.loads(stored.read_text(encoding="utf-8")))
    scores, name = load_scores(file), f"{below.name}/{folder.name}"
    record = Record(
        paths=scores.paths,
        labels=scores.labels.tolist(),
        known=scores.known.tolist(),
        image_scores=[float(str(score)) for score in scores.image_scores],
        folder=name,
        au_pr={"image": image_metrics(scores.image_scores, scores.labels)["au_pr"]},
    )
    if scores.maps is not None and scores.masks is not None:
        record = _with_maps(record, scores.maps, scores.masks, folder)
    write_text(stored, json.dumps(asdict(record)))
    return record


def _contents(file: Path) -> list[tuple[str, int, int]]:
    """Name, checksum and size of each array of a file of scores, from its directory: the maps are not read for it."""
    try:
        with ZipFile(file) as stored:
            return [(entry.filename, entry.CRC, entry.file_size) for entry in stored.infolist()]
    except BadZipFile:
        return []  # what loads the scores says so


def _with_maps(record: Record, maps: NDArray[np.float32], masks: NDArray[np.uint8], folder: Path) -> Record:
    low, step = scale_of(maps)
    counts = np.zeros((2, LEVELS), np.int64)  # of normal and of anomalous pixels
    for index, (one, mask, known) in enumerate(zip(maps, masks, record.known, strict=True)):
        levels, name = levels_of(one, low, step), f"{index}.js"
        for kind in (0, 1) if known else ():
            counts[kind] += np.bincount(levels[mask == kind], minlength=LEVELS)
        write_text(folder / name, script(f"{record.folder}/{name}", _png(levels)))
    negatives, positives = counts
    both = negatives.any() and positives.any()
    figures = curve_metrics(steps_of_groups(positives[::-1], negatives[::-1])) if both else {}
    middle = int(np.searchsorted(counts.sum(0).cumsum(), counts.sum() / 2))
    return replace(
        record,
        maps={"low": low, "step": step, "middle": middle}
        | {"negatives": negatives.tolist(), "positives": positives.tolist()},
        masks={path: _png(mask * 255) for path, mask in zip(record.paths, masks, strict=True) if mask.any()},
        au_pr=record.au_pr | ({"pixel": float(figures["au_pr"])} if both else {}),
    )


def scale_of(maps: NDArray[np.float32]) -> tuple[float, float]:
    """`low` and `step` of LEVELS equal steps from the lowest to the highest score of maps (N, H, W).

    Raises VisaError for NaN or infinite scores.
    """
    low, high = float(maps.min()), float(maps.max())
    if not np.isfinite(high - low):
        raise VisaError("the maps hold NaN or infinite values: look for a diverged model, and score the object again.")
    return low, (high - low) / LEVELS or 1.0


def levels_of(scores: NDArray[np.float32], low: float, step: float) -> NDArray[np.uint8]:
    """The level k of each score, 0 to LEVELS - 1: exactly those with `score >= low + k * step` have level k or more."""
    edges = low + step * np.arange(1, LEVELS)
    return np.searchsorted(edges, scores.astype(np.float64), side="right").astype(np.uint8)


def script(name: str, value: Any) -> str:
    """A value as a script of plain ASCII that the page can load from the disk, harmless wherever it is pasted."""
    text = json.dumps([name, value], separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # they are inside strings only
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"visaBrowser.arrived(...{text});\n"


def _png(pixels: NDArray[np.uint8]) -> str:
    """An 8-bit grey PNG as a data address: a page on the disk may read its pixels, as it may not those of a file."""
    encoded, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not encoded:
        raise VisaError("a map cannot be written as PNG: check the installation of OpenCV.")
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
