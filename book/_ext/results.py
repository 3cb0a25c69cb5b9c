"""The directives `{results}` and `{plot}`, a table and a figure of a result file, and `{run}`, what made its folder.

A page says what it shows: the file, counted from `book/`, which of its rows, and how they are laid out.

    ```{results} results/fryum/metrics.csv
    :where: setup=1cls; level=image
    :rows: detector, pretraining
    :columns: metric
    ```
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from visa.errors import VisaError
from visa.report import figures, tables

LONG = ["variant", "seed", "draw", "measure", "value"]
VARIANT = "pretraining", "variant"  # the column of what is compared: the first that a file has
NAMED_BY = {"metrics.csv": ["setup", "detector", "level", "metric"], "similarity.csv": ["change", "area"]}
SETTINGS = {"arch": "network", "epochs": "epochs", "image_size": "view size", "seed": "seeds", "seeds": "seeds"}
LABELS = tables.METRICS | {"f1": "F1"}
ABSENT = """:::{{note}}
`book/{file}` is not in this copy of the book; the text beside this note says what makes it.
:::
"""
MEASURED_ON = "\nMeasured on {cores} cores of {cpu}{busy}, commit `{commit:.7}`.\n"
FOLDED = """::::{{dropdown}} {file.name}
```{{literalinclude}} {place}
```
::::
"""

FIGURE = """:::{{figure}} generated/{file}
:alt: {alt}
:class: dark-light

{caption} {made}.
:::
"""
AREAS = [0.25, 0.5, 1, 2, 4, 8, 16, 32]  # percent of the image


def results(page: Any) -> str:
    """A table of a result file: chosen columns as they are (`show`), or one cell for each of `rows` and `columns`.

    A cell is the mean over seeds with its standard deviation; draws are averaged first. With `minus` it is the
    difference to the variant of that name, or of each pre-training with SPD to that without (`minus: spd`), paired by
    seed, with its 95 % interval. `value` names the column of the numbers, `digits` their decimals where nothing is
    averaged. A second word of the argument names the list of a JSON file that holds the rows. A missing file gives a
    note; raises VisaError for a missing column, which stops the build.
    """
    name, _, rows = page.arguments[0].partition(" ")
    file = page.file(name)
    return table(file, rows, page.options) + measured_on(file) if file.is_file() else ABSENT.format(file=name)


def plot(page: Any) -> str:
    """The figure of a kind and file, drawn into book/generated; the directive's content is its caption."""
    kind, _, name = page.arguments[0].partition(" ")
    source = page.file(name)
    if not source.is_file():
        return ABSENT.format(file=name)
    drawn = page.file(f"generated/{page.env.docname}-{page.env.new_serialno('plot')}.svg")
    with mpl.rc_context():
        figures.use_style()
        figure = draw(kind, chosen(load(source), page.options.get("where", "")))
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    caption = "\n".join(page.content)
    return FIGURE.format(file=drawn.name, alt=page.options["alt"], caption=caption, made=origin(source.parent))


def run(page: Any) -> str:
    """The command that makes `book/results/NAME` (from reference/runs.csv), and the folder's JSON files, folded."""
    name = page.arguments[0]
    command = re.sub(r"(--\S+) ", "\\1\N{NO-BREAK SPACE}", commands(page.file("reference/runs.csv"))[name])
    lines = textwrap.wrap(command, 88, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    shell = " \\\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")  # an option stays with its value
    files = sorted((Path(page.env.srcdir) / "results" / name).glob("*.json"))
    folds = [FOLDED.format(file=file, place=f"results/{name}/{file.name}") for file in files]
    return "\n".join([f"```sh\n{shell}\n```\n", *folds])


def table(file: Path, rows: str, options: Mapping[str, str]) -> str:
    """The Markdown of a `{results}` table."""
    frame = chosen(load(file, rows), options.get("where", ""))
    shown = _pairs(options.get("show", ""))
    lines, columns = (_names(options.get(what, "")) for what in ("rows", "columns"))
    value = options.get("value", "value")
    if absent := [name for name in shown or [*lines, *columns, value] if name not in frame]:
        raise VisaError(f"{file.parent.name}/{file.name} lacks {', '.join(absent)}: it has {', '.join(frame)}.")
    if shown:
        return tables.to_markdown(pd.DataFrame({h.strip("`"): _texts(frame[key], h) for key, h in shown.items()}))
    frame = frame.assign(value=frame[value].astype(float))
    return tables.to_markdown(pivot(frame, lines, columns, options.get("minus", ""), int(options.get("digits", 3))))


def load(file: Path, rows: str = "") -> pd.DataFrame:
    """The rows of a CSV file, or of a list in a JSON file; `metrics.csv` without single defect classes.

    `diagnosis.csv` has a column for each measure: it comes with a row for each.
    """
    if file.suffix == ".json":
        record = json.loads(file.read_text(encoding="utf-8"))
        found = record[rows] if rows else record.get("rows", record)
        several = isinstance(found, dict) and all(isinstance(row, dict) for row in found.values())
        return pd.json_normalize(list(found.values()) if several else found)
    if file.name == "metrics.csv":
        return tables.overall(tables.load_metrics([file]))
    frame = pd.read_csv(file)
    if file.name == "diagnosis.csv":
        frame = frame.melt([c for c in ("pretraining", "scope", "seed") if c in frame], var_name="measure").dropna()
    return frame


def chosen(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows that have one of the values of each `column=value, value; ...`."""
    for column, values in _pairs(where).items():
        frame = frame[frame[column].map(str).isin([values, *_names(values)])]
    return frame


def pivot(frame: pd.DataFrame, rows: list[str], columns: list[str], minus: str = "", digits: int = 3) -> pd.DataFrame:
    """One cell for each of `rows` and `columns`, in the order of the frame; `–` where there is nothing."""
    keys = rows + columns
    frame = frame.assign(**{c: frame[c].fillna("") for c in keys if not pd.api.types.is_numeric_dtype(frame[c])})
    frame = frame.assign(seed=frame["seed"].fillna(0) if "seed" in frame else 0)
    if "draw" not in frame:
        frame["draw"] = frame.groupby([*keys, "seed"]).cumcount()
    summary = differences(frame, keys, minus) if minus else tables.summary_table(frame, keys)
    cells = [tables.mean_interval(line) if minus else _mean(line, digits) for _, line in summary.iterrows()]
    if not columns:
        return summary[rows].assign(mean=cells)
    words = summary[columns].map(lambda v: LABELS.get(v, f"{v:g}" if isinstance(v, float) else v))
    heading = words.agg(", ".join, axis=1)
    wide = summary.assign(heading=heading, cell=cells).pivot(index=rows, columns="heading", values="cell")
    wide = wide[list(dict.fromkeys(heading))].fillna("–").rename_axis(columns=None).reset_index()
    return wide.sort_values(rows, key=lambda c: c.map({v: i for i, v in enumerate(summary[c.name].unique())}))


def differences(frame: pd.DataFrame, keys: list[str], minus: str) -> pd.DataFrame:
    """Each variant minus `minus`, or each pre-training with SPD minus that without, for each of the other `keys`."""
    variant = next(name for name in VARIANT if name in frame)
    others = [key for key in keys if key != variant]
    unit = frame.groupby(others, sort=False).ngroup() if others else 0
    named, labels = (
        frame.assign(measure=unit, variant=frame[variant]),
        frame[others].assign(unit=unit).drop_duplicates(),
    )
    if minus == "spd":
        parts = []
        for name, base in tables.spd_pairs(named["variant"].unique()).items():
            pair = named[named["variant"].isin([name, base])]
            parts.append(tables.differences_to(pair, base).assign(variant=f"{name} − {base}"))
        found = pd.concat(parts)
    else:
        found = tables.differences_to(named, minus)
    return found.rename(columns={"measure": "unit", "variant": variant}).merge(labels, on="unit")


def draw(kind: str, frame: pd.DataFrame) -> Figure:
    """One metric of every pre-training and seed, training curves, differences to `reference`, or similarities."""
    if kind == "seeds":
        return figures.plot_overview(tables.balanced(frame), frame["metric"].iloc[0])
    if kind == "differences":
        return figures.plot_differences(tables.differences_to(frame, "reference"))
    return figures.plot_curves(frame) if kind == "curves" else similarity(frame)


def similarity(frame: pd.DataFrame) -> Figure:
    """Cosine of an image's features with those of its blended copy, against the patch; dotted, of a weak view."""
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    for i, (name, part) in enumerate(frame.groupby("pretraining", sort=False)):
        colour, marker = figures.PALETTE[i], figures.MARKERS[i]
        for _, seed in part[part["change"] == "SmoothBlend"].groupby("seed"):
            axis.plot(100 * seed["area"], seed["cosine"], color=colour, marker=marker, ms=4, lw=1.2, label=name)
        weak = part.loc[part["change"] == "weak view", "cosine"].mean()
        axis.axhline(weak, color=colour, ls=":", lw=1.2)
    axis.set(xscale="log", xlabel="patch, % of the image", ylabel="cosine with the unchanged image", ylim=(0, 1.02))
    axis.set_xticks(AREAS, [f"{area:g}" for area in AREAS])
    axis.minorticks_off()
    figures.legend_once(figure)
    return figure


def long_table(folder: Path) -> pd.DataFrame:
    """Columns LONG, of whichever result files `folder` has; no row where it has none.

    A variant is a pre-training or a variant of the ablation. The measures of metrics.csv are called by setup, detector,
    level and metric (`1cls padim image au_pr`); objects are averaged.
    """
    parts = [pd.DataFrame(columns=LONG)]
    names = ("metrics", "diagnosis", "ablation", "counts", "similarity")
    for file in filter(Path.is_file, (folder / f"{name}.csv" for name in names)):
        frame = load(file).rename(columns={"cosine": "value"})
        words = frame[NAMED_BY.get(file.name, ["measure"])].map(lambda v: f"{v:g}" if isinstance(v, float) else v)
        variant = frame[next(c for c in VARIANT if c in frame)]
        long = frame.assign(measure=words.agg(" ".join, axis=1), variant=variant, draw=frame.get("draw", 0))
        parts.append(long.groupby(LONG[:-1], sort=False)["value"].mean().reset_index())
    return pd.concat(parts[1:] or parts, ignore_index=True)


def commands(file: Path) -> dict[str, str]:
    """Name of a folder in results/ to the command that makes it, from runs.csv."""
    return pd.read_csv(file, index_col="run")["command"].to_dict()


def measured_on(file: Path) -> str:
    """A sentence on the machine, its other work and the commit behind a benchmark's file; empty where none is named."""
    source = file.with_suffix(".json")
    record = json.loads(source.read_text(encoding="utf-8")) if source.is_file() else {}
    if "machine" not in record:
        return ""
    about, load = record["machine"], record.get("load", 0)
    load = load[0] if isinstance(load, list) else load  # processes that ran or waited at the end
    busy = f" that other work kept at a load of {load:.0f}" if load > about["cores"] else ""
    return MEASURED_ON.format(**about | {"commit": about["commit"] or "unknown", "busy": busy})


def origin(folder: Path) -> str:
    """What made the files of `folder`: data, settings and commits, for the caption of a figure."""
    found: dict[str, list[str]] = {"dataset": [], **{label: [] for label in SETTINGS.values()}}
    for key, value in _facts(folder):
        if (label := SETTINGS.get(key, key)) in found and str(value) not in ["", *found[label]]:
            found[label].append(str(value))
    dataset, *settings = ((label, ", ".join(values)) for label, values in found.items())
    named = [f"{label} {values}" for label, values in settings if values]
    return ", ".join([dataset[1], *named, *(f"commit `{c}`" for c in commits(folder))])


def commits(folder: Path) -> list[str]:
    """Commits that made the files of `folder`, by its JSON files, seven digits each, and whether with local changes."""
    found = dict.fromkeys(value for key, value in _facts(folder) if key == "commit" and value)
    return [commit[:7] + commit[40:] for commit in found]


def _facts(folder: Path) -> Iterator[tuple[str, Any]]:
    """Every key and plain value of the JSON files of a folder, however deep."""

    def walk(key: str, value: Any) -> Iterator[tuple[str, Any]]:
        inside = (
            value.items() if isinstance(value, dict) else ((key, v) for v in value) if isinstance(value, list) else ()
        )
        yield from (fact for pair in inside for fact in walk(*pair))
        if not isinstance(value, dict | list):
            yield key, value

    for file in sorted(folder.glob("*.json")):
        yield from walk("", json.loads(file.read_text(encoding="utf-8")))


def _pairs(text: str) -> dict[str, str]:
    """`a=b; c=d` as a mapping."""
    return {k.strip(): v.strip() for k, _, v in (part.partition("=") for part in text.split(";") if part.strip())}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _mean(line: "pd.Series[float]", digits: int) -> str:
    """Mean and spread; a value alone with as many decimals as asked for, a count with none."""
    if line["n"] > 1 or not pd.isna(line["sd_draws"]):
        return tables.mean_sd(line)
    return f"{line['mean']:,.{0 if line['mean'] >= 100 else digits}f}"


def _texts(values: "pd.Series[Any]", heading: str) -> list[str]:
    """Cells as text; as code under a heading in backticks."""
    texts = ["" if value is None or value != value else _text(value) for value in values]
    return [f"`{text}`" if heading.startswith("`") and text else text for text in texts]


def _text(value: Any) -> str:
    """A number with three digits, a whole one with all, truth as yes and no, a list as its length."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return str(len(value))
    if isinstance(value, str):
        return value.replace("\n", " ")
    return f"{value:.3g}" if abs(value) < 100 and value != int(value) else f"{value:,.0f}"
