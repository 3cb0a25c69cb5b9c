"""The paper's tables: objects (or defect classes) down, pre-trainings across; as CSV, LaTeX and HTML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from visa.errors import VisaError
from visa.provenance import write_text
from visa.report import tables
from visa.report.tables import METRICS

SETUPS = {
    "1cls": "1-class",
    "2cls_highshot": "2-class high-shot",
    "2cls_10shot": "2-class 10-shot",
    "2cls_5shot": "2-class 5-shot",
}
TASKS = {"image": "image classification", "pixel": "segmentation"}
DETECTORS = {"padim": "PaDiM", "patchcore": "PatchCore", "unet": "U-Net"}
_CELL = ("column", "pair", "text", "n", "draws", "over")
SHOWN = ("au_pr", "auroc")  # the paper's primary metric, and the one beside it
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
figure {{ margin: 0 0 2.5rem; }}
figcaption {{ max-width: 48rem; margin-bottom: .5rem; }}
table {{ border-collapse: collapse; border-block: 2px solid; white-space: nowrap; }}
thead {{ border-bottom: 1px solid; }}
th, td {{ padding: .2rem .7rem; text-align: left; font-variant-numeric: tabular-nums; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


@dataclass(frozen=True)
class Table:
    """A table to be read: a plain file `name`, a `caption` that names the data set, and text `cells`."""

    name: str
    caption: str
    dataset: str
    cells: pd.DataFrame


def named(names: Mapping[str, str], key: str) -> str:
    """How the paper calls a setup, task or detector; its own name where the paper has none."""
    return names.get(key, key)


def paper_tables(metrics: pd.DataFrame, note: str = "", shown: Sequence[str] = SHOWN) -> list[Table]:
    """Two tables a setup, task and metric: the figures of each pre-training, and SPD minus its baseline for each pair.

    Objects down, pre-trainings (pairs) across; the last row is the mean over the objects that every pre-training has
    (both have). Cells are `mean ± sd` of `summary_table`, `mean [low, high]` of `paired_difference`, of the figures
    over all anomalies. Captions name the data set and what the spread is over; `note` ends each.
    """
    made = []
    for part in _parts(tables.overall(metrics), shown):
        lines = [_lines(part, "object")]
        if part["object"].nunique() > 1:
            lines.append(_lines(part, "").assign(object="mean"))
        made += _tables(part, pd.concat(lines), "object", note)
    return made


def defect_tables(
    metrics: pd.DataFrame, images: Mapping[tuple[str, str], Mapping[str, int]], note: str = "", metric: str = SHOWN[0]
) -> list[Table]:
    """As `paper_tables`, two tables an object, setup and task: defect classes down, the last row of all anomalies.

    images: for (object, setup) the number of test images of each class, and of all anomalies as class "", where they
    are known (see `defect_images`). Empty if no figure is of a single class.
    """
    made = []
    for several in _parts(metrics, [metric]):
        for object, part in several.groupby("object", sort=False):
            if (part["defect"] != "").any():
                lines = _lines(part, "defect")
                lines = pd.concat([lines[lines["defect"] != ""], lines[lines["defect"] == ""]])
                counts = images.get((str(object), str(part["setup"].iloc[0])), {})
                found = _tables(part, lines, "defect", note, str(object))
                made += [replace(table, cells=_counted(table.cells, counts)) for table in found]
    return made


def write_tables(folder: Path, made: Iterable[Table], title: str) -> list[Path]:
    """Write NAME.csv and NAME.tex of each table to `folder`, and index.html with all of them; returns the files."""
    shown, files = list(made), []
    for table in shown:
        files += [folder / f"{table.name}.csv", folder / f"{table.name}.tex"]
        cells = table.cells.copy()
        cells.insert(0, "dataset", table.dataset)
        write_text(files[-2], cells.to_csv(index=False))
        write_text(files[-1], tables.to_latex(table.cells, table.caption, f"tab:{table.name}"))
    page = PAGE.format(title=escape(title), body="\n".join(to_html(t) for t in shown))
    write_text(folder / "index.html", page)
    return [*files, folder / "index.html"]


def to_html(table: Table) -> str:
    """A table with its caption, in the colours of the page around it."""
    cells = table.cells.to_html(index=False, border=0, escape=True, justify="left")
    return f'<figure style="overflow-x:auto"><figcaption>{escape(table.caption)}</figcaption>\n{cells}</figure>'


def _parts(metrics: pd.DataFrame, shown: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of each setup, level and metric, in the order of the paper."""
    chosen = metrics[metrics["metric"].isin(list(shown))]
    parts = [part for _, part in chosen.groupby(["setup", "level", "metric"], sort=False)]
    order = {"setup": list(SETUPS), "level": list(TASKS), "metric": list(shown)}

    def rank(part: pd.DataFrame) -> list[int]:
        keys = {column: part[column].iloc[0] for column in order}
        return [known.index(keys[c]) if keys[c] in known else len(known) for c, known in order.items()]

    return sorted(parts, key=rank)


def _lines(part: pd.DataFrame, row: str) -> pd.DataFrame:
    """One line a cell: `detector`, `row` (empty: the mean over objects) and _CELL; `over`: what its spread is over."""
    keys = ["detector", *filter(None, [row])]
    means = tables.summary_table(part if row else tables.balanced(part), [*keys, "pretraining"])
    text = [tables.mean_sd(line) for _, line in means.iterrows()]
    over = np.select([means["n"] > 1, means["draws"] > 1], ["seeds", "draws"], "")
    found = [means.assign(column=means["pretraining"], text=text, pair=False, over=over)]
    for name, base in tables.spd_pairs(part["pretraining"].unique()).items():
        two = part[part["pretraining"].isin([name, base])]
        found.append(_differences(two if row else tables.balanced(two), name, base, keys))
    return pd.concat(found)[[*keys, *_CELL]]


def _differences(two: pd.DataFrame, name: str, base: str, keys: list[str]) -> pd.DataFrame:
    try:
        table = tables.paired_difference(two, name, base, keys)
    except VisaError:  # no object, seed and draw in common: nothing to show
        return pd.DataFrame(columns=[*keys, *_CELL])
    text = [tables.mean_interval(line) for _, line in table.iterrows()]
    return table.assign(column=f"{name} − {base}", text=text, pair=True)


def _tables(part: pd.DataFrame, lines: pd.DataFrame, row: str, note: str, object: str = "") -> list[Table]:
    """The table of figures, and the table of differences if there are any."""
    dataset, setup, level, metric = (str(part[c].iloc[0]) for c in ("dataset", "setup", "level", "metric"))
    task = named(TASKS, level)
    of = f", {object} by defect class" if object else ""
    title = f"{dataset}, {named(SETUPS, setup)}, {task}{of}: {METRICS[metric]}"
    name = "_".join([*filter(None, [object]), setup, task.split()[-1], metric, *(["by_defect"] if object else [])])
    made = []
    for pair, cells in lines.groupby("pair"):
        what = "SPD minus its baseline, paired, with the 95 % t-interval" if pair else "mean ± standard deviation"
        caption = f"{title}, {what}{_over(cells)}. {note}".strip()
        made.append(Table(name + "_difference" * bool(pair), caption, dataset, _laid_out(cells, row)))
    return made


def _laid_out(lines: pd.DataFrame, row: str) -> pd.DataFrame:
    """Rows in the order of detectors, then of lines; columns in that of lines, the untrained network first."""
    wide = lines.pivot(index=["detector", row], columns="column", values="text")
    detectors = list(dict.fromkeys(lines["detector"]))
    order = dict.fromkeys(zip(lines["detector"], lines[row], strict=True))
    wide = wide.loc[sorted(order, key=lambda key: detectors.index(key[0]))]
    wide = wide[sorted(dict.fromkeys(lines["column"]), key=lambda column: column != "random")]
    cells = wide.fillna("–").rename_axis(columns=None).reset_index()
    return cells.assign(detector=[named(DETECTORS, d) for d in cells["detector"]])


def _over(lines: pd.DataFrame) -> str:
    """What the spread of a table's cells is over."""
    seeds, draws = lines["over"] == "seeds", lines["over"] == "draws"
    over = []
    if seeds.any():
        each = " (each the mean of its draws)" if (lines["draws"][seeds] > 1).any() else ""
        over.append(f" over {_range(lines['n'][seeds])} seeds{each}")
    if draws.any():
        over.append(f" over {_range(lines['draws'][draws])} draws where seeds are one or agree")
    return ",".join(over) or " (none here: seeds are one or agree)"


def _range(counts: "pd.Series[int]") -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _counted(cells: pd.DataFrame, images: Mapping[str, int]) -> pd.DataFrame:
    """The table with the number of test images of each class, and the row of all anomalies named."""
    counts = [str(images.get(defect, "–")) for defect in cells["defect"]]
    counted = cells.assign(defect=cells["defect"].replace("", "all anomalies"))
    counted.insert(2, "images", counts)
    return counted
