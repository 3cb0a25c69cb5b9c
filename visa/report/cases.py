"""Single test images: those that a detector gets most wrong and most right, and where it looks in them."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from visa.detect.scores import Scores
from visa.report.figures import channels_last

HEAT = "inferno"  # dark to light: read by colour-blind eyes, and in grey

Indices = NDArray[np.int64]
Pixels = NDArray[Any]


def pick_cases(labels: ArrayLike, image_scores: ArrayLike, n: int = 3) -> dict[str, Indices]:
    """Indices of up to `n` images of each kind, the clearest first.

    `false alarms`: the normal images with the highest scores; `misses`: the anomalous ones with the lowest; `found`:
    the anomalous ones with the highest. labels: (N,), 1 for an anomaly; image_scores: (N,).
    """
    anomalous, s = np.asarray(labels).astype(bool), np.asarray(image_scores)
    normal, bad = (np.flatnonzero(kind) for kind in (~anomalous, anomalous))
    falling = {kind: which[np.argsort(-s[which], kind="stable")] for kind, which in (("normal", normal), ("bad", bad))}
    return {
        "false alarms": falling["normal"][:n],
        "misses": falling["bad"][::-1][:n],
        "found": falling["bad"][:n],
    }


def show_cases(picked: Mapping[str, Indices], images: ArrayLike, scores: Scores) -> Figure:
    """A row a kind of case: each image with its true mask's outline, and with the heat map over it where there is one.

    images: those of `picked`, kind after kind, N,H,W,3 or N,3,H,W, uint8. All heat maps share one scale, from the
    median of all test pixels (clear) to the highest (light). Titles give the image score, and how many of 100 normal
    test images score lower.
    """
    pictures = iter(channels_last(images))
    limits = None if scores.maps is None else _limits(scores.maps)
    columns, wide = max(map(len, picked.values())), 1 if limits is None else 2
    size = (1.9 * columns * wide, 2.2 * len(picked))
    figure, axes = plt.subplots(len(picked), columns * wide, figsize=size, squeeze=False)
    for row, (kind, indices) in zip(axes, picked.items(), strict=True):
        for k, i in enumerate(indices):
            _show_case(row[k * wide : (k + 1) * wide], next(pictures), scores, int(i), limits)
        row[0].set_ylabel(kind)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def _show_case(axes: NDArray[Any], picture: Pixels, scores: Scores, i: int, limits: tuple[float, float] | None) -> None:
    mask = None if scores.masks is None else scores.masks[i]
    for axis in axes:
        axis.imshow(picture)
    if limits is not None:
        overlay_map(axes[1], np.asarray(scores.maps)[i], limits)
    for axis in axes:
        outline(axis, mask)
    normal = scores.image_scores[scores.labels == 0]
    below = 100 * float(np.mean(normal < scores.image_scores[i]))
    axes[0].set_title(f"{scores.image_scores[i]:.3g}, above {below:.0f} %", fontsize="small")


def overlay_map(axis: Axes, heat: Pixels, limits: tuple[float, float]) -> None:
    """Draw an anomaly map (H, W) over the image that is there: clear at the lower limit, ever denser above."""
    low, high = limits
    density = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)
    axis.imshow(density, cmap=HEAT, vmin=0, vmax=1, alpha=0.85 * density**0.5)


def outline(axis: Axes, mask: Pixels | None) -> None:
    """Draw the outline of a mask (H, W), white on black, so that it shows on any image; nothing for an empty mask."""
    if mask is not None and np.any(mask):
        for colour, width in (("black", 2.2), ("white", 1.0)):
            axis.contour(np.asarray(mask) > 0, [0.5], colors=[colour], linewidths=width)


def _limits(maps: Pixels) -> tuple[float, float]:
    few = np.asarray(maps)[:, ::4, ::4]  # a median needs no more
    return float(np.median(few)), float(np.max(maps))
