"""The directive `{findings}`: what the protocol's runs say, from the folders of results/protocol/, one a backbone.

`{findings} front` is the first page's figures, `primary` a row a primary comparison, `power` the differences that these
would find, `table` every arm's AU-PR, `losses` a figure of the fine-tuned networks, `objects` a figure and two tables
an object and backbone: these stand one by one, and are never averaged.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import comparisons
import matplotlib as mpl
import numpy as np
import pandas as pd
from comparisons import CONTROLS, OUTCOMES, SIZES
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from results import commits, pivot

from visa.errors import VisaError
from visa.report import figures, tables

TEXTS = Path(__file__).resolve().parents[1] / "reference"
ARMS = ("given", *CONTROLS)
LOOKS = dict(zip(ARMS, zip((*figures.PALETTE, figures.INK), (*figures.MARKERS, "X"), strict=True), strict=True))
NAMES = {"tf_efficientnet_lite0": "EfficientNet-Lite0", "mobilenetv2_100": "MobileNetV2"}
NOT_RUN = """:::{note}
The experiments of [](protocol.md) have not been run for this copy of the book: [](results.md) has the command.
:::
"""
TABLE = "{table}\n{{download}}`This table as CSV <generated/{file}.csv>`\n"
LOSSES = """```{figure} generated/losses.svg
:alt: Losses of the fine-tuned networks, all of which fall; the CSV file has the numbers.
:class: dark-light

Mean loss of each eighth of a fine-tuning's steps, a line a training.
```
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
    """The Markdown of what the page asks for; without results a note in place of `primary`, and else nothing."""
    book, what = Path(page.env.srcdir), page.arguments[0]
    page.file("results/protocol")
    for file in book.glob("results/protocol/*/*"):
        page.file(str(file.relative_to(book)))
    found = [load(file.parent) for file in sorted(book.glob("results/protocol/*/provenance.json"))]
    if not found:
        return NOT_RUN if what == "primary" else ""
    if what == "primary":
        rows = [comparisons.primary_table(one.metrics, one.table, one.facts).assign(backbone=one.name) for one in found]
        table = pd.concat(rows).set_index(["object", "backbone"]).reset_index()
        table.to_csv(page.file("generated/primary.csv"), index=False)
        return TABLE.format(table=tables.to_markdown(table.drop(columns="outcome")), file="primary")
    cases = [(object, one.of(object)) for one in found for object in one.table["object"].unique()]
    if what == "front":
        draw(page.file("generated/defects.svg"), seen, cases[0][1])
        shown = pd.concat(one.table.assign(line=f"{object}\n{one.name}") for object, one in cases)
        drawn, height = page.file("generated/primary.svg"), 1.4 + 0.6 * len(cases)
        draw(drawn, forest, shown[comparisons.is_primary(shown)], 3.8, height)
        named = [one.table.assign(object=one.table["object"] + " with " + one.name) for one in found]
        text, told = (TEXTS / "front.txt").read_text(encoding="utf-8"), extremes(pd.concat(named, ignore_index=True))
        return text.format(title=f"{cases[0][0]}, {cases[0][1].name}", extremes=told)
    if what == "losses":
        draw(page.file("generated/losses.svg"), losses, pd.read_csv(page.file("results/two_class/trainings.csv")))
        return LOSSES
    if what == "power":
        return comparisons.power([(one.table, one.name) for one in found])
    if what == "table":
        means = [comparisons.means(one.metrics).assign(backbone=one.name) for one in found]
        pd.concat(means).to_csv(page.file("generated/results.csv"), index=False)
        table = pd.concat(arms_table(*case) for case in cases).fillna("–")
        return TABLE.format(table=tables.to_markdown(table), file="results")
    return "\n".join(part(page, (TEXTS / "part.txt").read_text(encoding="utf-8"), *case) for case in cases)


def arms_table(object: str, one: Findings) -> pd.DataFrame:
    """AU-PR of every arm of an object; † marks an arm of which most trainings did not learn."""
    cells, missed = comparisons.au_pr_table(one.metrics, one.table), comparisons.not_learned(one.facts)
    cells["weights"] += [" †" * (arm in missed) for arm in cells["weights"]]
    return cells.assign(object=object, backbone=one.name).set_index(["object", "backbone", "weights"]).reset_index()


def load(folder: Path) -> Findings:
    """Read what benchmarks/protocol.py wrote; raises VisaError for another data set than VisA."""
    about = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    if about["dataset"] != "VisA":
        raise VisaError(f"results/protocol/{folder.name} is of {about['dataset']}: the page shows VisA alone.")
    metrics = tables.load_metrics([folder / "metrics.csv"])
    facts, defects = (pd.read_csv(folder / name) for name in ("arms.csv", "defects.csv"))
    if defects.empty:
        raise VisaError("results/protocol/ holds a folder without PatchCore's defects: score with it, too.")
    arch, sized = about["settings"]["arch"].removeprefix("timm/"), comparisons.sized(defects)
    return Findings(folder, NAMES.get(arch, arch), metrics, facts, sized, comparisons.differences(metrics))


def extremes(table: pd.DataFrame) -> str:
    """Name the largest gain and loss of `differences` whose interval excludes 0, the primary ones left out."""
    found = table[~comparisons.is_primary(table) & (table["low"] * table["high"] > 0)]
    told = []
    for name, own in (("gain", found[found["mean"] > 0]), ("loss", found[found["mean"] < 0])):
        for _, line in own.loc[own["mean"].abs().nlargest(1).index].iterrows():
            where = f"{line['compared']}, {line['outcome']}, {line['object']}"
            told.append(f"the largest {name} is {comparisons.points(line)} points ({where})")
    return " and ".join(told) or "there is none"


def draw(file: Path, make: Callable[..., Figure], *given: Any) -> None:
    """Write the figure that `make` gives as SVG: the same bytes for the same numbers."""
    with mpl.rc_context():
        figures.use_style()
        figure = make(*given)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def seen(one: Findings) -> Figure:
    """What PatchCore's maps see of an object's defects, by size and arm."""
    figure, axis = plt.subplots(figsize=(3.8, 3.5))
    per_seed = one.defects.groupby(["pretraining", "size", "seed"])["auroc"].mean().groupby(["pretraining", "size"])
    mean, sd = per_seed.mean().unstack()[list(SIZES)], per_seed.std().unstack()[list(SIZES)]
    arms = [arm for arm in ARMS if arm in mean.index]
    for k, arm in enumerate(arms):
        color, marker = LOOKS[arm]
        label = arm + " †" * (arm in comparisons.not_learned(one.facts))
        places = np.arange(3) + 0.7 * ((k + 0.5) / len(arms) - 0.5)
        axis.errorbar(places, mean.loc[arm], sd.loc[arm].fillna(0), fmt=marker, color=color, label=label)
    axis.set(xticks=range(3), xticklabels=SIZES, xlabel="defects", ylabel="AU-ROC of pixels")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def part(page: Any, text: str, object: str, one: Findings) -> str:
    """Figure and tables of an object: differences to the control, then each arm's training and what its maps tell."""
    drawn = page.file(f"generated/{page.env.docname}-{one.folder.name}-{object}.svg")
    table = one.table.assign(line=pd.Categorical(one.table["outcome"], list(OUTCOMES)))
    draw(drawn, forest, table.sort_values("line", kind="stable"), 7.2, 0.14 * len(table) + 1.6)
    ends = 100 * one.defects.groupby("size")["area"].max()[list(SIZES)]
    means = one.defects.groupby(["pretraining", "size", "seed"], sort=False)["auroc"].mean().rename("value")
    inside = pivot(means.reset_index(), ["pretraining"], ["size"])
    arms = training(one.facts).merge(inside, left_on="arm", right_on="pretraining", how="left")
    files = {"Metrics": "metrics.csv", "trainings": "arms.csv", "defects": "defects.csv"}
    return text.format(
        title=f"{object}, {one.name}",
        file=drawn.name,
        commits=", ".join(f"`{commit}`" for commit in commits(one.folder)),
        differences=tables.to_markdown(comparisons.differences_table(one.table, one.facts)),
        sizes=", ".join(f"{size} up to {end:.2g} %" for size, end in ends.items()),
        arms=tables.to_markdown(arms.drop(columns="pretraining")),
        downloads=", ".join(f"{{download}}`{k} <results/protocol/{one.folder.name}/{v}>`" for k, v in files.items()),
    )


def forest(table: pd.DataFrame, width: float, height: float) -> Figure:
    """Differences in points with their intervals: a line for each of the column `line`, a colour and marker an arm."""
    lines, arms = list(table["line"].unique()), list(table.groupby(["arm", "control"], sort=False))
    figure, axis = plt.subplots(figsize=(width, height))
    for k, ((arm, control), own) in enumerate(arms):
        color, marker = LOOKS[arm]
        places = [lines.index(line) + 0.7 * ((k + 0.5) / len(arms) - 0.5) for line in own["line"]]
        half = 100 * (own["high"] - own["mean"]).fillna(0)
        axis.errorbar(100 * own["mean"], places, xerr=half, fmt=marker, color=color, label=f"{arm} − {control}")
    axis.axvline(0, color=figures.INK, lw=0.8, ls=":")
    axis.set(xlabel="difference in AU-PR, points", ylim=(len(lines) - 0.5, -0.5))
    axis.set_yticks(range(len(lines)), lines)
    figure.legend(loc="outside lower center", ncols=round(width / 3.6))
    return figure


def losses(trainings: pd.DataFrame) -> Figure:
    """The mean losses of the eighths of each fine-tuning: a panel an object and network, a line a training."""
    panels = list(trainings.groupby(["object", "detector"], sort=False))
    figure, axes = plt.subplots(1, len(panels), figsize=(8.8, 2.8), squeeze=False)
    for axis, ((object, network), rows) in zip(axes.flat, panels, strict=True):
        for _, row in rows.iterrows():
            label = f"{row['pretraining']}, {tables.title_of(row['setup']).removeprefix('2-class ')}"
            look = {"color": LOOKS[row["pretraining"]][0], "ls": ":" if "high" in label else "-", "label": label}
            axis.plot(range(1, 9), np.fromstring(row["losses"], sep=" "), lw=0.8, **look)
        title = f"{object}, {tables.title_of(network)}"
        axis.set(title=title, xlabel="eighth of the steps", xticks=(1, 4, 8), ylabel="loss", yscale="log")
    figures.legend_once(figure)
    return figure


def training(facts: pd.DataFrame) -> pd.DataFrame:
    """Medians over each arm's trainings: seconds, and cosines of held-out z."""
    rows = []
    for arm in (arm for arm in ARMS if arm in set(facts["pretraining"])):
        own = facts[facts["pretraining"] == arm]
        medians = own.reindex(columns=["seconds", "cos_weak", "cos_blend"]).median()
        cells = [form.format(v) for form, v in zip(("{:.0f}", "{:.2f}", "{:.2f}"), medians, strict=True)]
        rows.append((arm, *(cell.replace("nan", "–") for cell in cells)))
    return pd.DataFrame(rows, columns=["arm", "seconds", "cos z, weak view", "cos z, blended"])
