"""Figures that compare pre-trainings over everything that was scored: by setup and task, and by defect class."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visa.errors import VisaError
from visa.report.figures import MARKERS, PALETTE, legend_once
from visa.report.layout import DETECTORS, SETUPS, TASKS, named
from visa.report.tables import METRICS, overall, summary_table


def plot_overview(metrics: pd.DataFrame, metric: str = "au_pr") -> Figure:
    """A row a task, a column a setup: mean of the metric for each pre-training, a colour and marker a detector.

    Means are over objects, draws and seeds; whiskers are one standard deviation over seeds, of one seed over draws.
    metrics: balanced (see `balanced`), so that means compare like with like.
    """
    table = _of_metric(overall(metrics), metric)
    summary = summary_table(table, ["level", "setup", "detector", "pretraining"])
    levels, setups = (list(dict.fromkeys(summary[c])) for c in ("level", "setup"))
    names = list(metrics["pretraining"].unique())
    looks = {detector: _look(k) for k, detector in enumerate(metrics["detector"].unique())}
    size = (max(2.6, 0.45 * len(names) + 1.2) * len(setups), 2.5 * len(levels) + 0.9)
    figure, axes = plt.subplots(len(levels), len(setups), figsize=size, squeeze=False, sharex=True, sharey="row")
    for row, level in zip(axes, levels, strict=True):
        for axis, setup in zip(row, setups, strict=True):
            part = summary[(summary["level"] == level) & (summary["setup"] == setup)]
            _draw_detectors(axis, part, names, looks)
            axis.set(title=named(SETUPS, setup), xlim=(-0.5, len(names) - 0.5))
        row[0].set_ylabel(f"{named(TASKS, level)}\n{METRICS.get(metric, metric)}")
    for axis in axes[-1]:
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    legend_once(figure, list(axes.flat))
    return figure


def _draw_detectors(
    axis: Axes, summary: pd.DataFrame, names: Sequence[str], looks: Mapping[str, Mapping[str, Any]]
) -> None:
    if summary.empty:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center")
    table = summary.assign(spread=summary["sd"].where(summary["n"] > 1, summary["sd_draws"]).fillna(0))
    parts = list(table.groupby("detector", sort=False))
    for k, (detector, own) in enumerate(parts):
        x = np.array([names.index(n) for n in own["pretraining"]]) + 0.12 * (k - (len(parts) - 1) / 2)
        axis.errorbar(x, own["mean"], own["spread"], label=named(DETECTORS, str(detector)), **looks[str(detector)])


def plot_defects(metrics: pd.DataFrame, level: str, metric: str = "au_pr") -> Figure:
    """The metric of each defect class, one axis a setup and detector: mean and range over seeds of each pre-training.

    metrics: rows of one object, some with a `defect`. The classes that are hardest on average are on top.
    Raises VisaError if there is no such figure of a single class.
    """
    table = _of_metric(metrics[(metrics["level"] == level) & (metrics["defect"] != "")], metric)
    classes = list(table.groupby("defect")["value"].mean().sort_values().index)
    names = list(table["pretraining"].unique())
    panels = list(table.groupby(["setup", "detector"], sort=False))
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    size = (2.6 * columns + 1.5, (0.2 + 0.1 * len(names)) * len(classes) * rows + 1.3)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, ((setup, detector), part) in zip(axes.flat, panels, strict=False):
        _draw_classes(axis, part, classes, names)
        axis.set_title(f"{named(SETUPS, str(setup))}, {named(DETECTORS, str(detector))}")
    axes[0, 0].set_ylim(len(classes) - 0.5, -0.5)
    for unused in list(axes.flat)[len(panels) :]:
        unused.remove()
    for lowest in list(axes.flat)[: len(panels)][-columns:]:
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel(f"{level} {METRICS.get(metric, metric)}")
    legend_once(figure, list(axes.flat)[: len(panels)])
    return figure


def _draw_classes(axis: Axes, part: pd.DataFrame, classes: Sequence[str], names: Sequence[str]) -> None:
    per_seed = part.groupby(["pretraining", "defect", "seed"])["value"].mean()
    for k, name in enumerate(names):
        if name in per_seed.index:
            own = per_seed[name].groupby("defect").agg(["mean", "min", "max"]).reindex(list(classes))
            y = np.arange(len(classes)) + 0.6 * ((k + 0.5) / len(names) - 0.5)
            whiskers = [(own["mean"] - own["min"]).clip(0), (own["max"] - own["mean"]).clip(0)]  # a mean is rounded
            axis.errorbar(own["mean"], y, xerr=whiskers, label=name, **_look(k))
    axis.set_yticks(range(len(classes)), classes, parse_math=False)  # a class may be called anything, $ included


def _look(k: int) -> dict[str, Any]:
    return {"fmt": MARKERS[k % len(MARKERS)], "ms": 5, "lw": 1, "color": PALETTE[k % len(PALETTE)]}


def _of_metric(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    table = metrics[metrics["metric"] == metric]
    if table.empty:
        raise VisaError(f"there is no such {METRICS.get(metric, metric)} among the metrics: choose what was measured.")
    return table
