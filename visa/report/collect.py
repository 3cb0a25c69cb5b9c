"""Collect a run's results: metrics and files of scores as tables, and how they were made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from visa.data.setups import SETUPS
from visa.errors import check_choice
from visa.provenance import read_sidecar
from visa.report.tables import load_metrics

# Below a run: object, pre-training, scope and seed; for a file of scores, setup, detector and draw too.
_METRICS = "scores/*/*/*/seed*/metrics.csv"
_SCORES = "scores/*/*/*/seed*/*/*/draw*/scores.npz"
_FIRST = (*SETUPS, "patchcore", "padim", "unet")  # which case to show first: one with maps


def run_metrics(run: Path, scope: str = "") -> pd.DataFrame:
    """Read the metrics of a run, one per row (see `load_metrics`), of one scope and of weights from elsewhere.

    `scope` names the images of the pre-training: `object` for the object itself, `all`, or a folder's name. Empty
    means `object` if the run has it, else the run's first scope.
    """
    return load_metrics(_of_scope(scored_files(run, _METRICS), scope)["file"])


def run_scores(run: Path, scope: str = "") -> pd.DataFrame:
    """List the files of scores of one scope, as in `run_metrics`: rows of `scored_files`."""
    return _of_scope(scored_files(run), scope)


def scored_files(run: Path, pattern: str = _SCORES) -> pd.DataFrame:
    """List the files of scores, one row per `file`; `scope` is `object` if it is the scored object's own."""
    rows = []
    for file in sorted(run.glob(pattern)):
        object, pretraining, scope, seed, *of = file.relative_to(run).parts[1:-1]
        setup, detector, draw = of or ("", "", "0")
        numbers = int(seed.removeprefix("seed")), int(draw.removeprefix("draw"))
        rows.append((object, pretraining, "object" if scope == object else scope, setup, detector, *numbers, file))
    columns = ["object", "pretraining", "scope", "setup", "detector", "seed", "draw", "file"]
    return pd.DataFrame(rows, columns=columns)


def _of_scope(found: pd.DataFrame, scope: str) -> pd.DataFrame:
    """Return the rows of one scope (empty: `object`, else the first), and those of weights from elsewhere."""
    scopes = sorted(set(found["scope"]) - {"given"}, key=lambda name: (name != "object", name))
    return found[found["scope"].isin([scope or next(iter(scopes), "given"), "given"])]


def pick_case(found: pd.DataFrame, setup: str = "", detector: str = "", object: str = "") -> pd.DataFrame:
    """Pick the rows of `run_scores` of one setup, detector, object, seed and draw: a row for each pre-training.

    An empty argument takes the paper's first setup, a detector with maps, the first object; seed and draw are the
    first. Raises VisaError for a choice without scores. The result is empty if there are no scores at all.
    """
    for column, wanted in {"setup": setup, "detector": detector, "object": object}.items():
        if wanted and len(found):
            check_choice(f"{column} with scores", wanted, found[column].unique())
            found = found[found[column] == wanted]
    columns, rank = ["setup", "detector", "object", "seed", "draw"], {k: i for i, k in enumerate(_FIRST)}
    cases = found[columns].itertuples(index=False, name=None)
    ranked = sorted(cases, key=lambda case: [(rank.get(name, len(rank)), name) for name in case])
    return found.merge(pd.DataFrame(ranked[:1], columns=columns))


def run_provenance(run: Path) -> dict[str, Any]:
    """Read the run's data set, the settings of each pre-training and scoring, and the distinct machines."""
    weights = {"/".join(map(str, where.values())): f / "backbone.safetensors" for where, f in pretrainings(run)}
    scored = {str(file.parent.relative_to(run / "scores")): file for file in sorted(run.glob(_METRICS))}
    facts, machines = json.loads((run / "run.json").read_text()), []
    for kind, files in (("pretrainings", weights), ("scores", scored)):
        records = {name: read_sidecar(file) or {} for name, file in files.items()}
        machines += [record.get("machine") for record in records.values()]
        left_out = ("machine", "key", "diagnosis")
        facts[kind] = {name: {k: v for k, v in r.items() if k not in left_out} for name, r in records.items()}
    return {**facts, "machines": [m for i, m in enumerate(machines) if m not in machines[:i]]}


def pretrainings(run: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Find each finished pre-training of a run: its name, scope and seed, and its folder."""
    for file in sorted(run.glob("pretrain/*/*/seed*/diagnosis.json")):
        pretraining, scope, seed = file.parent.parts[-3:]
        yield {"pretraining": pretraining, "scope": scope, "seed": int(seed.removeprefix("seed"))}, file.parent
