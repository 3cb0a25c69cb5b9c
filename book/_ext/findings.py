"""The directive `{findings}`: what the protocol's runs say, from the folders of results/protocol/, one a backbone.

`{findings} sentences` is a sentence a primary comparison, `{findings} objects` a figure and two tables an object and
backbone: objects and backbones stand one by one, and are never averaged.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from results import commits, pivot

from visa.errors import VisaError
from visa.report import figures, tables
from visa.report.protocol import CONTROLS, OUTCOMES, differences, differences_table, sentences

SIZES = ("small", "middle", "large")  # thirds of an object's defects by their share of the image
NOT_RUN = """:::{note}
The experiments of [](protocol.md) have not been run for this copy of the book: the command below runs them.
:::
"""
PART = """```{{rubric}} {title}
```

:::{{figure}} generated/{file}
:alt: AU-PR of each arm minus its control's on {title}, by outcome; the table below has the same numbers.
:class: dark-light

Mean difference in AU-PR and its 95 % interval over seeds; commits {commits}.
:::

{differences}
Thirds of the defects by size: {sizes} of the image.

{arms}
"""


class Findings(NamedTuple):
    """The files of a backbone's folder: metrics, facts a training, inside-outside AU-ROC a defect, differences."""

    folder: Path
    arch: str
    facts: pd.DataFrame
    defects: pd.DataFrame
    table: pd.DataFrame


def findings(page: Any) -> str:
    """The Markdown of `sentences` or `objects`; without results a note, once."""
    book, what = Path(page.env.srcdir), page.arguments[0]
    page.file("results/protocol")
    folders = [file.parent for file in sorted(book.glob("results/protocol/*/provenance.json"))]
    for file in (file for folder in folders for file in folder.iterdir()):
        page.file(str(file.relative_to(book)))
    found = [load(folder) for folder in folders]
    if what == "sentences":
        lines = [f"- {one.arch}, {line}" for one in found for line in sentences(one.table, one.facts)]
        return "\n".join(lines) if found else NOT_RUN
    parts = []
    for one in found:
        for object in one.table["object"].unique():
            drawn = page.file(f"generated/{page.env.docname}-{one.folder.name}-{object}.svg")
            parts.append(part(one, object, drawn))
    return "\n".join(parts)


def load(folder: Path) -> Findings:
    """Read what benchmarks/protocol.py wrote; raises VisaError for another data set than VisA."""
    about = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    if about["dataset"] != "VisA":
        raise VisaError(f"results/protocol/{folder.name} is of {about['dataset']}: the page shows VisA alone.")
    table = differences(tables.load_metrics([folder / "metrics.csv"]))
    facts, defects = (pd.read_csv(folder / name) for name in ("arms.csv", "defects.csv"))
    return Findings(folder, about["settings"]["arch"].removeprefix("timm/"), facts, defects, table)


def part(one: Findings, object: str, drawn: Path) -> str:
    """Figure and tables of an object: differences to the control, then each arm's training and what its maps tell."""
    table, facts, defects = (frame[frame["object"] == object] for frame in (one.table, one.facts, one.defects))
    with mpl.rc_context():
        figures.use_style()
        figure = forest(table)
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    sized, bounds = by_size(defects)
    arms = training(facts).merge(sized, left_on="arm", right_on="pretraining", how="left").drop(columns="pretraining")
    return PART.format(
        title=f"{object}, {one.arch}",
        file=drawn.name,
        commits=", ".join(f"`{commit}`" for commit in commits(one.folder)),
        differences=tables.to_markdown(differences_table(table)),
        sizes=bounds,
        arms=tables.to_markdown(arms),
    )


def forest(table: pd.DataFrame) -> Figure:
    """Differences in points with their intervals: a row an outcome, a colour and marker an arm."""
    outcomes = [name for name in OUTCOMES if name in set(table["outcome"])]
    arms = list(table.groupby(["arm", "control"], sort=False))
    figure, axis = plt.subplots(figsize=(7.2, 0.14 * len(arms) * len(outcomes) + 1.6))
    for k, ((arm, control), rows) in enumerate(arms):
        places = [outcomes.index(name) + 0.7 * ((k + 0.5) / len(arms) - 0.5) for name in rows["outcome"]]
        half, look = 100 * (rows["high"] - rows["mean"]).fillna(0), {"ms": 4, "lw": 1.2}
        look |= {"fmt": figures.MARKERS[k % 6], "color": figures.PALETTE[k % 6], "label": f"{arm} − {control}"}
        axis.errorbar(100 * rows["mean"], places, xerr=half, **look)
    axis.axvline(0, color=figures.INK, lw=0.8, ls=":")
    axis.set(xlabel="difference in AU-PR, points", yticks=range(len(outcomes)), yticklabels=outcomes)
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def training(facts: pd.DataFrame) -> pd.DataFrame:
    """How many trainings of each arm passed their gate, and how long one took; the given weights were not trained."""
    rows = []
    for arm in ("given", *CONTROLS):
        own = facts[facts["pretraining"] == arm]
        if len(own):
            learned = f"{int(own['learned'].astype(float).sum())} of {len(own)}" if arm in CONTROLS else "–"
            rows.append((arm, learned, f"{own['seconds'].median():.0f}" if arm in CONTROLS else "–"))
    return pd.DataFrame(rows, columns=["arm", "learned", "seconds"])


def by_size(defects: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Inside-outside AU-ROC of PatchCore's maps by arm and third of the defects' sizes, and where the thirds end."""
    areas = defects.drop_duplicates("image")["area"]
    low, high = (float(areas.quantile(share)) for share in (1 / 3, 2 / 3))
    sizes = pd.cut(defects["area"], [0, low, high, 1], labels=SIZES).astype(str)
    sized = defects.assign(size=sizes)[defects["detector"] == "patchcore"].sort_values("area")
    means = sized.groupby(["pretraining", "size", "seed"], sort=False)["auroc"].mean().rename("value").reset_index()
    bounds = f"small up to {100 * low:.2g} %, middle up to {100 * high:.2g} %, large up to {100 * areas.max():.2g} %"
    return pivot(means, ["pretraining"], ["size"]), bounds
