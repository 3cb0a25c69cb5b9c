"""Measured metrics as tables: mean and spread over seeds and draws, paired differences, and the paper's tables.

A table becomes Markdown, LaTeX or CSV.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from visa.detect.scores import COLUMNS
from visa.errors import VisaError, check_choice
from visa.provenance import write_text

GROUP = ("object", "setup", "pretraining", "detector", "level", "metric")
PAIRED = tuple(c for c in GROUP if c != "pretraining")
METRICS = {"auroc": "AU-ROC", "au_pr": "AU-PR", "ap": "AP", "f1_max": "F1-max", "au_pro": "AU-PRO"}
SHOWN = ("au_pr", "auroc")  # the paper's primary metric and its secondary one
TITLES = {  # the paper's names of setups, levels and detectors, in its order
    "1cls": "1-class",
    "2cls_highshot": "2-class high-shot",
    "2cls_10shot": "2-class 10-shot",
    "2cls_5shot": "2-class 5-shot",
    "image": "image classification",
    "pixel": "segmentation",
    "padim": "PaDiM",
    "patchcore": "PatchCore",
    "unet": "U-Net",
}
SPREAD = "Mean ± standard deviation; paired differences with their 95 % t-interval: over seeds, or draws of one seed."
_REPEATED = 1e-12  # standard deviation of equal values
_NUMBER = r"([▲▼] )?\**[+−-]?\d[\d,.]*\**( ?%)?|–?"  # a cell of a column of plain numbers
_NBSP = "\N{NO-BREAK SPACE}"  # a narrow table breaks between numbers, not inside one


def title_of(key: str) -> str:
    """Return the paper's name of a setup, level or detector, or `key` itself if the paper has none."""
    return TITLES.get(key, key)


def load_metrics(files: Iterable[Path]) -> pd.DataFrame:
    """Read `metrics.csv` files into one table: one metric per row, columns COLUMNS, in the files' order.

    `draw` numbers the few-shot draws (0 elsewhere); `defect` is empty for all anomalies, else a defect class. A file
    may lack these two. Raises VisaError for a missing file or column, a value that is not a number, one metric given
    twice, and a mix of data sets, so that metrics of mini-VisA and of VisA are never in one table.
    """
    tables, types = [], {c: str for c in COLUMNS if c not in ("draw", "seed")} | {"value": float}
    for file in files:
        try:
            read = pd.read_csv(file, dtype=types, keep_default_na=False)
            tables.append(pd.DataFrame({"draw": 0, "defect": ""}, read.index).assign(**read)[list(COLUMNS)])
        except (OSError, ValueError, KeyError) as error:
            raise VisaError(
                f"no metrics in {file} ({error}): run the notebooks (visa run, or make reproduce)."
            ) from error
    if not tables:
        raise VisaError("no metrics.csv to read: run the notebooks first (visa run, or make reproduce).")
    metrics = pd.concat(tables, ignore_index=True)
    datasets = sorted(metrics["dataset"].astype(str).unique())
    if len(datasets) > 1:
        raise VisaError(f"these metrics mix the data sets {', '.join(datasets)}: read them apart.")
    twice = metrics[metrics.duplicated(list(COLUMNS[:-1]))]
    if len(twice):
        raise VisaError(f"a metric is given twice: {', '.join(map(str, twice.iloc[0][list(COLUMNS)]))}; drop one file.")
    return metrics


def overall(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics over all anomalies: the rows without a defect class."""
    return metrics[metrics["defect"] == ""] if "defect" in metrics else metrics


def balanced(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the objects, seeds and draws that every pre-training has, so that means are comparable.

    Each setup and detector is compared among the pre-trainings that were scored with it. The result is empty if no
    object was scored with every pre-training on a common seed.
    """
    parts = [metrics[:0]]
    for _, part in metrics.groupby(["setup", "detector"], sort=False):
        scored = part.groupby(["object", "seed", "draw"])["pretraining"].nunique().unstack("object", fill_value=0)
        common = scored == part["pretraining"].nunique()  # a row per seed and draw, a column per object
        common = common.loc[common.any(axis=1), common.any()]
        # An unfinished run may have more seeds for some objects: keep complete objects or seeds, whichever leave more.
        kept = max(common.loc[:, common.all()], common[common.all(axis=1)], key=lambda table: table.size)
        units = pd.MultiIndex.from_frame(part[["seed", "draw"]])
        parts.append(part[part["object"].isin(kept.columns) & units.isin(kept.index)])
    return pd.concat(parts)


def spd_pairs(names: Iterable[str]) -> dict[str, str]:
    """Map each pre-training with SPD to its baseline, the same without SPD, if both are among `names`."""
    there = list(names)
    return {name: name.removesuffix("+spd") for name in there if name.removesuffix("+spd") in set(there) - {name}}


def summary_table(metrics: pd.DataFrame, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Compute mean and spread for each group of `by`, over all anomalies unless `by` holds `defect`.

    Columns that are not in `by` are averaged first, within each seed and draw: without `object`, over objects. Draws
    are averaged next, within each seed. Columns: `mean`; `sd` over the `n` seeds (divisor n - 1; NaN for one seed);
    `draws`, the least number of draws of a seed; `sd_draws` over the draws of one seed (root mean square over seeds).
    Raises VisaError if a seed or draw lacks an object, or another value that is averaged, that another one has.
    """
    return _spread_over(_units(metrics, list(by)), list(by))


def paired_difference(metrics: pd.DataFrame, a: str, b: str, by: Sequence[str] = PAIRED) -> pd.DataFrame:
    """Subtract pre-training `b` from `a`, paired by seed and draw: a `summary_table` with `low` and `high`.

    Draws are averaged for each seed. `low` to `high` is the 95 % t-interval of the mean over `over`: `seeds`, or
    `draws` where there is one seed or all seeds give the same differences (a probe on given weights). One pair has no
    interval (NaN, `over` empty). Seeds vary initial weights and batches; draws vary the training images; neither varies
    the object. Incomplete pairs are left out. Raises VisaError if a pre-training is unknown or both have no seed (and
    draw) in common, and as `summary_table` does.
    """
    for name in (a, b):
        check_choice("pre-training", name, metrics["pretraining"].unique())
    difference = _minus(metrics[[c for c in COLUMNS if c in metrics]], "pretraining", a, b)
    if difference.empty:
        raise VisaError(f"{a} and {b} have no seed in common: run both with the same seeds.")
    return _with_interval(_units(difference, list(by)), list(by))


def _minus(table: pd.DataFrame, column: str, first: str, second: str) -> pd.DataFrame:
    """Subtract the values where `column` is `second` from those where it is `first`; all other columns must agree."""
    keys = [c for c in table if c not in (column, "value")]
    a, b = (table[table[column] == name].set_index(keys)["value"] for name in (first, second))
    return (a - b.reindex(a.index)).dropna().reset_index()


def _units(metrics: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Average over all other columns, to one value for each group of `keys`, seed and draw."""
    values = metrics if "defect" in keys else overall(metrics)
    values = values if "draw" in values else values.assign(draw=0)
    grouped = values.groupby([*keys, "seed", "draw"], sort=False)["value"]
    sizes = grouped.size().groupby(keys, sort=False).agg(["min", "max"])
    uneven = sizes[sizes["min"] != sizes["max"]]
    if len(uneven):
        raise VisaError(f"the seeds and draws of {uneven.index[0]} do not cover the same metrics: complete the runs.")
    return grouped.mean().reset_index()


def _spread_over(units: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Compute the columns of `summary_table` for each group of `keys`."""
    seeds = units.groupby([*keys, "seed"], sort=False)["value"].agg(["mean", "var", "count"])
    grouped = seeds.groupby(keys, sort=False)
    table = grouped["mean"].agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "n"})
    return table.assign(draws=grouped["count"].min(), sd_draws=grouped["var"].mean() ** 0.5).reset_index()


def _with_interval(units: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Add the 95 % t-interval of the mean to a `summary_table`: over seeds that differ, else draws, else none (NaN)."""
    table = _spread_over(units, keys)
    seeds, draws = (table["n"] > 1) & (table["sd"] > _REPEATED), table["draws"] > 1
    n, sd = table["n"].where(seeds, table["draws"]), table["sd"].where(seeds, table["sd_draws"])
    half = stats.t.ppf(0.975, n - 1) * sd / n**0.5
    over = np.select([seeds, draws], ["seeds", "draws"], "")
    return table.assign(over=over, low=table["mean"] - half, high=table["mean"] + half)


def mean_sd(line: "pd.Series[float]") -> str:
    """Write a line of a `summary_table` as `mean ± sd` over seeds; over draws where there is one seed."""
    sd = line["sd"] if line["n"] > 1 else line["sd_draws"]
    return f"{line['mean']:.3f}" + ("" if np.isnan(sd) else f"{_NBSP}±{_NBSP}{sd:.3f}")


def mean_interval(line: "pd.Series[float]") -> str:
    """Write a line of a `paired_difference` as `mean [low, high]`, with signs."""
    interval = "" if np.isnan(line["low"]) else f" [{line['low']:+.3f},{_NBSP}{line['high']:+.3f}]"
    return f"{line['mean']:+.3f}{interval}".replace("-", "−")


def lay_out(table: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    """Lay out a `summary_table` or a `paired_difference` for readers: `rows` down, levels and metrics across.

    Cells are those of `mean_sd` or `mean_interval`. The first columns give the least numbers of seeds and of draws.
    """
    cell = mean_interval if "low" in table else mean_sd
    table = table[table["metric"].isin(list(METRICS))]
    text = [cell(line) for _, line in table.iterrows()]
    wide = _wide(table.assign(text=text, column=table["level"] + " " + table["metric"].map(METRICS)), rows)
    counts = table.groupby(list(rows))[["n", "draws"]].min().rename(columns={"n": "seeds"})
    if (table["draws"] <= 1).all():
        counts = counts.drop(columns="draws")
    return counts.reindex(wide.index).join(wide).reset_index()


def _wide(cells: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    """Pivot `text` to a row for each of `rows`, a column for each `column`, both in the order they first appear in."""
    places = {row: {value: place for place, value in enumerate(cells[row].unique())} for row in rows}
    wide = cells.pivot(index=list(rows), columns="column", values="text")
    wide = wide.sort_index(key=lambda level: level.map(places[str(level.name)]))
    return wide[list(cells["column"].unique())].fillna("–").rename_axis(columns=None)


def to_markdown(table: pd.DataFrame) -> str:
    """Write a pipe table: numbers to three decimals, columns of numbers right-aligned, missing values as an en dash."""
    text = table.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value)).where(table.notna(), "–")
    rules = ["---:" if cells.str.fullmatch(_NUMBER).all() else "---" for _, cells in text.items()]
    lines = [[str(c) for c in table.columns], rules, *text.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def to_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """Write a booktabs table for \\input; the caption is plain text."""
    caption = re.sub(r"([%&#_$])", r"\\\1", caption)
    text = table.to_latex(index=False, escape=True, caption=caption, label=label, position="t")
    return text.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--").replace(_NBSP, "~")


@dataclass(frozen=True)
class Table:
    """A table for readers: a plain file `name`, a `caption` that names the data set, and `cells` of text."""

    name: str
    caption: str
    dataset: str
    cells: pd.DataFrame


def write_tables(folder: Path, made: Sequence[Table]) -> None:
    """Write NAME.csv, whose first column is the data set, and NAME.tex of each table to `folder`."""
    for table in made:
        cells = pd.DataFrame({"dataset": table.dataset, **table.cells})
        write_text(folder / f"{table.name}.csv", cells.to_csv(index=False))
        write_text(folder / f"{table.name}.tex", to_latex(table.cells, table.caption, f"tab:{table.name}"))


def paper_tables(metrics: pd.DataFrame, note: str = "") -> list[Table]:
    """Make a table of each setup, task and metric in the paper's order: AU-PR and AU-ROC over all anomalies.

    Rows are detectors and objects. Columns are the pre-trainings (`mean ± sd` of `summary_table`), then each one with
    SPD minus its baseline (`mean [low, high]` of `paired_difference`). A detector's last row is the mean over the
    objects that every pre-training has (for a difference: both). Captions name the data set and end in `note`.
    """
    chosen, order = overall(metrics), [*TITLES, *SHOWN]
    groups = chosen[chosen["metric"].isin(SHOWN)].groupby(["dataset", "setup", "level", "metric"], sort=False)
    made = []
    for key, part in sorted(groups, key=lambda g: [order.index(k) if k in order else len(order) for k in g[0][1:]]):
        dataset, setup, level, metric = map(str, key)
        rows = [_cells(part, "object")]
        if part["object"].nunique() > 1:
            rows.append(_cells(part, "").assign(object="mean"))
        cells = pd.concat(rows)
        cells["detector"] = cells["detector"].map(title_of)
        columns = sorted(cells["column"].unique(), key=lambda name: (" − " in name, name != "random"))
        caption = f"{dataset}, {title_of(setup)}, {title_of(level)}: {METRICS[metric]}. {SPREAD} {note}".strip()
        name = "_".join([setup, title_of(level).split()[-1], metric])
        made.append(Table(name, caption, dataset, _wide(cells, ["detector", "object"])[columns].reset_index()))
    return made


def _cells(part: pd.DataFrame, row: str) -> pd.DataFrame:
    """Write the cells of one setup, level and metric: `detector`, `row` (empty: the mean over objects), `column`."""
    keys = ["detector", *filter(None, [row])]
    means = summary_table(part if row else balanced(part), [*keys, "pretraining"])
    found = [means.assign(column=means["pretraining"], text=[mean_sd(line) for _, line in means.iterrows()])]
    for name, base in spd_pairs(part["pretraining"].unique()).items():
        two = part[part["pretraining"].isin([name, base])]
        with suppress(VisaError):  # the two have no object, seed and draw in common
            table = paired_difference(two if row else balanced(two), name, base, keys)
            text = [mean_interval(line) for _, line in table.iterrows()]
            found.append(table.assign(column=f"{name} − {base}", text=text))
    return pd.concat(found)[[*keys, "column", "text"]]
