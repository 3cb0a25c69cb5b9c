"""The defect browser of a run: static files that show every scored test image, to be opened from the disk.

A file of scores becomes a record: image scores, maps in 256 levels, and the number of pixels at each level.
"""

import base64
import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import visa
from visa.data.images import open_upright
from visa.data.setups import SETUPS
from visa.data.source import Source
from visa.detect.scores import EVALUATION_SIZE, load_scores
from visa.errors import VisaError
from visa.metrics import image_metrics
from visa.metrics.exact import curve_metrics, steps_of_groups
from visa.paths import locked, written_whole
from visa.provenance import digest, read_sidecar, write_text
from visa.report.collect import scored_files
from visa.report.figures import HEAT
from visa.report.tables import TITLES

VERSION = 2  # of records and pictures: raise it when the same scores give others; all are then made again
PAGE = Path(__file__).parent / "page"
LEVELS = 256
SIDE = 320  # long side of the small pictures, in pixels
_model = attrgetter("pretraining", "scope", "seed")  # of a row of `scored_files`


def build_browser(run: Path, source: Source) -> Path:
    """Write `run`/browser from all scores of the run's objects on disk; returns its `index.html`.

    Its reader can choose among all pre-trainings, scopes, seeds and detectors; few-shot setups show the first draw.
    Files of earlier calls are kept if they are still valid, so that a call after each scoring only adds what is new.
    Concurrent calls wait for each other, so that the last one sees all scores.
    Raises VisaError if nothing is scored, if scores cannot be read, or if an image is missing or broken.
    """
    with locked(run / ".browser", patience=600):
        _build(run, source, run / "browser")
    return run / "browser" / "index.html"


def _build(run: Path, source: Source, folder: Path) -> None:
    found = _found(run, source)
    if not found:
        raise VisaError(f"nothing is scored in {run}: run notebook 04_score first.")
    records = {s.file: read_record(s.file, folder / "scored") for several in found.values() for s in several}
    for group, several in found.items():
        newest = records[several[-1].file]["paths"]
        found[group] = [s for s in several if records[s.file]["paths"] == newest]
        if left := len(several) - len(found[group]):
            print(f"{left} older scores are left out of the browser: they are of other test images. Score them again.")
    records = {s.file: records[s.file] for several in found.values() for s in several}
    pictures = _write_pictures(folder / "images", source.root, {p for r in records.values() for p in r["paths"]})
    models = sorted({_model(s) for several in found.values() for s in several})
    outlines: dict[str, str] = {p: mask for record in records.values() for p, mask in record["masks"].items()}
    parts: list[dict[str, Any]] = []
    for (object, setup), several in found.items():
        newest, defects = records[several[-1].file], source.defects(object)
        images = [
            {"name": path, "anomalous": bool(label), "known": known, "defects": list(defects.get(path, ()))}
            | pictures[path]
            | {"mask": outlines.get(path)}
            for path, label, known in zip(newest["paths"], newest["labels"], newest["known"], strict=True)
        ]
        scorings = [{"model": models.index(_model(s)), **_scoring(s, records[s.file])} for s in several]
        name = f"parts/{digest([object, setup])}.js"
        write_text(folder / name, script(name, {"images": images, "scorings": scorings}))
        chosen = [[s["model"], s["detector"], s["metrics"]["image"]["auroc"]] for s in scorings]
        parts.append({"object": object, "setup": setup, "file": name, "scored": chosen})
    named = [dict(zip(("pretraining", "scope", "seed"), model, strict=True)) for model in models]
    for file in PAGE.iterdir():
        write_text(folder / file.name, file.read_text(encoding="utf-8"))
    about = {
        "run": run.name,
        "dataset": source.name,
        "synthetic": source.synthetic,
        "version": visa.__version__,
        "size": EVALUATION_SIZE,
        "titles": TITLES,
        "heat": (mpl.colormaps[HEAT](np.arange(LEVELS), bytes=True)[:, :3]).ravel().tolist(),
    }
    write_text(folder / "index.js", script("index.js", {"about": about, "parts": parts, "models": named}))
    kept = [part["file"] for part in parts] + [record["folder"] for record in records.values()]
    kept += [picture["picture"] for picture in pictures.values()]
    for old in (path for part in ("parts", "images", "scored") for path in (folder / part).iterdir()):
        if str(old.relative_to(folder)) not in kept:  # no longer used
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def _found(run: Path, source: Source) -> dict[tuple[str, str], list[Any]]:
    """Find scores by object and setup, both in the paper's order: rows of `scored_files`, the newest last."""
    found = scored_files(run).query("draw == 0")
    ordered: list[Any] = sorted(found.itertuples(), key=lambda scored: scored.file.stat().st_mtime_ns)
    groups = {group: [s for s in ordered if (s.object, s.setup) == group] for group in product(source.objects, SETUPS)}
    return {group: several for group, several in groups.items() if several}


def _scoring(scored: Any, record: dict[str, Any]) -> dict[str, Any]:
    sidecar = read_sidecar(scored.file) or {}
    made = {name: sidecar.get(name, empty) for name, empty in (("settings", {}), ("written", ""))}
    return {
        "detector": scored.detector,
        "scores": record["image_scores"],
        **{name: record[name] for name in ("metrics", "maps", "folder")},
        "made": made | {"commit": (sidecar.get("machine") or {}).get("commit") or ""},
    }


def _write_pictures(folder: Path, root: Path, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Write small pictures of the images below `root`; returns the address `picture` and the `shape` of each.

    Pictures are named by digests, so that no file name of the user's is part of an address.
    """

    def write(path: str) -> dict[str, Any]:
        about = (root / path).stat() if (root / path).is_file() else None
        file = folder / (digest([path, VERSION, about and (about.st_size, about.st_mtime_ns)]) + ".webp")
        if not file.is_file():
            picture = open_upright(root / path).convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            with written_whole(file) as partial:
                picture.save(partial, "WEBP", quality=80)
        with Image.open(file) as written:
            return {"picture": f"{folder.name}/{file.name}", "shape": written.size}

    ordered = sorted(paths)
    with ThreadPoolExecutor() as pool:
        return dict(zip(ordered, pool.map(write, ordered), strict=True))


def read_record(file: Path, below: Path) -> dict[str, Any]:
    """Make the record of a file of scores, with its maps in a folder `below`, or read it if the file is unchanged.

    Its keys: `paths`, `labels`, `known`; `image_scores` with the fewest digits that identify a float32 value;
    `maps`, None or `low` and `step`: level k holds the scores from low + k * step up to the next; `positives` and
    `negatives`: the pixels of either kind in each level, of the images whose mask is known; `middle`: the level of the
    median pixel; `masks`: a PNG as a data URL for each image with a known, not empty mask; `metrics` of images and
    pixels, the latter from levels; `folder`: the folder of the maps, one `<index of the image>.js` each.
    Raises VisaError for a file that holds no scores, and for maps that are not finite.
    """
    about = file.stat()
    folder = below / digest([str(file.relative_to(below.parents[1])), about.st_size, about.st_mtime_ns, VERSION])
    stored = folder / "record.json"  # written last: a folder without it is unfinished
    if stored.is_file():
        return dict(json.loads(stored.read_text(encoding="utf-8")))
    scores = load_scores(file)
    record = {
        "paths": scores.paths,
        "labels": scores.labels.tolist(),
        "known": scores.known.tolist(),
        "image_scores": [float(str(score)) for score in scores.image_scores],
        "folder": f"{below.name}/{folder.name}",
        "maps": None,
        "masks": {},
        "metrics": {"image": image_metrics(scores.image_scores, scores.labels)},
    }
    if scores.maps is not None and scores.masks is not None:
        _add_maps(record, scores.maps, scores.masks, folder)
    write_text(stored, json.dumps(record))
    return record


def _add_maps(record: dict[str, Any], maps: NDArray[np.float32], masks: NDArray[np.uint8], folder: Path) -> None:
    low, step = scale_of(maps)
    counts = np.zeros((2, LEVELS), np.int64)  # of normal and of anomalous pixels
    for index, (one, mask, known) in enumerate(zip(maps, masks, record["known"], strict=True)):
        levels, name = levels_of(one, low, step), f"{index}.js"
        for kind in (0, 1) if known else ():
            counts[kind] += np.bincount(levels[mask == kind], minlength=LEVELS)
        write_text(folder / name, script(f"{record['folder']}/{name}", _png(levels)))
    negatives, positives = counts
    middle = int(np.searchsorted(counts.sum(0).cumsum(), counts.sum() / 2))
    record["maps"] = {"low": low, "step": step, "middle": middle}
    record["maps"] |= {"negatives": negatives.tolist(), "positives": positives.tolist()}
    record["masks"] = {p: _png(mask * 255) for p, mask in zip(record["paths"], masks, strict=True) if mask.any()}
    if negatives.any() and positives.any():
        found = curve_metrics(steps_of_groups(positives[::-1], negatives[::-1]))
        record["metrics"]["pixel"] = {name: float(value) for name, value in found.items()}


def scale_of(maps: NDArray[np.float32]) -> tuple[float, float]:
    """Find `low` and `step` of LEVELS equal steps from the lowest to the highest score of maps (N, H, W).

    Raises VisaError for NaN or infinite scores.
    """
    low, high = float(maps.min()), float(maps.max())
    if not np.isfinite(high - low):
        raise VisaError("the maps hold NaN or infinite values: look for a diverged model, and score the object again.")
    return low, (high - low) / LEVELS or 1.0


def levels_of(scores: NDArray[np.float32], low: float, step: float) -> NDArray[np.uint8]:
    """Find the level k of each score, 0 to LEVELS - 1: those with `score >= low + k * step` have level k or more."""
    edges = low + step * np.arange(1, LEVELS)
    return np.searchsorted(edges, scores.astype(np.float64), side="right").astype(np.uint8)


def script(name: str, value: Any) -> str:
    """Write a value as an ASCII script that the page can load from disk; `<`, `>` and `&` in it are escaped."""
    text = json.dumps([name, value], separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # they are inside strings only
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"visaBrowser.arrived(...{text});\n"


def _png(pixels: NDArray[np.uint8]) -> str:
    """Encode an 8-bit grey PNG as a data URL: a page on disk may read its pixels, unlike those of a file."""
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
