"""Figures of the notebooks and the book: readable by colour-blind eyes, on a white page and on a dark one."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from visa.errors import VisaError
from visa.report.tables import METRICS, overall

INK = "#767676"  # contrast of 4 : 1 or better on white and on the book's dark page
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#949494")  # seaborn's "colorblind", without its dark
MARKERS = ("o", "s", "^", "D", "v", "P")  # beside colours, for eyes and printers that tell few apart
TERMS = {"loss": "loss", "base": "base loss", "spd": "SPD term", "feature_std": "feature standard deviation"}

Pixels = NDArray[np.generic]
Floats = NDArray[np.float64]

_RATES = np.linspace(0, 1, 101)  # where the bands of curves are drawn


def use_style() -> None:
    """Set the one style of all figures: transparent, grey ink, colour-blind safe, text kept as text in an SVG."""
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


def plot_curves(curves: pd.DataFrame, terms: Sequence[str] = tuple(TERMS), smooth: int = 25) -> Figure:
    """Training curves, one axis a term: running mean over `smooth` steps, a colour a pre-training, a line a seed.

    curves: columns `pretraining`, `seed`, `step`, the terms, and `scope` where there are several; a term that is
    absent, or empty for a pre-training, is left out.
    """
    shown = [t for t in terms if t in curves and curves[t].notna().any()]
    if not shown:
        raise VisaError(f"the curves hold none of {', '.join(terms)}: give the columns to plot as terms.")
    columns, rows = min(2, len(shown)), (len(shown) + 1) // 2
    figure, grid = plt.subplots(rows, columns, figsize=(3.8 * columns, 2.5 * rows + 0.4), squeeze=False)
    axes = list(grid.flat)
    for unused in axes[len(shown) :]:
        unused.remove()
    names = list(curves["pretraining"].unique())
    keys = [c for c in ("pretraining", "seed", "scope") if c in curves]
    for axis, term in zip(axes, shown, strict=False):
        for (name, *_), run in curves.dropna(subset=[term]).groupby(keys, sort=False):
            drawn = pd.DataFrame({"x": run["step"], "y": run[term].rolling(smooth, min_periods=1).mean()})
            drawn = drawn.iloc[:: max(1, -(-len(drawn) // 120))]  # a running mean needs no more points
            axis.plot(drawn["x"], drawn["y"], color=PALETTE[names.index(name) % 6], lw=1.2, label=name)
        axis.set(xlabel="step", ylabel=TERMS.get(term, term))
    legend_once(figure, axes)
    return figure


def plot_scores(scores: ArrayLike, labels: ArrayLike, axis: Axes | None = None, bins: int = 30) -> Figure:
    """Histogram of image scores (N,), normal (label 0) and anomalous (1) images apart, each summing to 1."""
    s, anomalous = np.asarray(scores), np.asarray(labels).astype(bool)
    axis = axis or plt.subplots(figsize=(5, 3.2))[1]
    edges = np.histogram_bin_edges(s, bins).tolist()
    for name, chosen, colour in (("normal", ~anomalous, PALETTE[0]), ("anomalous", anomalous, PALETTE[1])):
        share = np.full(chosen.sum(), 1 / max(chosen.sum(), 1))
        axis.hist(s[chosen], edges, weights=share, alpha=0.65, color=colour, label=f"{name} ({chosen.sum()})")
    axis.set(xlabel="image score", ylabel="share of images")
    axis.legend()
    return _figure_of(axis)


def plot_roc_pr(
    results: Mapping[str, tuple[ArrayLike, ArrayLike]], resamples: int = 0, confidence: float = 0.95, seed: int = 0
) -> Figure:
    """ROC and precision-recall curves; `results` maps a name to scores (N,) and labels (N,), 1 for an anomaly.

    With `resamples`, say 500, each curve lies in a band: at every rate, the middle `confidence` of the curves of as
    many bootstrap samples, normal and anomalous images drawn apart. The dotted lines are chance.
    """
    figure, (roc, pr) = plt.subplots(1, 2, figsize=(8, 3.6))
    for name, (scores, labels) in results.items():
        fpr, tpr, _ = roc_curve(labels, scores)
        precision, recall, _ = precision_recall_curve(labels, scores)
        (line,) = roc.plot(fpr, tpr, label=name)
        pr.plot(recall, precision, label=name)
        if resamples:
            for axis, curves in zip((roc, pr), _resampled_curves(scores, labels, resamples, seed), strict=True):
                low, high = np.quantile(curves, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
                axis.fill_between(_RATES, low, high, color=line.get_color(), alpha=0.15, lw=0)
    prevalence = float(np.mean(np.asarray(next(iter(results.values()))[1])))
    roc.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    pr.axhline(prevalence, color=INK, lw=0.8, ls=":")
    roc.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(0, 1), ylim=(0, 1.02))
    pr.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    pr.legend(loc="lower left")
    return figure


def _resampled_curves(scores: ArrayLike, labels: ArrayLike, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """(resamples, len(_RATES)) true-positive rates at false-positive rates, and precisions at recalls, of _RATES.

    A bootstrap sample is a weight for each image, so scores are sorted once; equal scores enter a curve together.
    """
    s, positive = np.asarray(scores), np.asarray(labels).astype(bool)
    order = np.argsort(-s, kind="stable")
    last = np.append(np.diff(s[order]) != 0, True)
    rng = np.random.default_rng(seed)
    true, false = (_resampled_counts(kind[order], resamples, rng)[:, last] for kind in (positive, ~positive))
    found = true + false
    precision = np.where(found > 0, true / np.maximum(found, 1), 1)  # 1 where nothing is found: the curve's start
    tpr, fpr = true / true[:, -1:], false / false[:, -1:]
    roc = [np.interp(_RATES, np.append(0, x), np.append(0, y)) for x, y in zip(fpr, tpr, strict=True)]
    pr = [np.interp(_RATES, np.append(0, x), np.append(y[0], y)) for x, y in zip(tpr, precision, strict=True)]
    return np.array(roc), np.array(pr)


def _resampled_counts(chosen: NDArray[np.bool_], resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples, N) how many of the `chosen` are among the first images, each drawn by chance with replacement."""
    n = int(chosen.sum())
    counts = np.zeros((resamples, len(chosen)))
    counts[:, chosen] = rng.multinomial(n, np.full(n, 1 / n), resamples)
    return counts.cumsum(axis=1)


def show_maps(
    images: ArrayLike,
    maps: ArrayLike,
    masks: ArrayLike,
    scores: ArrayLike | None = None,
    titles: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """One column a sample: image with the true mask's outline, and anomaly map.

    images: N,H,W,3 or N,3,H,W, uint8; maps and masks: N,H,W; scores: N, written below. All maps share one colour
    scale, from the median to the highest of their values, or `limits`.
    """
    pictures, truth, heat = channels_last(images), np.asarray(masks), np.asarray(maps)
    low, high = limits or (float(np.median(heat)), float(heat.max()))
    n = len(pictures)
    figure, axes = plt.subplots(2, n, figsize=(2.1 * n, 4.4), squeeze=False)
    for k in range(n):
        axes[0, k].imshow(pictures[k])
        if truth[k].any():
            axes[0, k].contour(truth[k] > 0, [0.5], colors=[PALETTE[1]], linewidths=1.2)
        axes[1, k].imshow(heat[k], cmap="cividis", vmin=low, vmax=high)
        axes[0, k].set_title(titles[k] if titles else "")
        axes[1, k].set_title("" if scores is None else f"score {np.asarray(scores)[k]:.2f}")
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def plot_metric_by_pretraining(metrics: pd.DataFrame, level: str, metric: str) -> Figure:
    """One axis a setup and detector: the metric of every seed, a seed's values joined, and each pre-training's mean.

    A seed's value is the mean over its draws and objects, of the figures over all anomalies: of the objects that every
    pre-training and seed of the axis has. Raises VisaError if nothing of the kind was measured, or nothing in common.
    """
    table = overall(metrics[(metrics["level"] == level) & (metrics["metric"] == metric)])
    if table.empty:
        raise VisaError(
            f"there is no {level} {metric} among the metrics: choose a level and a metric that was measured."
        )
    names = list(table["pretraining"].unique())
    panels = list(table.groupby(["setup", "detector"], sort=False))
    width = max(2.0, 0.6 * len(names))
    figure, axes = plt.subplots(1, len(panels), figsize=(width * len(panels), 3.4), sharey=True, squeeze=False)
    for axis, ((setup, detector), part) in zip(axes[0], panels, strict=True):
        alike = _of_common_objects(part)
        values = alike.pivot_table(index="seed", columns="pretraining", values="value").reindex(columns=names)
        for _, seed in values.iterrows():
            axis.plot(names, seed, color=INK, lw=0.8, marker="o", ms=4, alpha=0.7)
        axis.scatter(names, values.mean(), marker="_", s=600, lw=2.5, color=PALETTE[0], zorder=3)
        axis.set(title=f"{setup}\n{detector}", xlim=(-0.5, len(names) - 0.5))
        axis.tick_params(axis="x", rotation=30)
    axes[0, 0].set_ylabel(f"{level} {METRICS.get(metric, metric)}")
    return figure


def _of_common_objects(table: pd.DataFrame) -> pd.DataFrame:
    if "object" not in table:
        return table
    common = set.intersection(*table.groupby(["pretraining", "seed"])["object"].agg(set))
    if not common:
        raise VisaError(f"the runs with {table['detector'].iloc[0]} have no object in common: complete them.")
    return table[table["object"].isin(common)]


def plot_differences(differences: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Differences to a reference with their intervals (see `differences_to`), one axis a measure, a line a variant."""
    names = list(differences["variant"].unique())
    shown = [m for m in measures if (differences["measure"] == m).any()]
    if not shown:
        raise VisaError(f"there is none of {', '.join(measures)} among the differences: choose what was measured.")
    size = (3.6 * len(shown) + 1, 0.32 * len(names) + 1)
    figure, axes = plt.subplots(1, len(shown), figsize=size, sharey=True, squeeze=False)
    for axis, measure in zip(axes[0], shown, strict=True):
        rows = differences[differences["measure"] == measure].set_index("variant").reindex(names)
        half = (rows["high"] - rows["mean"]).fillna(0)
        axis.errorbar(rows["mean"], range(len(names)), xerr=half, fmt="o", ms=4, lw=1.2, color=PALETTE[0])
        axis.axvline(0, color=INK, lw=0.8, ls=":")
        axis.set(xlabel=f"difference in {measure}", yticks=range(len(names)), yticklabels=names)
    axes[0, 0].invert_yaxis()
    return figure


def legend_once(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend below the figure for all its axes, each label once."""
    handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))


def channels_last(images: ArrayLike) -> Pixels:
    """Images N,H,W,3 of images N,H,W,3 or N,3,H,W."""
    pixels: Pixels = np.asarray(images)
    return pixels if pixels.shape[-1] == 3 else np.moveaxis(pixels, 1, -1)


def _figure_of(axis: Axes) -> Figure:
    figure = axis.get_figure(root=True)
    assert figure is not None
    return figure
