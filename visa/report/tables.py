"""Measured figures as tables: mean and spread over seeds, paired differences, markdown and LaTeX."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from scipy import stats

from visa.errors import VisaError, check_choice

COLUMNS = ("dataset", "object", "setup", "pretraining", "seed", "detector", "level", "metric", "value")
GROUP = ("object", "setup", "pretraining", "detector", "level", "metric")
_NBSP = "\N{NO-BREAK SPACE}"  # a narrow table breaks between figures, not inside one
METRICS = {"auroc": "AU-ROC", "au_pr": "AU-PR", "ap": "AP", "f1_max": "F1-max", "au_pro": "AU-PRO"}


def load_metrics(files: Iterable[Path]) -> pd.DataFrame:
    """All rows of some `metrics.csv`: one figure a row, columns COLUMNS, in the files' order.

    Raises VisaError for an absent file or column, a value that is no number, one figure given twice, and a mix of
    data sets: figures of mini-VisA never stand beside those of VisA.
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


def balanced(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of the objects and seeds that every pre-training has, so that means compare like with like.

    May be empty: then no object was scored with every pre-training on a common seed.
    """
    covered = [set(zip(part["object"], part["seed"], strict=True)) for _, part in metrics.groupby("pretraining")]
    common = set.intersection(*covered) if covered else set()
    seeds = {seed for _, seed in common}
    objects = {o for o, _ in common if all((o, seed) in common for seed in seeds)}
    return metrics[metrics["object"].isin(objects) & metrics["seed"].isin(seeds)]


def summary_table(metrics: pd.DataFrame, by: Sequence[str] = GROUP) -> pd.DataFrame:
    """Mean, standard deviation (n - 1; NaN for one seed) and number of seeds for each group of `by`.

    What `by` leaves out is averaged first, for each seed on its own: without `object`, the mean over objects.
    Raises VisaError if a seed lacks an object (or whatever else is left out) that another seed has.
    """
    columns = list(by)
    grouped = metrics.groupby([*columns, "seed"], sort=False)["value"]
    _check_balanced(grouped.size(), columns)
    per_seed = grouped.mean().reset_index()
    table = per_seed.groupby(columns, sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
    return table.rename(columns={"std": "sd", "count": "n"})


def paired_difference(metrics: pd.DataFrame, a: str, b: str, confidence: float = 0.95) -> pd.DataFrame:
    """Pre-training `a` minus `b`, paired by seed: mean, sd, n and the t-interval `low` to `high` of the mean.

    Seeds that only one of the two has are left out. One pair has no interval (NaN). A few seeds say how much the
    initial weights matter, not how another object would fare.
    Raises VisaError if a pre-training is unknown or no seed is common to both.
    """
    for name in (a, b):
        check_choice("pre-training", name, metrics["pretraining"].unique())
    keys = [c for c in GROUP if c != "pretraining"]
    first, second = (metrics[metrics["pretraining"] == name].set_index([*keys, "seed"])["value"] for name in (a, b))
    difference = (first - second).dropna().reset_index()
    if difference.empty:
        raise VisaError(f"{a} and {b} have no seed in common: run both with the same seeds.")
    return _with_interval(difference, keys, confidence)


def differences_to(results: pd.DataFrame, reference: str, confidence: float = 0.95) -> pd.DataFrame:
    """Each variant minus `reference`, paired by seed: mean, sd, n and t-interval, a row a variant and measure.

    results: columns `variant`, `seed`, `measure`, `value`; pairs that lack one side are left out.
    Raises VisaError if no variant has that name.
    """
    check_choice("variant", reference, results["variant"].unique())
    wide = results.pivot_table(index=["measure", "seed"], columns="variant", values="value", sort=False)
    difference = wide.drop(columns=reference).sub(wide[reference], axis=0).reset_index()
    difference = difference.melt(["measure", "seed"], var_name="variant").dropna()
    table = _with_interval(difference, ["variant", "measure"], confidence)
    order = {name: i for i, name in enumerate(results["variant"].unique())}
    return table.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def spread(table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str] = ("level", "metric")) -> pd.DataFrame:
    """A `summary_table` laid out for reading: one cell `mean ± sd` for each of `rows` and `columns`."""
    return _lay_out(table, rows, columns, _mean_sd)


def intervals(table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str] = ("level", "metric")) -> pd.DataFrame:
    """A `paired_difference` laid out for reading: one cell `mean [low, high]` for each of `rows` and `columns`."""
    return _lay_out(table, rows, columns, _mean_interval)


def to_markdown(table: pd.DataFrame) -> str:
    """A pipe table; numbers to three decimals, absent values as an en dash."""
    lines = [[str(c) for c in table.columns], ["---"] * table.shape[1]]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def to_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """A booktabs table, to be read with \\input."""
    text = table.map(_cell).to_latex(index=False, escape=True, caption=caption, label=label, position="t")
    return text.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--").replace(_NBSP, "~")


def _with_interval(values: pd.DataFrame, keys: list[str], confidence: float) -> pd.DataFrame:
    """Mean, sd, n and the t-interval `low` to `high` of the mean; one value has no interval (NaN)."""
    table = values.groupby(keys, sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
    table = table.rename(columns={"std": "sd", "count": "n"})
    half = stats.t.ppf((1 + confidence) / 2, table["n"] - 1) * table["sd"] / table["n"] ** 0.5
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def _read(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise VisaError(f"no metrics at {file}: run the notebooks first (visa run, or make reproduce).")
    table = pd.read_csv(file, dtype={c: str for c in COLUMNS if c not in ("seed", "value")}, keep_default_na=False)
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
        raise VisaError(f"the seeds of {uneven.index[0]} do not cover the same figures: complete the runs.")


def _lay_out(
    table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], cell: Callable[["pd.Series[float]"], str]
) -> pd.DataFrame:
    table = table[table["metric"].isin(list(METRICS))]
    order = [list(dict.fromkeys(table[r])) for r in rows]
    lines: dict[tuple[Hashable, ...], dict[str, object]] = {}
    for _, figure in table.iterrows():
        line = lines.setdefault(tuple(figure[r] for r in rows), {r: figure[r] for r in rows} | {"seeds": figure["n"]})
        line["seeds"] = min(line["seeds"], figure["n"])
        line[" ".join(METRICS.get(figure[c], str(figure[c])) for c in columns)] = cell(figure)
    ordered = sorted(lines, key=lambda key: [known.index(value) for known, value in zip(order, key, strict=True)])
    return pd.DataFrame([lines[key] for key in ordered]).fillna("–")


def _mean_sd(line: "pd.Series[float]") -> str:
    return f"{line['mean']:.3f}" + (f"{_NBSP}±{_NBSP}{line['sd']:.3f}" if line["n"] > 1 else "")


def _mean_interval(line: "pd.Series[float]") -> str:
    interval = f" [{line['low']:+.3f},{_NBSP}{line['high']:+.3f}]" if line["n"] > 1 else ""
    return f"{line['mean']:+.3f}{interval}".replace("-", "−")


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
