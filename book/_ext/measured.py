"""Bodies of the pages of measured results, from the files that a run left: tables, figures, provenance."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import result_files
from matplotlib.figure import Figure

from visa.report import figures, tables

MANY = 5  # pre-trainings; beyond, tables show two metrics a level, and figures are split
ALL_SETUPS = 4
SHORT = ("auroc", "au_pr")
GLANCE = {  # measure to label; of diagnosis.csv, then of metrics.csv as setup, detector, level and metric
    "triplet": "triplet",
    "cos_blend": "cos_blend",
    "probe_auroc": "probe AU-ROC, blended or clean",
    "probe_accuracy": "probe accuracy, blended or clean",
    "1cls patchcore image au_pr": "PatchCore image AU-PR",
    "1cls padim image au_pr": "PaDiM image AU-PR",
    "2cls_10shot probe image au_pr": "10-shot probe AU-PR",
}
ON_Z = ("cos_weak", "cos_blend", "triplet", "feature_std")
SHOWN = {"z": ("triplet", "cos_blend"), "backbone": ("probe_auroc", "probe-10_au_pr")}  # figure to measures

NO_RUN = """:::{{note}}
No {what} are stored in this copy of the book.
[](running.md) says how runs are made: `{command}`.
:::
"""
MADE_FROM = """Everything above is made from the files in `book/results/{name}/`.
What made those, with settings, data, code and machine:

"""
FOLDED = """::::{{dropdown}} {title}
{text}
::::
"""
AT_A_GLANCE = """The method with SPD minus the method without, paired by seed (and draw): mean and its 95 % interval.
Two weak views $w$, $w_2$ and $b$, the SmoothBlend of $w$, are of held-out normal images.
`triplet`, the share with $\\cos(w, w_2) > \\cos(w, b)$, should rise, and `cos_blend`, the cosine of $w$ and $b$, fall.

"""
WHOLE = """Mean ± standard deviation over seeds, whose number the tables below give; few-shot draws are averaged first.

"""
SELECTION = "Two metrics a level are shown; all are in `metrics.csv`.\n\n"
DIAGNOSES = """Held-out normal images, evaluation mode ({py:func}`~visa.pretrain.diagnose.diagnose`).
`cos_weak`: two weak views; `cos_blend`: a weak view and its SmoothBlend; `triplet`: share of images whose weak views
are closer to each other than to the blended one; `feature_std`: 1 where embeddings spread, 0 where they collapsed;
`probe_auroc`, `probe_accuracy`: a linear probe on the backbone that tells blended from clean images, 0.5 is chance.

"""
FIGURE = """:::{{figure}} generated/{file}
:alt: {alt}
:class: dark-light

{caption}
:::
"""

NBSP = "\N{NO-BREAK SPACE}"  # a narrow table breaks between figures, not inside one

Drawn = tuple[str, str, str]  # file name, SVG, markdown
Cell = Callable[["pd.Series[float]"], str]


def results(name: str, command: str, folder: Path) -> dict[str, str]:
    """The body of results_NAME.md and its figures, from the files in `folder`; a note where there are none."""
    page = f"results_{name}.md"
    if not (folder / "metrics.csv").is_file():
        return {page: NO_RUN.format(what="results of this run", command=command)}
    metrics = tables.overall(tables.load_metrics([folder / "metrics.csv"])).astype({"pretraining": str})
    diagnoses = _optional(folder / "diagnosis.csv")
    with mpl.rc_context():
        figures.use_style()
        made = result_files.origin(folder, command)
        drawn, curves = _figures(name, metrics, made), _curves(name, _optional(folder / "curves.csv"), made)
    sections = {
        "SPD at a glance": _glance(metrics, diagnoses),
        "The table": _whole(metrics),
        "Means over seeds": _selection(metrics) + _tables_by_level(_selected(metrics)),
        "What SPD changes": _differences(_selected(metrics)),
        "What the networks learned": _diagnoses(diagnoses),
        "Figures": "\n".join(text for _, _, text in drawn + curves),
        "Run time": _times(_optional(folder / "stages.csv")),
        "Where the numbers come from": _provenance(name, folder),
    }
    return {page: _page(sections)} | {file: svg for file, svg, _ in drawn + curves}


def ablation(reference: str, command: str, folder: Path) -> dict[str, str]:
    """The body of results_ablation.md and its figure, from `ablation.csv` in `folder`; a note where there is none."""
    page = "results_ablation.md"
    if not (folder / "ablation.csv").is_file():
        return {page: NO_RUN.format(what="results of the ablation", command=command)}
    measured = pd.read_csv(folder / "ablation.csv", dtype={"variant": str, "measure": str}, keep_default_na=False)
    differences = tables.differences_to(measured, reference)
    with mpl.rc_context():
        figures.use_style()
        drawn = _difference_figures(differences, reference, result_files.origin(folder, command))
    means = tables.summary_table(measured.assign(metric=measured["measure"]), ["variant", "measure"])
    compared = _by_place(differences, tables.mean_interval) + "\n" + "\n".join(text for _, _, text in drawn)
    sections = {
        "Means over seeds": _by_place(means, tables.mean_sd),
        f"Differences to `{reference}`": compared,
        "Where the numbers come from": _provenance("ablation", folder),
    }
    return {page: _page(sections)} | {file: svg for file, svg, _ in drawn}


def _page(sections: Mapping[str, str]) -> str:
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)


def _optional(file: Path) -> pd.DataFrame:
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def _is_large(metrics: pd.DataFrame) -> bool:
    return metrics["pretraining"].nunique() > MANY


def _selection(metrics: pd.DataFrame) -> str:
    return SELECTION if _is_large(metrics) else ""


def _selected(metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics[metrics["metric"].isin(SHORT)] if _is_large(metrics) else metrics


def _glance(metrics: pd.DataFrame, diagnoses: pd.DataFrame) -> str:
    """SPD minus base of every method, a line a measure, where there are several methods."""
    pairs = tables.spd_pairs(metrics["pretraining"].unique())
    if len(pairs) < 2:
        return ""
    both = (result_files.of_metrics(metrics), result_files.of_diagnoses(diagnoses))
    measured = pd.concat([table for table in both if len(table)])
    measured = measured[measured["measure"].isin(list(GLANCE))]
    parts = []
    for name, base in pairs.items():
        pair = measured[measured["variant"].isin([name, base])]
        if pair["variant"].nunique() == 2:
            parts.append(tables.differences_to(pair, base).assign(variant=base))
    differences = pd.concat(parts)
    seeds = ", ".join(map(str, sorted(differences["n"].unique())))
    of_one = " Of one seed, the interval is over draws." if (differences["over"] == "draws").any() else ""
    heading = f"Seeds in a pair: {seeds}.{of_one}\n\n"
    table = _wide(differences, "measure", "variant", tables.mean_interval).reindex(
        [m for m in GLANCE if m in set(differences["measure"])]
    )
    return AT_A_GLANCE + heading + tables.to_markdown(table.rename(GLANCE).reset_index(names="SPD minus base"))


def _whole(metrics: pd.DataFrame) -> str:
    """A line a setup, level and detector, a column a pre-training, where the setups are many and columns few."""
    if _is_large(metrics) or metrics["setup"].nunique() < ALL_SETUPS:
        return ""
    summary, parts = tables.summary_table(metrics), []
    for metric in SHORT:
        table = tables.spread(summary[summary["metric"] == metric], ["setup", "level", "detector"], ["pretraining"])
        table = table.drop(columns=["seeds", "draws"], errors="ignore")  # of the least: columns may differ
        parts.append(f"**{tables.METRICS[metric]}**\n\n{tables.to_markdown(table)}")
    return WHOLE + "\n".join(parts)


def _tables_by_level(metrics: pd.DataFrame) -> str:
    summary = tables.summary_table(metrics)
    parts = []
    for (setup, level), part in summary.groupby(["setup", "level"], sort=False):
        table = tables.spread(part, *_layout(part, "pretraining"))
        parts.append(f"**{setup}, {level} level**\n\n{tables.to_markdown(table)}")
    return "\n".join(parts)


def _differences(metrics: pd.DataFrame) -> str:
    """A table a setup and level, a line a method and detector."""
    pairs = tables.spd_pairs(metrics["pretraining"].unique())
    if not pairs:
        return "These results hold no pair of pre-trainings with and without SPD.\n"
    found = [tables.paired_difference(metrics, a, b).assign(difference=f"{a} − {b}") for a, b in pairs.items()]
    parts = []
    for (setup, level), part in pd.concat(found).groupby(["setup", "level"], sort=False):
        table = tables.intervals(part, *_layout(part, "difference"))
        parts.append(f"**{setup}, {level} level**\n\n{tables.to_markdown(table)}")
    return "\n".join(parts)


def _layout(table: pd.DataFrame, what: str) -> tuple[list[str], list[str]]:
    """Rows and columns: of few metrics, all detectors stand side by side."""
    few = table["metric"].nunique() <= len(SHORT)
    return ([what], ["detector", "metric"]) if few else (["detector", what], ["metric"])


def _figures(name: str, metrics: pd.DataFrame, made: str) -> list[Drawn]:
    """AU-PR of every pre-training: a figure a level, and a setup where the pre-trainings are many."""
    chosen = metrics[metrics["metric"] == "au_pr"]
    keys = ["level", "setup"] if _is_large(metrics) else ["level"]
    drawn = []
    for key, part in chosen.groupby(keys, sort=False):
        level, *setup = map(str, key)
        file = "_".join([name, level, *setup, "au_pr"]) + ".svg"
        alt = f"AU-PR at {level} level for each detector, pre-training and seed"
        caption = (
            f"AU-PR, {', '.join([f'{level} level', *setup])}. A line joins the runs of one seed; the bar is the mean. "
            f"{made}"
        )
        drawn.append(_drawn(file, figures.plot_metric_by_pretraining(part, level, "au_pr"), alt, caption))
    return drawn


def _curves(name: str, curves: pd.DataFrame, made: str) -> list[Drawn]:
    """Training curves in one figure; of many pre-trainings, in a folded figure for each method."""
    if curves.empty:
        return []
    caption = f"Training curves, a line a seed, running mean over 25 steps. {made}"
    if curves["pretraining"].nunique() < MANY:
        alt = f"Training curves of {', '.join(curves['pretraining'].unique())}: losses and feature standard deviation"
        return [_drawn(f"{name}_curves.svg", figures.plot_curves(curves), alt, caption)]
    drawn = []
    for method, part in curves.groupby(curves["pretraining"].str.removesuffix("+spd"), sort=False):
        alt = f"Training curves of {method}"
        file, svg, text = _drawn(f"{name}_{method}_curves.svg", figures.plot_curves(part), alt, caption)
        drawn.append((file, svg, FOLDED.format(title=alt, text=text)))
    return drawn


def _difference_figures(differences: pd.DataFrame, reference: str, made: str) -> list[Drawn]:
    drawn = []
    for place, measures in SHOWN.items():
        if differences["measure"].isin(measures).any():
            alt = f"Difference of each variant to {reference}, on {place}"
            caption = f"Each variant minus `{reference}`, paired by seed: mean and its 95 % interval. {made}"
            drawn.append(_drawn(f"ablation_{place}.svg", figures.plot_differences(differences, measures), alt, caption))
    return drawn


def _drawn(file: str, figure: Figure, alt: str, caption: str) -> Drawn:
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    mpl.pyplot.close(figure)
    return file, target.getvalue(), FIGURE.format(file=file, alt=alt, caption=caption)


def _diagnoses(diagnoses: pd.DataFrame) -> str:
    """Mean and standard deviation over seeds of what held-out images say of z and of the backbone."""
    if diagnoses.empty:
        return "No diagnoses are stored.\n"
    columns = [c for c in diagnoses if c not in ("pretraining", "scope", "seed")]
    grouped = diagnoses.groupby("pretraining", sort=False)[columns]
    mean, sd = grouped.mean(), grouped.std()
    cells = mean.map("{:.3f}".format) + sd.map(f"{NBSP}±{NBSP}{{:.3f}}".format).where(sd.notna(), "")
    return DIAGNOSES + tables.to_markdown(cells.where(mean.notna(), "").reset_index(names="pre-training"))


def _by_place(table: pd.DataFrame, cell: Cell) -> str:
    """A table of measures on z, and one of measures on the backbone; a line a variant."""
    parts = []
    for title, chosen in (("On z", table["measure"].isin(ON_Z)), ("On the backbone", ~table["measure"].isin(ON_Z))):
        if chosen.any():
            wide = _wide(table[chosen], "variant", "measure", cell).reset_index()
            parts.append(f"**{title}**\n\n{tables.to_markdown(wide)}")
    return "\n".join(parts)


def _wide(table: pd.DataFrame, rows: str, columns: str, cell: Cell) -> pd.DataFrame:
    """One cell a row and column, in the order of the table, `–` where there is nothing."""
    cells = table.assign(cell=[cell(line) for _, line in table.iterrows()])
    wide = cells.pivot(index=rows, columns=columns, values="cell")
    wide = wide.loc[list(dict.fromkeys(table[rows])), list(dict.fromkeys(table[columns]))]
    return wide.fillna("–").rename_axis(columns=None)


def _times(stages: pd.DataFrame) -> str:
    """Mean seconds of each notebook, pre-training and (where given) detector."""
    if stages.empty:
        return "No run times are stored.\n"
    keys = [c for c in ("notebook", "pretraining", "detector") if c in stages]
    table = stages.fillna(dict.fromkeys(keys, "")).groupby(keys, sort=False)["seconds"].agg(["mean", "count"])
    mean = table["mean"].map("{:.1f}".format)
    return tables.to_markdown(
        table.reset_index()[keys].assign(**{"mean seconds": list(mean), "runs": list(table["count"])})
    )


def _provenance(name: str, folder: Path) -> str:
    """Each JSON file, folded."""
    files = [(f.name, f.read_text(encoding="utf-8").strip()) for f in sorted(folder.glob("*.json"))]
    folded = [FOLDED.format(title=title, text=f"```json\n{text}\n```") for title, text in files]
    return MADE_FROM.format(name=name) + "\n".join(folded)
