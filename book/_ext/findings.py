"""The directive `{findings}`: what the protocol's runs say, from the folders of results/protocol/, one a backbone.

`{findings} front` is the first page's figure, `sentences` a sentence a primary comparison, `table` every arm's AU-PR,
`objects` a figure and two tables an object and backbone: these stand one by one, and are never averaged.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from comparisons import CONTROLS, OUTCOMES, PRIMARY, au_pr_table, differences, differences_table, not_learned, sentences
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from results import commits, pivot

from visa.errors import VisaError
from visa.report import figures, tables

ARMS = ("given", *CONTROLS)
LOOKS = dict(zip(ARMS, zip((*figures.PALETTE, figures.INK), (*figures.MARKERS, "X"), strict=True), strict=True))
NAMES = {"tf_efficientnet_lite0": "EfficientNet-Lite0", "mobilenetv2_100": "MobileNetV2"}
SIZES = ("small", "middle", "large")  # thirds of an object's defects by their share of the image
NOT_RUN = """:::{note}
The experiments of [](protocol.md) have not been run for this copy of the book: the command below runs them.
:::
"""
FRONT = """:::{{figure}} generated/front.svg
:alt: Left, how well maps tell defects from the rest of their images, by size; right, differences in AU-PR by object.
:class: dark-light

Left: how well PatchCore's maps tell the pixels of real defects from all others of an image ({title}; chance is 0.5).
Right: AU-PR of a few-shot probe minus that of the arm's control, with 95 % intervals over seeds.
:::
"""
TABLE = "{table}\n{{download}}`This table as CSV <generated/results.csv>`\n"
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
{downloads}
"""


class Findings(NamedTuple):
    """The files of a backbone's folder: metrics, facts a training, inside-outside AU-ROC a defect, differences."""

    folder: Path
    name: str
    metrics: pd.DataFrame
    facts: pd.DataFrame
    defects: pd.DataFrame
    table: pd.DataFrame

    def of(self, object: str) -> "Findings":
        """The rows of one object."""
        return Findings(self.folder, self.name, *(frame[frame["object"] == object] for frame in self[2:]))


def findings(page: Any) -> str:
    """The Markdown of `front`, `sentences`, `table` or `objects`; without results a note in place of the sentences."""
    book, what = Path(page.env.srcdir), page.arguments[0]
    page.file("results/protocol")
    folders = [file.parent for file in sorted(book.glob("results/protocol/*/provenance.json"))]
    for file in (file for folder in folders for file in folder.iterdir()):
        page.file(str(file.relative_to(book)))
    found = [load(folder) for folder in folders]
    if what == "sentences":
        lines = [f"- {one.name}, {line}" for one in found for line in sentences(one.table, one.facts)]
        return "\n".join(lines) if found else NOT_RUN
    cases = [(object, one.of(object)) for one in found for object in one.table["object"].unique()]
    if what == "front" and cases:
        draw(page.file("generated/front.svg"), front, cases)
        return FRONT.format(title=f"{cases[0][0]}, {cases[0][1].name}")
    if what == "table" and cases:
        tabled = [au_pr_table(one.metrics, one.table).assign(object=object, backbone=one.name) for object, one in cases]
        for cells, (_, one) in zip(tabled, cases, strict=True):
            cells["weights"] += cells["weights"].isin(list(not_learned(one.facts))).map({True: " †", False: ""})
        table = pd.concat(tabled).set_index(["object", "backbone", "weights"]).fillna("–").reset_index()
        plain = table.replace(r"\*\*|[▲▼] ", "", regex=True)
        page.file("generated/results.csv").write_text(plain.to_csv(index=False), encoding="utf-8")
        return TABLE.format(table=tables.to_markdown(table))
    return "\n".join(part(page, object, one) for object, one in cases)


def load(folder: Path) -> Findings:
    """Read what benchmarks/protocol.py wrote; raises VisaError for another data set than VisA."""
    about = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    if about["dataset"] != "VisA":
        raise VisaError(f"results/protocol/{folder.name} is of {about['dataset']}: the page shows VisA alone.")
    metrics = tables.load_metrics([folder / "metrics.csv"])
    facts, defects = (pd.read_csv(folder / name) for name in ("arms.csv", "defects.csv"))
    arch = about["settings"]["arch"].removeprefix("timm/")
    return Findings(folder, NAMES.get(arch, arch), metrics, facts, sized(defects), differences(metrics))


def sized(defects: pd.DataFrame) -> pd.DataFrame:
    """PatchCore's defects with the `size` of each: the third of its object's areas that it lies in."""
    defects = defects[defects["detector"] == "patchcore"].sort_values("area")
    thirds = [pd.qcut(own["area"].rank(method="min"), 3, SIZES) for _, own in defects.groupby("object")]
    return defects.assign(size=pd.concat(thirds).astype(str))


def draw(file: Path, make: Callable[..., Figure], *given: Any) -> None:
    """Write the figure that `make` gives as SVG: the same bytes for the same numbers."""
    with mpl.rc_context():
        figures.use_style()
        figure = make(*given)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def front(cases: list[tuple[str, Findings]]) -> Figure:
    """What features see of the first case's defects, by size and arm; beside it the primary differences of all."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 1.8 + 0.45 * max(3, len(cases))))
    seen = cases[0][1].defects.groupby(["pretraining", "size"])["auroc"].mean().unstack()[list(SIZES)]
    arms = [arm for arm in ARMS if arm in seen.index]
    for k, arm in enumerate(arms):
        color, marker = LOOKS[arm]
        places = np.arange(3) + 0.7 * ((k + 0.5) / len(arms) - 0.5)
        left.plot(places, seen.loc[arm], marker, color=color, label=arm)
    left.set(xticks=range(3), xticklabels=SIZES, xlabel="defects", ylabel="AU-ROC", title="what maps see of defects")
    for arm, outcome in PRIMARY:
        for row, (_, one) in enumerate(cases):
            line = one.table[(one.table["arm"] == arm) & (one.table["outcome"] == outcome)]
            whisker(right, line, row + (0.15 if arm == PRIMARY[0][0] else -0.15), arm)
    right.axvline(0, color=figures.INK, lw=0.8, ls=":")
    labels = [f"{object}\n{one.name}" for object, one in cases]
    right.set(
        xlabel="difference in AU-PR, points",
        yticks=range(len(cases)),
        yticklabels=labels,
        title="difference to the control",
    )
    right.set_ylim(len(cases) - 0.5, -0.5)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def whisker(axis: plt.Axes, line: pd.DataFrame, places: Any, arm: str, label: str = "") -> None:
    """Draw differences in points with their intervals, in the arm's colour and marker."""
    color, marker = LOOKS[arm]
    half = 100 * (line["high"] - line["mean"]).fillna(0)
    places = np.broadcast_to(places, len(line))
    axis.errorbar(100 * line["mean"], places, xerr=half, fmt=marker, color=color, label=label)


def part(page: Any, object: str, one: Findings) -> str:
    """Figure and tables of an object: differences to the control, then each arm's training and what its maps tell."""
    drawn = page.file(f"generated/{page.env.docname}-{one.folder.name}-{object}.svg")
    draw(drawn, forest, one.table)
    ends = 100 * one.defects.groupby("size")["area"].max()[list(SIZES)]
    means = one.defects.groupby(["pretraining", "size", "seed"], sort=False)["auroc"].mean().rename("value")
    inside = pivot(means.reset_index(), ["pretraining"], ["size"])
    arms = training(one.facts).merge(inside, left_on="arm", right_on="pretraining", how="left")
    folder = f"results/protocol/{one.folder.name}"
    files = {"metrics": "Metrics", "arms": "trainings", "defects": "defects"}
    return PART.format(
        title=f"{object}, {one.name}",
        file=drawn.name,
        commits=", ".join(f"`{commit}`" for commit in commits(one.folder)),
        differences=tables.to_markdown(differences_table(one.table)),
        sizes=", ".join(f"{size} up to {end:.2g} %" for size, end in ends.items()),
        arms=tables.to_markdown(arms.drop(columns="pretraining")),
        downloads=", ".join(f"{{download}}`{text} <{folder}/{name}.csv>`" for name, text in files.items()),
    )


def forest(table: pd.DataFrame) -> Figure:
    """Differences in points with their intervals: a row an outcome, a colour and marker an arm."""
    outcomes = [name for name in OUTCOMES if name in set(table["outcome"])]
    arms = list(table.groupby(["arm", "control"], sort=False))
    figure, axis = plt.subplots(figsize=(7.2, 0.14 * len(arms) * len(outcomes) + 1.6))
    for k, ((arm, control), rows) in enumerate(arms):
        places = [outcomes.index(name) + 0.7 * ((k + 0.5) / len(arms) - 0.5) for name in rows["outcome"]]
        whisker(axis, rows, places, arm, f"{arm} − {control}")
    axis.axvline(0, color=figures.INK, lw=0.8, ls=":")
    axis.set(xlabel="difference in AU-PR, points", yticks=range(len(outcomes)), yticklabels=outcomes)
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def training(facts: pd.DataFrame) -> pd.DataFrame:
    """How many trainings of each arm passed their gate, and how long one took; the given weights were not trained."""
    rows = []
    for arm in ARMS:
        own = facts[facts["pretraining"] == arm]
        if len(own):
            learned = f"{int(own['learned'].astype(float).sum())} of {len(own)}" if arm in CONTROLS else "–"
            rows.append((arm, learned, f"{own['seconds'].median():.0f}" if arm in CONTROLS else "–"))
    return pd.DataFrame(rows, columns=["arm", "learned", "seconds"])
