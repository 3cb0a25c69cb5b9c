"""Measured figures as tables: mean and spread over seeds and draws, paired differences, markdown and LaTeX."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from visa.errors import VisaError, check_choice

COLUMNS = (
    *("dataset", "object", "setup", "draw", "pretraining", "seed"),
    *("detector", "defect", "level", "metric", "value"),
)
_DEFAULTS: dict[str, int | str] = {"draw": 0, "defect": ""}  # of a file without the column
GROUP = ("object", "setup", "pretraining", "detector", "level", "metric")
_REPEATED = 1e-12  # standard deviation of equal values
_NBSP = "\N{NO-BREAK SPACE}"  # a narrow table breaks between figures, not inside one
PAIRED = tuple(c for c in GROUP if c != "pretraining")
METRICS = {"auroc": "AU-ROC", "au_pr": "AU-PR", "ap": "AP", "f1_max": "F1-max", "au_pro": "AU-PRO"}


def load_metrics(files: Iterable[Path]) -> pd.DataFrame:
    """All rows of some `metrics.csv`: one figure a row, columns COLUMNS, in the files' order.

    `draw` numbers the few-shot draws (0 elsewhere); `defect` is empty for all anomalies, else a defect class. A file
    may lack these two. Raises VisaError for an absent file or column, a value that is no number, one figure given
    twice, and a mix of data sets: figures of mini-VisA never stand beside those of VisA.
    """
    tables = [_read(Path(file)) for file in files]
    if not tables:
        raise VisaError("no metrics.csv to read: run the notebooks first (visa run, or make reproduce).")
    metrics = pd.concat(tables, ignore_index=True)
    datasets = sorted(metrics["dataset"].astype(str).unique())
    if len(datasets) > 1:
        raise VisaError(f"these metrics mix the data sets {', '.join(datasets)}: read them apart.")
    twice = metrics[metrics.duplicated(list(COLUMNS[:-1]))]
    if len(twice):
        raise VisaError(f"a figure is given twice: {', '.join(map(str, twice.iloc[0][list(COLUMNS)]))}; drop one file.")
    return metrics


def overall(metrics: pd.DataFrame) -> pd.DataFrame:
    """The figures over all anomalies: the rows that are of no single defect class."""
    return metrics[metrics["defect"] == ""] if "defect" in metrics else metrics


def balanced(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of the objects, seeds and draws that every pre-training has, so that means compare like with like.

    Each setup and detector is looked at on its own, among the pre-trainings that were scored with it. May be empty:
    then no object was scored with every pre-training on a common seed.
    """
    parts = [part[_common(part)] for _, part in metrics.groupby(["setup", "detector"], sort=False)]
    return pd.concat(parts) if parts else metrics


def _common(metrics: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows are of an object, seed and draw that every pre-training has; all objects have all seeds and draws."""
    units = pd.Series(list(zip(metrics["seed"], metrics["draw"], strict=True)), metrics.index)
    covered = [set(zip(metrics["object"][rows], units[rows], strict=True)) for rows in _rows_of_each(metrics)]
    common = set.intersection(*covered)
    objects, everywhere = {o for o, _ in common}, {unit for _, unit in common}
    complete = {o for o in objects if all((o, unit) in common for unit in everywhere)}
    shared = {unit for unit in everywhere if all((o, unit) in common for o in objects)}
    # A run that goes object by object is a seed ahead for some: what leaves more, of objects or of seeds, is kept.
    kept, kept_units = max((complete, everywhere), (objects, shared), key=lambda pair: len(pair[0]) * len(pair[1]))
    return metrics["object"].isin(kept) & units.isin(list(kept_units))


def _rows_of_each(metrics: pd.DataFrame) -> "list[pd.Series[bool]]":
    return [metrics["pretraining"] == name for name in metrics["pretraining"].unique()]


def spd_pairs(names: Iterable[str]) -> dict[str, str]:
    """Pre-training with SPD to its baseline, the same without, where both are among `names`."""
    there = list(names)
    return {name: name.removesuffix("+spd") for name in there if name.removesuffix("+spd") in set(there) - {name}}


def summary_table(metrics: pd.DataFrame, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Mean and spread for each group of `by`, of the figures over all anomalies unless `by` holds `defect`.

    What `by` leaves out is averaged first, for each seed and draw on its own: without `object`, the mean over
    objects. Draws are averaged next, for each seed. Columns: `mean`; `sd` over the `n` seeds (n - 1; NaN for one);
    `draws`, the least number of a seed; `sd_draws` over the draws of one seed (root mean square over seeds).
    Raises VisaError if a seed or draw lacks an object (or whatever else is left out) that another has.
    """
    return _spread_over(_units(metrics, list(by)), list(by))


def paired_difference(
    metrics: pd.DataFrame, a: str, b: str, by: Sequence[str] = PAIRED, confidence: float = 0.95
) -> pd.DataFrame:
    """Pre-training `a` minus `b`, paired by seed and draw: a `summary_table` with `low` and `high`.

    Draws are averaged for each seed. `low` to `high` is the t-interval of the mean over what the column `over` says:
    `seeds`, or `draws` where there is one seed, or where all seeds give the same differences, as those of a probe on
    given weights do. One pair has no interval (NaN, `over` empty). Seeds say how much initial weights and batches
    matter, draws how much the choice of training images does; neither how another object would fare.
    Pairs that lack one side are left out. Raises VisaError if a pre-training is unknown or no seed (and draw) is
    common to both, and as `summary_table` does for what `by` leaves out.
    """
    for name in (a, b):
        check_choice("pre-training", name, metrics["pretraining"].unique())
    keys = [c for c in COLUMNS if c in metrics and c not in ("pretraining", "value")]
    first, second = (metrics[metrics["pretraining"] == name].set_index(keys)["value"] for name in (a, b))
    difference = (first - second.reindex(first.index)).dropna().reset_index()
    if difference.empty:
        raise VisaError(f"{a} and {b} have no seed in common: run both with the same seeds.")
    return _with_interval(_units(difference, list(by)), list(by), confidence)


def differences_to(results: pd.DataFrame, reference: str, confidence: float = 0.95) -> pd.DataFrame:
    """Each variant minus `reference`, paired by seed (and draw): a row a variant and measure, as `paired_difference`.

    results: columns `variant`, `seed`, `measure`, `value`, and `draw` if there are draws; pairs that lack one side are
    left out. Raises VisaError if no variant has that name.
    """
    check_choice("variant", reference, results["variant"].unique())
    index = [c for c in ("measure", "seed", "draw") if c in results]
    wide = results.pivot_table(index=index, columns="variant", values="value", sort=False)
    difference = wide.drop(columns=reference).sub(wide[reference], axis=0).reset_index()
    difference = difference.melt(index, var_name="variant").dropna()
    keys = ["variant", "measure"]
    table = _with_interval(_units(difference, keys), keys, confidence)
    order = {name: i for i, name in enumerate(results["variant"].unique())}
    return table.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def spread(table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str] = ("level", "metric")) -> pd.DataFrame:
    """A `summary_table` laid out for reading: one cell `mean ± sd` (see `mean_sd`) for each of `rows` and `columns`."""
    return _lay_out(table, rows, columns, mean_sd)


def intervals(table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str] = ("level", "metric")) -> pd.DataFrame:
    """A `paired_difference` laid out for reading: one cell `mean [low, high]` for each of `rows` and `columns`."""
    return _lay_out(table, rows, columns, mean_interval)


def to_markdown(table: pd.DataFrame) -> str:
    """A pipe table; numbers to three decimals, absent values as an en dash."""
    lines = [[str(c) for c in table.columns], ["---"] * table.shape[1]]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def to_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """A booktabs table, to be read with \\input; the caption is plain text."""
    caption = re.sub(r"([%&#_$])", r"\\\1", caption)
    text = table.map(_cell).to_latex(index=False, escape=True, caption=caption, label=label, position="t")
    return text.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--").replace(_NBSP, "~")


def _units(metrics: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One value for each group of `keys`, seed and draw: the mean over what is left out."""
    values = metrics if "defect" in keys else overall(metrics)
    values = values if "draw" in values else values.assign(draw=0)
    grouped = values.groupby([*keys, "seed", "draw"], sort=False)["value"]
    _check_balanced(grouped.size(), keys)
    return grouped.mean().reset_index()


def _spread_over(units: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The columns of `summary_table` for each group of `keys`."""
    seeds = units.groupby([*keys, "seed"], sort=False)["value"].agg(["mean", "var", "count"])
    grouped = seeds.groupby(keys, sort=False)
    table = grouped["mean"].agg(["mean", "std", "count"]).rename(columns={"std": "sd", "count": "n"})
    return table.assign(draws=grouped["count"].min(), sd_draws=grouped["var"].mean() ** 0.5).reset_index()


def _with_interval(units: pd.DataFrame, keys: list[str], confidence: float) -> pd.DataFrame:
    """A `summary_table` and the t-interval of the mean: over seeds that differ, else over draws, else none (NaN)."""
    table = _spread_over(units, keys)
    seeds, draws = (table["n"] > 1) & (table["sd"] > _REPEATED), table["draws"] > 1
    n, sd = table["n"].where(seeds, table["draws"]), table["sd"].where(seeds, table["sd_draws"])
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * sd / n**0.5
    over = np.select([seeds, draws], ["seeds", "draws"], "")
    return table.assign(over=over, low=table["mean"] - half, high=table["mean"] + half)


def _read(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise VisaError(f"no metrics at {file}: run the notebooks first (visa run, or make reproduce).")
    text = {c: str for c in COLUMNS if c not in ("draw", "seed", "value")}
    table = pd.read_csv(file, dtype=text, keep_default_na=False)
    for column in set(_DEFAULTS) - set(table):
        table[column] = _DEFAULTS[column]
    absent = [c for c in COLUMNS if c not in table]
    if absent:
        raise VisaError(f"{file} lacks the columns {', '.join(absent)}: it has {','.join(COLUMNS)}.")
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    if table["value"].isna().any():
        line = int(table["value"].isna().to_numpy().argmax()) + 2
        raise VisaError(f"{file}, line {line}: the value is no number; make the file anew.")
    return table[list(COLUMNS)]


def _check_balanced(counts: "pd.Series[int]", by: list[str]) -> None:
    sizes = counts.groupby(by, sort=False).agg(["min", "max"])
    uneven = sizes[sizes["min"] != sizes["max"]]
    if len(uneven):
        raise VisaError(f"the seeds and draws of {uneven.index[0]} do not cover the same figures: complete the runs.")


def _lay_out(
    table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], cell: Callable[["pd.Series[float]"], str]
) -> pd.DataFrame:
    table = table[table["metric"].isin(list(METRICS))]
    order = [list(dict.fromkeys(table[r])) for r in rows]
    drawn = (table["draws"] > 1).any()
    lines: dict[tuple[Hashable, ...], dict[str, Any]] = {}
    for _, figure in table.iterrows():
        counts = {"seeds": figure["n"]} | ({"draws": figure["draws"]} if drawn else {})
        line = lines.setdefault(tuple(figure[r] for r in rows), {r: figure[r] for r in rows} | counts)
        line |= {what: min(line[what], count) for what, count in counts.items()}
        line[" ".join(METRICS.get(figure[c], str(figure[c])) for c in columns)] = cell(figure)
    ordered = sorted(lines, key=lambda key: [known.index(value) for known, value in zip(order, key, strict=True)])
    return pd.DataFrame([lines[key] for key in ordered]).fillna("–")


def mean_sd(line: "pd.Series[float]") -> str:
    """`mean ± sd` of a line of a `summary_table`, over seeds; over draws where there is one seed."""
    sd = line["sd"] if line["n"] > 1 else line["sd_draws"]
    return f"{line['mean']:.3f}" + ("" if np.isnan(sd) else f"{_NBSP}±{_NBSP}{sd:.3f}")


def mean_interval(line: "pd.Series[float]") -> str:
    """`mean [low, high]` of a line of a `paired_difference`, with signs."""
    interval = "" if np.isnan(line["low"]) else f" [{line['low']:+.3f},{_NBSP}{line['high']:+.3f}]"
    return f"{line['mean']:+.3f}{interval}".replace("-", "−")


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
