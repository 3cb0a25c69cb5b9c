"""The defect browser of a run: static files that show every scored test image, to be opened from the disk."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image

import visa
from visa.data.images import open_upright
from visa.data.setups import SETUPS
from visa.data.source import Source
from visa.detect.scores import EVALUATION_SIZE
from visa.errors import VisaError
from visa.paths import locked, written_whole
from visa.provenance import digest, read_sidecar, write_text
from visa.report.browser.records import LEVELS, Record, read_record, script
from visa.report.cases import HEAT
from visa.report.collect import SCORES
from visa.report.layout import DETECTORS
from visa.report.layout import SETUPS as TITLES

PAGE = Path(__file__).parent / "page"
SIDE = 320  # long side of the small pictures, in pixels
_QUALITY = 80


class Picture(NamedTuple):
    """The address of a small picture on the page, and its width and height."""

    address: str
    size: tuple[int, int]


def build_browser(run: Path, source: Source) -> Path:
    """Write `run`/browser from all scores of the run's objects on disk; returns its `index.html`.

    All pre-trainings, scopes, seeds and detectors can be chosen in it; of a few-shot setup the first draw. What an
    earlier call wrote is kept where it still holds, so that a call after each scoring costs what is new. Of calls side
    by side one waits for the other, and so the last one sees all scores.
    Raises VisaError if nothing is scored, if scores cannot be read, or if an image is gone or broken.
    """
    with locked(run / ".browser", patience=600):
        return _build(run, source, run / "browser")


def _build(run: Path, source: Source, folder: Path) -> Path:
    found = _found(run, source)
    if not found:
        raise VisaError(f"nothing is scored in {run}: run notebook 04_score first.")
    records = {file: read_record(file, folder / "scored") for files in found.values() for file in files}
    pictures = _write_pictures(folder / "images", source.root, {p for r in records.values() for p in r.paths})
    parts: list[dict[str, Any]] = []
    models = sorted({_model(run, file) for file in records})
    for (object, setup), files in found.items():
        masks = {p: m for file in records if _object(run, file) == object for p, m in records[file].masks.items()}
        images = _images(records[files[-1]], source.defects(object), pictures, masks)
        scorings = [_scoring(run, file, records[file], models) for file in files]
        name = f"parts/{digest([object, setup])}.js"
        write_text(folder / name, script(name, {"images": images, "scorings": scorings}))
        chosen = [[s["model"], s["detector"]] for s in scorings]
        parts.append({"object": object, "setup": setup, "file": name, "scored": chosen})
    _write_page(folder, {"about": _about(run, source), "parts": parts, "models": [_named(*m) for m in models]})
    kept = [folder / part["file"] for part in parts]
    _clean(
        folder,
        [*kept, *(folder / p.address for p in pictures.values()), *(folder / r.folder for r in records.values())],
    )
    return folder / "index.html"


def _found(run: Path, source: Source) -> dict[tuple[str, str], list[Path]]:
    """Files of scores by object and setup, the newest last; those of other test images than the newest's are left out.

    The setups come in the paper's order.
    """
    groups = defaultdict(list)
    for file in sorted(run.glob(SCORES), key=lambda f: f.stat().st_mtime_ns):
        *_, setup, _, draw, _ = file.parts
        if draw == "draw0" and _object(run, file) in source.objects and setup in SETUPS:
            groups[_object(run, file), setup].append(file)
    order = sorted(groups, key=lambda group: (source.objects.index(group[0]), SETUPS.index(group[1])))
    return {group: _of_newest_images(groups[group]) for group in order}


def _of_newest_images(files: Sequence[Path]) -> list[Path]:
    def paths(file: Path) -> list[str]:
        with np.load(file, allow_pickle=False) as stored:
            return list(stored["paths"])

    kept = [file for file in files if paths(file) == paths(files[-1])]
    if left := len(files) - len(kept):
        print(f"{left} older scores are left out of the browser: they are of other test images. Score them again.")
    return kept


def _object(run: Path, file: Path) -> str:
    return file.relative_to(run).parts[1]


def _model(run: Path, file: Path) -> tuple[str, str, int]:
    """Pre-training, scope and seed; the scope is `object` where it is the object itself."""
    _, object, pretraining, scope, seed = file.relative_to(run).parts[:5]
    return pretraining, "object" if scope == object else scope, int(seed.removeprefix("seed"))


def _named(pretraining: str, scope: str, seed: int) -> dict[str, Any]:
    return {"pretraining": pretraining, "scope": scope, "seed": seed}


def _images(
    record: Record, defects: dict[str, tuple[str, ...]], pictures: dict[str, Picture], masks: dict[str, str]
) -> list[dict[str, Any]]:
    return [
        {
            "name": path,
            "anomalous": bool(label),
            "known": known,
            "defects": list(defects.get(path, ())),
            "picture": pictures[path].address,
            "shape": pictures[path].size,
            "mask": masks.get(path),
        }
        for path, label, known in zip(record.paths, record.labels, record.known, strict=True)
    ]


def _scoring(run: Path, file: Path, record: Record, models: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
    sidecar = read_sidecar(file) or {}
    machine = sidecar.get("machine") or {}
    return {
        "model": models.index(_model(run, file)),
        "detector": file.parts[-3],
        "scores": record.image_scores,
        "au_pr": record.au_pr,
        "maps": record.maps,
        "folder": record.folder,
        "made": {
            "settings": sidecar.get("settings", {}),
            "written": sidecar.get("written", ""),
            "commit": machine.get("commit") or "",
        },
    }


def _about(run: Path, source: Source) -> dict[str, Any]:
    return {
        "run": run.name,
        "dataset": source.name,
        "synthetic": source.synthetic,
        "version": visa.__version__,
        "size": EVALUATION_SIZE,
        "setups": TITLES,
        "detectors": DETECTORS,
        "heat": (mpl.colormaps[HEAT](np.arange(LEVELS), bytes=True)[:, :3]).ravel().tolist(),
    }


def _write_page(folder: Path, index: dict[str, Any]) -> None:
    for file in PAGE.iterdir():
        write_text(folder / file.name, file.read_text(encoding="utf-8"))
    write_text(folder / "index.js", script("index.js", index))


def _write_pictures(folder: Path, root: Path, paths: Iterable[str]) -> dict[str, Picture]:
    """Small pictures of the images below `root`, each named by a digest: no name of a user's enters an address."""

    def write(path: str) -> Picture:
        about = (root / path).stat() if (root / path).is_file() else None
        file = folder / (digest([path, SIDE, _QUALITY, about and (about.st_size, about.st_mtime_ns)]) + ".webp")
        if not file.is_file():
            picture = open_upright(root / path).convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            with written_whole(file) as partial:
                picture.save(partial, "WEBP", quality=_QUALITY)
        with Image.open(file) as written:
            return Picture(f"{folder.name}/{file.name}", written.size)

    ordered = sorted(paths)
    with ThreadPoolExecutor() as pool:
        return dict(zip(ordered, pool.map(write, ordered), strict=True))


def _clean(folder: Path, kept: Iterable[Path]) -> None:
    """Delete parts, pictures and scores that are of no use any more."""
    keep = set(kept)
    for old in (path for part in ("parts", "images", "scored") for path in (folder / part).iterdir()):
        if old not in keep:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
