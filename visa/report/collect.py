"""Everything that a run left behind, as tables: figures, files of scores, training curves, run times, provenance."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from visa.data.setups import SPLIT_TYPE
from visa.data.source import Source
from visa.errors import check_choice
from visa.provenance import read_sidecar
from visa.report.layout import SETUPS
from visa.report.tables import load_metrics

# Below a run: object, pre-training, scope, seed, setup, detector and draw of a file of scores.
SCORES = "scores/*/*/*/seed*/*/*/draw*/scores.npz"
_WITH_MAPS = ("patchcore", "padim", "unet")


def run_metrics(run: Path, scope: str = "") -> pd.DataFrame:
    """The figures of a run, one a row (see `load_metrics`), of one scope and of weights from elsewhere.

    `scope` says what pre-trainings saw: `object` the object itself, `all`, or a folder's name. Empty: `object` where
    the run has such, else its first.
    """
    return load_metrics(_of_scope(run, sorted(run.glob("scores/*/*/*/seed*/metrics.csv")), scope))


def run_scores(run: Path, scope: str = "") -> pd.DataFrame:
    """Where the scores of single images are: a row a `file`, with what it is of; scopes as in `run_metrics`."""
    rows = []
    for file in _of_scope(run, sorted(run.glob(SCORES)), scope):
        object, pretraining, _, seed, setup, detector, draw = file.relative_to(run).parts[1:-1]
        numbers = int(seed.removeprefix("seed")), int(draw.removeprefix("draw"))
        rows.append((object, pretraining, setup, detector, *numbers, file))
    return pd.DataFrame(rows, columns=["object", "pretraining", "setup", "detector", "seed", "draw", "file"])


def pick_case(found: pd.DataFrame, setup: str = "", detector: str = "", object: str = "") -> pd.DataFrame:
    """The rows of `run_scores` of one setup, detector, object, seed and draw, a row a pre-training.

    What is left empty is chosen: the paper's first setup, a detector with maps, the first object, seed and draw.
    Raises VisaError for what has no scores. Empty if there are no scores at all.
    """
    if found.empty:
        return found
    first = {"setup": list(SETUPS), "detector": list(_WITH_MAPS), "object": []}
    for column, wanted in {"setup": setup, "detector": detector, "object": object}.items():
        if wanted:
            check_choice(f"{column} with scores", wanted, found[column].unique())
            found = found[found[column] == wanted]
    for column, order in first.items():
        names = list(found[column].unique())
        found = found[found[column] == next((name for name in order if name in names), names[0])]
    earliest = min(zip(found["seed"], found["draw"], strict=True))
    chosen = [unit == earliest for unit in zip(found["seed"], found["draw"], strict=True)]
    return found.loc[chosen]


def defect_images(source: Source, metrics: pd.DataFrame) -> dict[tuple[str, str], dict[str, int]]:
    """For each object and setup of `metrics`: test images of each defect class, and of all anomalies as class "".

    An image with several classes counts in each. Objects whose classes are not known have only the latter.
    """
    counts = {}
    for object, setup in metrics[["object", "setup"]].drop_duplicates().itertuples(index=False):
        test = source.samples(SPLIT_TYPE.get(setup, setup), object=object, split="test")
        bad = [s.image for s in test if s.label != "normal"]
        classes = source.defects(object)
        each = Counter(name for image in bad for name in classes.get(image, ()))
        counts[object, setup] = {**each, "": len(bad)}
    return counts


def _of_scope(run: Path, files: Iterable[Path], scope: str) -> list[Path]:
    """The files below `scores/` of one scope (empty: `object`, else the first), and of weights from elsewhere."""
    own = {}
    for file in files:
        object, _, trained_on = file.relative_to(run).parts[1:4]
        own[file] = "object" if trained_on == object else trained_on
    scopes = sorted(set(own.values()) - {"given"}, key=lambda name: (name != "object", name))
    chosen = scope or next(iter(scopes), "given")
    return [file for file, name in own.items() if name in (chosen, "given")]


def run_curves(run: Path) -> pd.DataFrame:
    """One row a training step: `pretraining`, `scope`, `seed` and the columns of `curves.csv`."""
    tables = [
        pd.read_csv(file).assign(**where)
        for where, folder in _pretrainings(run)
        if (file := folder / "curves.csv").is_file()
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["pretraining", "scope", "seed"])


def run_diagnoses(run: Path) -> pd.DataFrame:
    """One row a pre-training: what held-out images say of z and of the backbone."""
    rows = [where | json.loads((folder / "diagnosis.json").read_text()) for where, folder in _pretrainings(run)]
    return pd.DataFrame(rows)


def run_stages(run: Path) -> pd.DataFrame:
    """Run time in `seconds` of each stage that `visa run` executed: its notebook, pre-training, object and seed."""
    stamps = [json.loads(file.read_text()) for file in sorted(run.glob("stages/*.json"))]
    rows = []
    for stamp in stamps:
        p = stamp["parameters"]
        named = p.get("pretraining", f"{p['method']}{'+spd' if p.get('spd') else ''}" if "method" in p else "")
        row = {"stage": stamp["stage"], "notebook": stamp["notebook"], "pretraining": named}
        rows.append(row | {"object": p.get("object", ""), "seed": p.get("seed", ""), "seconds": stamp["seconds"]})
    return pd.DataFrame(rows, columns=["stage", "notebook", "pretraining", "object", "seed", "seconds"])


def run_provenance(run: Path) -> dict[str, Any]:
    """What made the run: data set, settings of each pre-training and scoring, and the distinct machines and codes."""
    pretrained = {
        "/".join(map(str, where.values())): read_sidecar(folder / "backbone.safetensors") or {}
        for where, folder in _pretrainings(run)
    }
    scored = {
        str(file.parent.relative_to(run / "scores")): read_sidecar(file) or {}
        for file in sorted(run.glob("scores/*/*/*/seed*/metrics.csv"))
    }
    machines = [record.get("machine") for record in (*pretrained.values(), *scored.values())]
    return {
        **json.loads((run / "run.json").read_text()),
        "pretrainings": {name: _facts(record) for name, record in pretrained.items()},
        "scores": {name: _facts(record) for name, record in scored.items()},
        "machines": [m for i, m in enumerate(machines) if m not in machines[:i]],
    }


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("key", "machine", "diagnosis")}


def _pretrainings(run: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    for file in sorted(run.glob("pretrain/*/*/seed*/diagnosis.json")):
        pretraining, scope, seed = file.parent.parts[-3:]
        yield {"pretraining": pretraining, "scope": scope, "seed": int(seed.removeprefix("seed"))}, file.parent
