"""Everything that a run left behind, as tables: training curves, diagnoses, run times, provenance."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from visa.provenance import read_sidecar
from visa.report.tables import load_metrics


def run_metrics(run: Path, scope: str = "") -> pd.DataFrame:
    """The figures of a run, one a row (see `load_metrics`), of one scope and of weights from elsewhere.

    `scope` says what pre-trainings saw: `object` the object itself, `all`, or a folder's name. Empty: `object` where
    the run has such, else its first.
    """
    files = {file: _scope(file) for file in sorted(run.glob("scores/*/*/*/seed*/metrics.csv"))}
    scopes = sorted(set(files.values()) - {"given"}, key=lambda name: (name != "object", name))
    chosen = scope or next(iter(scopes), "given")
    return load_metrics(file for file, own in files.items() if own in (chosen, "given"))


def _scope(metrics_file: Path) -> str:
    object, _, scope, _ = metrics_file.parts[-5:-1]
    return "object" if scope == object else scope


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
