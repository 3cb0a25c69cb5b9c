"""Parts of pages that are made from files: tables of the data, published and measured figures, the API's list."""

import io
import pkgutil
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

import visa
from visa.data.objects import OBJECTS
from visa.report import figures, tables

RESULTS = ("fryum",)
STAGES = {  # the packages of the API page, in the order of the way through
    "Foundations": ("errors", "paths", "provenance", "backbone", "metrics"),
    "Data": ("data",),
    "Pre-training": ("pretrain",),
    "Detection": ("detect",),
    "Report": ("report",),
}
REST = "Running"

NO_RUN = """:::{{note}}
No results for {object} are stored in this copy of the book.
[](running.md) says how to make them: `visa run --objects {object} --seeds 0,1,2`.
:::
"""
MADE_FROM = """Everything above is made from the files in `book/results/{name}/`.
What made those, with settings, data, code and machine:

"""
SIDECAR = """::::{{dropdown}} {name}
```json
{text}
```
::::
"""
DIAGNOSES = """Held-out normal images, evaluation mode ({py:func}`~visa.pretrain.diagnose.diagnose`).
`cos_weak`: two weak views; `cos_blend`: a weak view and its SmoothBlend; `triplet`: share of images whose weak views
are closer to each other than to the blended one; `probe_auroc`: a linear probe on the backbone that tells blended
images from clean ones.

"""
FIGURE = """:::{{figure}} generated/{file}
:alt: {alt}
:class: dark-light

{caption}
:::
"""


def fragments(book: Path) -> dict[str, str]:
    """File name to text, for everything in book/generated."""
    made = {
        "objects.md": tables.to_markdown(_objects()),
        "classes.md": tables.to_markdown(_classes()),
        "counts.md": tables.to_markdown(_csv(book / "reference" / "class_counts.csv")),
        "splits.md": tables.to_markdown(_csv(book / "reference" / "split_sizes.csv")),
        "toy_spd_forms.md": tables.to_markdown(_csv(book / "reference" / "toy_spd_forms.csv")),
        "peers_fryum.md": tables.to_markdown(_csv(book / "reference" / "peers_fryum.csv")),
        "published.md": tables.to_markdown(_csv(book / "reference" / "published.csv")),
        "api.md": api(),
    }
    for name in RESULTS:
        made |= results(name, book / "results" / name)
    return made


def api() -> str:
    """An automodule directive for every module of the package, a heading a stage."""
    modules = [m.name for m in pkgutil.walk_packages(visa.__path__, "visa.") if not m.ispkg]
    sections, placed = [], set()
    for heading, parts in STAGES.items():
        chosen = [m for part in parts for m in modules if m.split(".")[1] == part]
        placed.update(chosen)
        sections.append(_api_section(heading, chosen))
    return "\n".join([*sections, _api_section(REST, [m for m in modules if m not in placed])])


def results(name: str, folder: Path) -> dict[str, str]:
    """The results page's body and figures, from the files in `folder`; a note where there are none."""
    if not (folder / "metrics.csv").is_file():
        return {f"results_{name}.md": NO_RUN.format(object=name)}
    metrics = tables.load_metrics([folder / "metrics.csv"])
    metrics["pretraining"] = metrics["pretraining"].astype(str)
    with mpl.rc_context():
        figures.use_style()
        drawn = _figures(name, metrics, _optional(folder / "curves.csv"))
    sections = [
        "## Means over seeds\n\n" + _tables_by_level(metrics),
        "## What SPD changes\n\n" + _differences(metrics),
        "## What the networks learned\n\n" + _diagnoses(_optional(folder / "diagnosis.csv")),
        "## Figures\n\n" + "\n".join(text for _, _, text in drawn),
        "## Run time\n\n" + _times(_optional(folder / "stages.csv")),
        "## Where the numbers come from\n\n" + MADE_FROM.format(name=name) + _provenance(sorted(folder.glob("*.json"))),
    ]
    return {f"results_{name}.md": "\n\n".join(sections)} | {file: svg for file, svg, _ in drawn}


def _objects() -> pd.DataFrame:
    rows = [(o.group, o.name, f"`{o.id}`", o.normal, o.anomaly, len(o.classes)) for o in OBJECTS.values()]
    total = ("**all**", "", "", sum(o.normal for o in OBJECTS.values()), sum(o.anomaly for o in OBJECTS.values()), "")
    return pd.DataFrame([*rows, total], columns=["group", "object", "id", "normal", "anomalous", "classes"])


def _classes() -> pd.DataFrame:
    rows = [(f"`{o.id}`", ", ".join(f"{i} {c}" for i, c in enumerate(o.classes, 1))) for o in OBJECTS.values()]
    return pd.DataFrame(rows, columns=["object", "class ids in masks"])


def _csv(file: Path) -> pd.DataFrame:
    """A table as it is written: all text, empty cells empty."""
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def _optional(file: Path) -> pd.DataFrame:
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def _api_section(heading: str, modules: Iterable[str]) -> str:
    parts = [f"## {heading}\n"]
    for module in modules:
        parts.append(f"### `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n")
    return "\n".join(parts)


def _tables_by_level(metrics: pd.DataFrame) -> str:
    summary = tables.summary_table(metrics)
    parts = []
    for (setup, level), part in summary.groupby(["setup", "level"], sort=False):
        table = tables.spread(part, ["detector", "pretraining"], ["metric"])
        parts.append(f"**{setup}, {level} level**\n\n{tables.to_markdown(table)}")
    return "\n".join(parts)


def _differences(metrics: pd.DataFrame) -> str:
    names = metrics["pretraining"].unique()
    parts = []
    for name in names:
        base = name.removesuffix("+spd")
        if base == name or base not in names:
            continue
        difference = tables.paired_difference(metrics, name, base)
        for (setup, level), part in difference.groupby(["setup", "level"], sort=False):
            table = tables.intervals(part, ["detector"], ["metric"])
            parts.append(f"**{name} minus {base}: {setup}, {level} level**\n\n{tables.to_markdown(table)}")
    return "\n".join(parts) or "These results hold no pair of pre-trainings with and without SPD.\n"


def _figures(name: str, metrics: pd.DataFrame, curves: pd.DataFrame) -> list[tuple[str, str, str]]:
    """File name, SVG and markdown of each figure."""
    drawn = []
    for level, metric in (("image", "au_pr"), ("pixel", "au_pr")):
        if ((metrics["level"] == level) & (metrics["metric"] == metric)).any():
            alt = f"AU-PR at {level} level for each detector, pre-training and seed"
            caption = f"AU-PR, {level} level. A line joins the runs of one seed; the bar is the mean."
            figure = figures.plot_metric_by_pretraining(metrics, level, metric)
            drawn.append(_drawn(f"{name}_{level}_au_pr.svg", figure, alt, caption))
    if len(curves):
        caption = "Training curves, a line a seed, running mean over 25 steps."
        drawn.append(_drawn(f"{name}_curves.svg", figures.plot_curves(curves), "Training curves", caption))
    return drawn


def _drawn(file: str, figure: Figure, alt: str, caption: str) -> tuple[str, str, str]:
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
    cells = mean.map("{:.3f}".format) + sd.map(" ± {:.3f}".format).where(sd.notna(), "")
    return DIAGNOSES + tables.to_markdown(cells.where(mean.notna(), "").reset_index(names="pre-training"))


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


def _provenance(files: Iterable[Path]) -> str:
    """Each JSON file, folded."""
    return "\n".join(SIDECAR.format(name=f.name, text=f.read_text(encoding="utf-8").strip()) for f in files)
