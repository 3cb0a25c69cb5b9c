"""The files of a folder in book/results, as one long table, and what made them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from visa.report import tables

SHOWN = {  # settings that a caption names
    "object": "object",
    "arch": "network",
    "epochs": "epochs",
    "image_size": "view size",
    "seed": "seeds",
    "seeds": "seeds",
}
LONG = ["variant", "seed", "draw", "measure", "value"]


def long_table(folder: Path) -> pd.DataFrame:
    """Columns LONG, of whichever result files `folder` has; no row where it has none.

    A variant is a pre-training or a variant of the ablation. A measure of metrics.csv is called by its setup,
    detector, level and metric: `1cls padim image au_pr`.
    """
    parts = [pd.DataFrame(columns=LONG)]
    if (folder / "metrics.csv").is_file():
        parts.append(of_metrics(tables.overall(tables.load_metrics([folder / "metrics.csv"]))))
    if (folder / "diagnosis.csv").is_file():
        parts.append(of_diagnoses(pd.read_csv(folder / "diagnosis.csv")))
    for name in ("ablation", "counts"):
        if (folder / f"{name}.csv").is_file():
            parts.append(pd.read_csv(folder / f"{name}.csv", keep_default_na=False).assign(draw=0)[LONG])
    if (folder / "similarity.csv").is_file():
        rows = pd.read_csv(folder / "similarity.csv")
        measures = rows["change"] + rows["area"].map(" {:g}".format)
        parts.append(rows.assign(measure=measures, variant=rows["pretraining"], value=rows["cosine"], draw=0)[LONG])
    found = [part for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else parts[0]


def of_metrics(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of metrics.csv as a long table; objects are averaged."""
    names = metrics[["setup", "detector", "level", "metric"]].agg(" ".join, axis=1)
    table = metrics.assign(measure=names).rename(columns={"pretraining": "variant"})
    return table.groupby(LONG[:-1], sort=False)["value"].mean().reset_index()


def of_diagnoses(diagnoses: pd.DataFrame) -> pd.DataFrame:
    """Rows of diagnosis.csv as a long table; what a pre-training has no value for is left out."""
    if diagnoses.empty:
        return pd.DataFrame(columns=LONG)
    columns = [c for c in diagnoses if c not in ("pretraining", "scope", "seed")]
    long = diagnoses.assign(draw=0).melt(["pretraining", "seed", "draw"], columns, "measure")
    return long.rename(columns={"pretraining": "variant"}).dropna()[LONG]


def origin(folder: Path, command: str) -> str:
    """One sentence on what made the figures of `folder`: command, data, commit and the settings of its runs."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    dataset = next((r["dataset"] for r in records if "dataset" in r), "")
    settings = [s for r in records for s in _settings(r)]
    shown = [_values(settings, key) for key in SHOWN]
    made = [dataset, *filter(None, shown), *(f"commit `{c}`" for c in commits(folder))]
    return f"Made by `{command}`: {', '.join(filter(None, made))}."


def _settings(record: Any) -> list[dict[str, Any]]:
    """The settings of every pre-training, or of the one run that a record is of."""
    runs = [run.get("settings", {}) for run in record.get("pretrainings", {}).values()]
    return runs or [record.get("settings", {})]


def _values(settings: list[dict[str, Any]], key: str) -> str:
    """`key 0, 1, 2`: each value that a setting has, once."""
    found = dict.fromkeys(str(s[key]) for s in settings if s.get(key) not in (None, ""))
    return f"{SHOWN[key]} {', '.join(found)}" if found else ""


def commits(folder: Path) -> list[str]:
    """Commits that made the files of `folder`, by their JSON files, seven digits each."""
    found: dict[str, None] = {}
    for file in sorted(folder.glob("*.json")):
        found |= dict.fromkeys(_commits(json.loads(file.read_text(encoding="utf-8"))))
    return [commit[:7] + commit[40:] for commit in found]  # and whether there were local changes


def _commits(record: Any) -> list[str]:
    if isinstance(record, list):
        return [commit for item in record for commit in _commits(item)]
    if not isinstance(record, dict):
        return []
    own = [record["commit"]] if isinstance(record.get("commit"), str) else []
    return own + [commit for item in record.values() for commit in _commits(item)]
