"""Score image files with a fitted detector: a table, and heat maps over the images."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visa.data.splits import read_table
from visa.detect.files import (
    HEAT,
    RAW,
    TABLE,
    Picture,
    as_batch,
    grey16,
    image_files,
    overlay,
    printable,
    read_ahead,
    write_png,
)
from visa.detect.fitted import FittedDetector
from visa.errors import VisaError
from visa.paths import locked
from visa.provenance import write_rows

_NONE = (np.empty(0, np.float32), np.empty((0, 1, 1), np.float32))
COLUMNS = ("path", "score", "threshold", "verdict", "map_low", "map_high")


@dataclass(frozen=True)
class Summary:
    """How many images were scored and found anomalous, why others were not scored, and where the table is."""

    scored: int
    anomalous: int
    unreadable: list[str]
    table: Path


def score_files(fitted: FittedDetector, source: Path, out: Path, raw: bool = False, progress: bool = False) -> Summary:
    """Score the image at `source`, or all below that folder, and write `out`/scores.csv and `out`/heat/<path>.png.

    A row of the table has `path` (relative to `source`), `score`, `threshold`, `verdict` (anomalous if the score
    exceeds the threshold, normal, or unreadable), and the least and greatest value of the map at the image's own size.
    Heat maps have that size, too. With `raw`, `out`/raw/<path>.png holds the map as 16-bit grey:
    value = map_low + pixel / 65535 * (map_high - map_low). The table appears last: without it, all is unfinished.
    Raises VisaError if there is no image, a score is NaN, or another process writes to `out`.
    """
    files = image_files(source)  # before the lock: a mistake leaves no folder behind
    root = source if source.is_dir() else source.parent
    with locked(out):
        return _score_all(fitted, files, root, out, raw, progress)


def _score_all(
    fitted: FittedDetector, files: Sequence[Path], root: Path, out: Path, raw: bool, progress: bool
) -> Summary:
    rows: list[dict[str, Any]] = []
    unreadable: list[str] = []
    table = out / TABLE
    _remove_last(out, table)
    with tqdm(total=len(files), desc="score", unit="image", disable=not progress) as bar, ThreadPoolExecutor() as pool:
        for pictures in read_ahead(files, fitted.size):
            sound = [p for p in pictures if not p.error]
            scores, maps = fitted.score(as_batch(sound, fitted.device)) if sound else _NONE
            names = [p.path.relative_to(root) for p in sound]
            written = list(pool.map(lambda *a: _write(fitted, out, raw, *a), sound, names, maps))
            found = {p.path: (float(s), low, high) for p, s, (low, high) in zip(sound, scores, written, strict=True)}
            unreadable += [p.error for p in pictures if p.error]
            rows += [_row(fitted, p.path.relative_to(root), found.get(p.path)) for p in pictures]
            bar.update(len(pictures))
    write_rows(table, COLUMNS, rows)
    anomalous = sum(row["verdict"] == "anomalous" for row in rows)
    return Summary(len(rows) - len(unreadable), anomalous, unreadable, table)


def _remove_last(out: Path, table: Path) -> None:
    """Remove the table of the last scoring, and the pictures that it names: they are of that detector's scale."""
    names: list[Path] = []
    if table.is_file():
        with suppress(VisaError, KeyError):  # another table of that name
            names = [Path(row["path"] + ".png") for row in read_table(table, ("path",))]
    table.unlink(missing_ok=True)
    inside = [name for name in names if not name.is_absolute() and ".." not in name.parts]
    for file in (out / folder / name for folder in (HEAT, RAW) for name in inside):
        file.unlink(missing_ok=True)


def _write(
    fitted: FittedDetector, out: Path, raw: bool, picture: Picture, name: Path, heat: NDArray[np.float32]
) -> tuple[float, float]:
    """Write an image's pictures; returns the ends of its map."""
    name = name.with_name(name.name + ".png")
    write_png(out / HEAT / name, overlay(picture.pixels, heat, *fitted.heat))
    grey, low, high = grey16(heat, (picture.pixels.shape[1], picture.pixels.shape[2]))
    if raw:
        write_png(out / RAW / name, grey)
    return low, high


def _row(fitted: FittedDetector, name: Path, found: tuple[float, float, float] | None) -> dict[str, Any]:
    if found is None:
        return {"path": printable(name), "threshold": fitted.threshold, "verdict": "unreadable"}
    score, low, high = found
    verdict = "anomalous" if score > fitted.threshold else "normal"
    ends = {"map_low": low, "map_high": high}
    return {"path": printable(name), "score": score, "threshold": fitted.threshold, "verdict": verdict, **ends}
