"""The directives `{results}`, a table of a result file, and `{run}`, what made its folder.

A page says what it shows: the file, counted from `book/`, which of its rows, and how they are laid out.

    ```{results} results/benchmarks/metrics.csv
    :where: weights=imagenet
    :rows: object
    :columns: detector, weights
    :value: auroc
    ```
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from visa.errors import VisaError
from visa.report import tables

LABELS = tables.METRICS | {"f1": "F1", "padim": "PaDiM", "patchcore": "PatchCore"}
ABSENT = """:::{{note}}
`book/{file}` is not in this copy of the book; the text beside this note says what makes it.
:::
"""
MEASURED_ON = "\nMeasured on {cores} cores of {cpu}{busy}, commit `{commit}`.\n"
FOLDED = """::::{{dropdown}} {file}
```{{literalinclude}} {place}
```
::::
"""


def results(page: Any) -> str:
    """A table of a result file: chosen columns as they are (`show`), or one cell for each of `rows` and `columns`.

    A cell is the mean over seeds with its standard deviation; draws are averaged first. `value` names the column of
    the numbers, `digits` their decimals where nothing is averaged. A second word of the argument names the list of a
    JSON file that holds the rows. A missing file gives a note; raises VisaError for a missing column, which stops the
    build.
    """
    name, _, rows = page.arguments[0].partition(" ")
    file = page.file(name)
    return table(file, rows, page.options) + measured_on(file) if file.is_file() else ABSENT.format(file=name)


def run(page: Any) -> str:
    """The command that makes `book/results/NAME` (from reference/runs.csv), and the folder's JSON files, folded."""
    name = page.arguments[0]
    command = re.sub(r"(--\S+) ", "\\1\N{NO-BREAK SPACE}", commands(page.file("reference/runs.csv"))[name])
    command = re.sub("([\"']).*?\\1", lambda quoted: quoted[0].replace(" ", "\N{NO-BREAK SPACE}"), command)
    lines = textwrap.wrap(command, 88, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    shell = " \\\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")  # an option stays with its value
    book = Path(page.env.srcdir)
    places = [file.relative_to(book / "results") for file in sorted((book / "results" / name).rglob("*.json"))]
    folds = [FOLDED.format(file=place, place=f"results/{place}") for place in places]
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
    return tables.to_markdown(pivot(frame, lines, columns, int(options.get("digits", 3))))


def load(file: Path, rows: str = "") -> pd.DataFrame:
    """The rows of a CSV file, or of a list in a JSON file."""
    if file.suffix == ".json":
        record = json.loads(file.read_text(encoding="utf-8"))
        found = record[rows] if rows else record.get("rows", record)
        several = isinstance(found, dict) and all(isinstance(row, dict) for row in found.values())
        return pd.json_normalize(list(found.values()) if several else found)
    return pd.read_csv(file)


def chosen(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows that have one of the values of each `column=value, value; ...`."""
    for column, values in _pairs(where).items():
        frame = frame[frame[column].map(str).isin([values, *_names(values)])]
    return frame


def pivot(frame: pd.DataFrame, rows: list[str], columns: list[str], digits: int = 3) -> pd.DataFrame:
    """One cell for each of `rows` and `columns`, in the order of the frame; `–` where there is nothing."""
    keys = rows + columns
    frame = frame.assign(**{c: frame[c].fillna("") for c in keys if not pd.api.types.is_numeric_dtype(frame[c])})
    frame = frame.assign(seed=frame["seed"].fillna(0) if "seed" in frame else 0)
    if "draw" not in frame:
        frame["draw"] = frame.groupby([*keys, "seed"]).cumcount()
    summary = tables.summary_table(frame, keys)
    cells = [_mean(line, digits) for _, line in summary.iterrows()]
    if not columns:
        return summary[rows].assign(mean=cells)
    words = summary[columns].map(lambda v: LABELS.get(v, f"{v:g}" if isinstance(v, float) else v))
    heading = words.agg(", ".join, axis=1)
    wide = summary.assign(heading=heading, cell=cells).pivot(index=rows, columns="heading", values="cell")
    wide = wide[list(dict.fromkeys(heading))].fillna("–").rename_axis(columns=None).reset_index()
    return wide.sort_values(rows, key=lambda c: c.map({v: i for i, v in enumerate(summary[c.name].unique())}))


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
    commit = about["commit"] or "unknown"
    return MEASURED_ON.format(**about | {"commit": commit[:7] + commit[40:], "busy": busy})


def commits(folder: Path) -> list[str]:
    """Commits that made the files of `folder`, by its JSON files, seven digits each, and whether with local changes."""
    found = dict.fromkeys(value for key, value in _facts(folder) if key in ("commit", "commits") and value)
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
