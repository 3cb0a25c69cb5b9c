"""Everything that a run left behind, as tables: training curves, diagnoses, run times, provenance."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from visa.provenance import machine
from visa.report.tables import load_metrics


def run_metrics(run: Path) -> pd.DataFrame:
    """All figures of a run, one a row (see `load_metrics`)."""
    return load_metrics(sorted(run.glob("scores/*/*/seed*/metrics.csv")))


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
    """What made the run: data set, each pre-training's settings, code version, libraries and machine."""
    sidecars = {
        "/".join(map(str, where.values())): json.loads(file.read_text())
        for where, folder in _pretrainings(run)
        if (file := folder / "backbone.safetensors.json").is_file()
    }
    facts = ("settings", "images", "data", "seconds", "device", "written")
    return {
        **json.loads((run / "run.json").read_text()),
        "pretrainings": {name: {k: s[k] for k in facts} for name, s in sidecars.items()},
        "machine": machine(),
    }


def _pretrainings(run: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    for file in sorted(run.glob("pretrain/*/*/seed*/diagnosis.json")):
        pretraining, scope, seed = file.parent.parts[-3:]
        yield {"pretraining": pretraining, "scope": scope, "seed": int(seed.removeprefix("seed"))}, file.parent
