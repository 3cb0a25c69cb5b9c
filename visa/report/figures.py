"""Figures of the notebooks and the book, as wide as the book's text, with at most four panels a row."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from visa.detect.scores import Scores
from visa.errors import VisaError
from visa.metrics.intervals import resample
from visa.report.tables import METRICS, overall, summary_table, title_of

WIDTH = 7.8  # inches: the book shows a figure of this width in its full size
INK = "#767676"  # contrast of 4 : 1 or better on white and on the book's dark page
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#949494")  # seaborn's "colorblind", without its dark
MARKERS = ("o", "s", "^", "D", "v", "P")  # in addition to colours, which not all eyes and printers distinguish
HEAT = "inferno"  # dark to light: readable for colour-blind readers and in grey
TERMS = {"loss": "loss", "base": "base loss", "spd": "SPD term", "feature_std": "feature standard deviation"}

Floats = NDArray[np.float64]

_RATES = np.linspace(0, 1, 101)  # where the bands of curves are drawn


def use_style() -> None:
    """Set the style of all figures: transparent, grey ink, colours for colour-blind readers, text as text in an SVG."""
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    clear = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    settings = {
        "figure.constrained_layout.use": True,
        "figure.dpi": 96,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "visa",  # the same figure gives the same file
    }
    rc = dict.fromkeys(ink, INK) | dict.fromkeys(clear, "none") | settings
    sns.set_theme(context="notebook", style="ticks", palette=list(PALETTE), font_scale=0.9, rc=rc)


def plot_curves(curves: pd.DataFrame, smooth: int = 25) -> Figure:
    """Plot training curves: an axis for each of TERMS, a colour for each pre-training, a line for each seed.

    curves: columns `pretraining`, `seed`, `step`, the terms, and `scope` where there are several; a term that is
    absent, or empty for a pre-training, is left out. Lines are running means over `smooth` steps.
    """
    shown = [t for t in TERMS if t in curves and curves[t].notna().any()]
    columns, rows = min(2, len(shown)), (len(shown) + 1) // 2
    figure = plt.figure(figsize=(WIDTH * columns / 2, 2.5 * rows + 0.4))
    names = list(curves["pretraining"].unique())
    keys = [c for c in ("pretraining", "seed", "scope") if c in curves]
    for place, term in enumerate(shown, 1):
        axis = figure.add_subplot(rows, columns, place)
        for (name, *_), run in curves.dropna(subset=[term]).groupby(keys, sort=False):
            drawn = pd.DataFrame({"x": run["step"], "y": run[term].rolling(smooth, min_periods=1).mean()})
            drawn = drawn.iloc[:: max(1, -(-len(drawn) // 120))]  # a running mean needs no more points
            axis.plot(drawn["x"], drawn["y"], color=PALETTE[names.index(name) % 6], lw=1.2, label=name)
        axis.set(xlabel="step", ylabel=TERMS[term])
    legend_once(figure)
    return figure


def plot_scores(scores: ArrayLike, labels: ArrayLike, axis: Axes, bins: int = 30) -> None:
    """Plot the histogram of image scores (N,), normal (label 0) and anomalous (1) images apart, each summing to 1."""
    s, anomalous = np.asarray(scores), np.asarray(labels).astype(bool)
    edges = np.histogram_bin_edges(s, bins).tolist()
    for name, chosen, colour in (("normal", ~anomalous, PALETTE[0]), ("anomalous", anomalous, PALETTE[1])):
        share = np.full(chosen.sum(), 1 / max(chosen.sum(), 1))
        axis.hist(s[chosen], edges, weights=share, alpha=0.65, color=colour, label=name)
    axis.set(xlabel="image score", ylabel="share of images")


def plot_roc_pr(results: Mapping[str, tuple[ArrayLike, ArrayLike]], resamples: int = 0) -> Figure:
    """Plot ROC and precision-recall curves; `results` maps a name to scores (N,) and labels (N,), 1 for an anomaly.

    With `resamples`, say 500, each curve has a band: at every rate, the middle 95 % of the curves of that many
    bootstrap samples, normal and anomalous images drawn separately. The dotted lines are chance.
    """
    figure, (roc, pr) = plt.subplots(1, 2, figsize=(WIDTH, 3.6))
    for name, (scores, labels) in results.items():
        fpr, tpr, _ = roc_curve(labels, scores)
        precision, recall, _ = precision_recall_curve(labels, scores)
        (line,) = roc.plot(fpr, tpr, label=name)
        pr.plot(recall, precision, label=name)
        if resamples:
            curves = _resampled_curves(np.asarray(scores), np.asarray(labels).astype(bool), resamples)
            for axis, drawn in ((roc, curves["roc"]), (pr, curves["pr"])):
                low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
                axis.fill_between(_RATES, low, high, color=line.get_color(), alpha=0.15, lw=0)
    prevalence = float(np.mean(np.asarray(next(iter(results.values()))[1])))
    roc.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    pr.axhline(prevalence, color=INK, lw=0.8, ls=":")
    roc.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(0, 1), ylim=(0, 1.02))
    pr.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    pr.legend(loc="lower left")
    return figure


def _resampled_curves(scores: Floats, positive: NDArray[np.bool_], resamples: int) -> dict[str, Floats]:
    """Draw images `resamples` times: (resamples, 101) true-positive rates `roc` and precisions `pr` at _RATES.

    A bootstrap sample is a weight for each image, so scores are sorted once; equal scores enter a curve together.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)

    def curves(times: Floats) -> dict[str, Floats]:
        true, false = ((times * kind)[:, order].cumsum(axis=1)[:, last] for kind in (positive, ~positive))
        found = true + false
        precision = np.where(found > 0, true / np.maximum(found, 1), 1)  # 1 where nothing is found: the curve's start
        tpr, fpr = true / true[:, -1:], false / false[:, -1:]
        roc = [np.interp(_RATES, np.append(0, x), np.append(0, y)) for x, y in zip(fpr, tpr, strict=True)]
        pr = [np.interp(_RATES, np.append(0, x), np.append(y[0], y)) for x, y in zip(tpr, precision, strict=True)]
        return {"roc": np.array(roc), "pr": np.array(pr)}

    return resample(curves, positive, resamples, seed=0)


def pick_cases(labels: ArrayLike, image_scores: ArrayLike, n: int = 2) -> dict[str, NDArray[np.int64]]:
    """Pick up to `n` images of each kind by index, the clearest first.

    `false alarms`: the normal images with the highest scores; `misses`: the anomalous ones with the lowest;
    `highest scores`: the anomalous ones with the highest. labels: (N,), 1 for an anomaly; image_scores: (N,).
    """
    anomalous, s = np.asarray(labels).astype(bool), np.asarray(image_scores)
    falling = np.argsort(-s, kind="stable")
    normal, bad = (falling[anomalous[falling] == kind] for kind in (False, True))
    return {"false alarms": normal[:n], "misses": bad[::-1][:n], "highest scores": bad[:n]}


def show_cases(picked: Mapping[str, NDArray[np.int64]], images: ArrayLike, scores: Scores) -> Figure:
    """Show a row for each kind of case: images with their masks' outlines, and beside each its heat map if it has one.

    images: those of `picked`, kind after kind, (N, 3, H, W) uint8. All heat maps share one scale, from the
    median of all test pixels (clear) to the highest (light). Titles give the image score, and the share of normal
    test images that score lower.
    """
    pictures, normal = iter(np.moveaxis(np.asarray(images), 1, -1)), scores.image_scores[scores.labels == 0]
    maps = scores.maps
    if maps is not None:
        low, high = float(np.median(maps[:, ::4, ::4])), float(maps.max())  # a median needs no more pixels
    columns, wide = max(map(len, picked.values())), 1 if maps is None else 2
    size = (min(1.95 * columns * wide, WIDTH), 2.25 * len(picked))
    figure, axes = plt.subplots(len(picked), columns * wide, figsize=size, squeeze=False)
    for row, (kind, indices) in zip(axes, picked.items(), strict=True):
        row[0].set_ylabel(kind)
        for k, i in enumerate(indices):
            picture, own = next(pictures), row[k * wide : (k + 1) * wide]
            below = 100 * float(np.mean(normal < scores.image_scores[i]))
            own[0].set_title(f"{scores.image_scores[i]:.3g}, above {below:.0f} %", fontsize="small")
            for axis in own:
                axis.imshow(picture)
            if maps is not None:
                heat = np.clip((maps[i] - low) / max(high - low, 1e-12), 0, 1)
                own[1].imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.85 * heat**0.5)  # opacity rises with the score
            if scores.masks is not None and scores.masks[i].any():
                for axis, (colour, line) in product(own, (("black", 2.2), ("white", 1.0))):  # shows on any image
                    axis.contour(scores.masks[i] > 0, [0.5], colors=[colour], linewidths=line)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def plot_overview(metrics: pd.DataFrame, metric: str = "au_pr") -> Figure:
    """Plot the mean metric of each pre-training: a row per task, a column per setup, a marker per detector.

    Means are over objects, draws and seeds; whiskers are one standard deviation over seeds, or over one seed's draws.
    metrics: balanced (see `balanced`), so that means are comparable.
    """
    table = _measured(overall(metrics), "", metric)
    summary = summary_table(table, ["level", "setup", "detector", "pretraining"])
    summary["spread"] = summary["sd"].where(summary["n"] > 1, summary["sd_draws"]).fillna(0)
    levels, setups = (list(dict.fromkeys(summary[c])) for c in ("level", "setup"))
    names = list(metrics["pretraining"].unique())
    looks = {detector: _look(k) for k, detector in enumerate(metrics["detector"].unique())}
    size = (min(max(2.6, 0.45 * len(names) + 1.2) * len(setups), WIDTH), 2.3 * len(levels) + 1.2)
    figure, axes = plt.subplots(len(levels), len(setups), figsize=size, squeeze=False, sharex=True, sharey="row")
    for row, level in zip(axes, levels, strict=True):
        for axis, setup in zip(row, setups, strict=True):
            part = summary[(summary["level"] == level) & (summary["setup"] == setup)]
            parts = list(part.groupby("detector", sort=False))
            for k, (detector, own) in enumerate(parts):
                x = np.array([names.index(n) for n in own["pretraining"]]) + 0.12 * (k - (len(parts) - 1) / 2)
                axis.errorbar(x, own["mean"], own["spread"], label=title_of(str(detector)), **looks[str(detector)])
            if not parts:
                axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center")
            axis.set(title=title_of(setup), xlim=(-0.5, len(names) - 0.5))
        row[0].set_ylabel(f"{title_of(level)}\n{METRICS.get(metric, metric)}")
    for axis in axes[-1]:
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    legend_once(figure)
    return figure


def plot_defects(metrics: pd.DataFrame, level: str, metric: str = "au_pr") -> Figure:
    """Plot the metric of each defect class, an axis for each setup and detector: mean and range over seeds.

    metrics: rows of one object, some with a `defect`. The class with the lowest mean is on top.
    Raises VisaError if no class has this metric.
    """
    table = _measured(metrics[metrics["defect"] != ""], level, metric)
    classes = list(table.groupby("defect")["value"].mean().sort_values().index)
    names = list(table["pretraining"].unique())
    panels = list(table.groupby(["setup", "detector"], sort=False))
    columns, rows = min(len(panels), 3), -(-len(panels) // 3)
    size = (min(2.6 * columns + 1.5, WIDTH), ((0.15 + 0.07 * len(names)) * len(classes) + 0.9) * rows + 0.5)
    figure, first = plt.figure(figsize=size), None
    for k, ((setup, detector), part) in enumerate(panels):
        axis = figure.add_subplot(rows, columns, k + 1, sharex=first, sharey=first)
        first = first or axis
        per_seed = part.groupby(["pretraining", "defect", "seed"])["value"].mean()
        for place, name in enumerate(names):
            if name in per_seed.index:
                own = per_seed[name].groupby("defect").agg(["mean", "min", "max"]).reindex(classes)
                y = np.arange(len(classes)) + 0.6 * ((place + 0.5) / len(names) - 0.5)
                whiskers = [(own["mean"] - own["min"]).clip(0), (own["max"] - own["mean"]).clip(0)]  # a mean is rounded
                axis.errorbar(own["mean"], y, xerr=whiskers, label=name, **_look(place))
        axis.set_yticks(range(len(classes)), classes, parse_math=False)  # a class may be called anything, $ included
        axis.tick_params(labelleft=k % columns == 0)
        axis.set_title(f"{title_of(str(setup))}\n{title_of(str(detector))}")
        axis.set(xlabel=f"{level} {METRICS.get(metric, metric)}", ylim=(len(classes) - 0.5, -0.5))
    legend_once(figure)
    return figure


def _look(k: int) -> dict[str, Any]:
    return {"fmt": MARKERS[k % len(MARKERS)], "ms": 5, "lw": 1, "color": PALETTE[k % len(PALETTE)]}


def _measured(metrics: pd.DataFrame, level: str, metric: str) -> pd.DataFrame:
    """Return the rows of a metric, of one level unless that is empty; raises VisaError if there are none."""
    table = metrics[(metrics["metric"] == metric) & ((metrics["level"] == level) | (level == ""))]
    if table.empty:
        what = f"{level} {METRICS.get(metric, metric)}".strip()
        raise VisaError(f"there is no {what} among the metrics: choose what was measured.")
    return table


def legend_once(figure: Figure) -> None:
    """Draw one legend for all axes below the figure, with each label once, up to four labels in a row."""
    handles = {label: h for axis in figure.axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(len(handles), 4))
