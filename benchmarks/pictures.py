"""Draw the method's pictures from rendered images, in seconds: python benchmarks/pictures.py

Writes spd_views.webp (the base method's strong views; SPD's anchor, positive and negative) and smoothblend.webp
(x, u, alpha, x') to book/_static.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from visa.mini import render
from visa.pretrain.augment import STRONG, WEAK, Draws, random_view
from visa.pretrain.smoothblend import SmoothBlend, draw_patches, pasted_layer, smooth_blend
from visa.report.figures import PALETTE, use_style

STATIC = Path(__file__).resolve().parents[1] / "book" / "_static"
SIDE, PULL, PUSH = 320, PALETTE[2], PALETTE[3]
PLAIN, PATCH = SmoothBlend(area=(0.03, 0.05)), 7  # large enough to be seen on a page; the seed of the patch
TITLES = ("$x$", "$u$", r"$\alpha$", r"$x' = (1 - \alpha)\,x + \alpha\,u$")


def draws(seed: int) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def show(axis: Axes, picture: Tensor, title: str) -> None:
    axis.imshow(picture.permute(1, 2, 0).clamp(0, 1), cmap="cividis", vmin=0, vmax=1)
    axis.set_title(title)
    axis.set_axis_off()


def join(figure: Figure, left: Axes, right: Axes, text: str) -> None:
    """Draw an arrow over two pictures: the loss pulls their embeddings together, or pushes them apart."""
    (x0, y0, w0, h0), (x1, *_) = left.get_position().bounds, right.get_position().bounds
    color = PULL if text == "pull" else PUSH
    start, end, height = x0 + 0.5 * w0, x1 + 0.5 * w0, y0 + h0 + 0.17
    middle = (start + end) / 2
    for tip in (start, end):  # pulled: both arrows meet; pushed: both point away
        ends = ((tip, height), (middle, height)) if text == "pull" else ((middle, height), (tip, height))
        look = {"arrowstyle": "-|>", "color": color, "linewidth": 2.5, "mutation_scale": 15}
        figure.add_artist(FancyArrowPatch(*ends, transform=figure.transFigure, shrinkA=4, shrinkB=2, **look))
    figure.text(middle, height + 0.05, text, ha="center", color=color, weight="bold")


def views(x: Tensor) -> Figure:
    """Draw two strong views, and the three images of the SPD term, with what the losses do to them."""
    figure = plt.figure(figsize=(9.6, 2.9), layout="none")
    axes = [figure.add_axes((left, 0.02, 0.18, 0.6)) for left in (0.005, 0.2, 0.43, 0.625, 0.82)]
    strong = [random_view(x, SIDE, STRONG, draws(seed))[0] for seed in (11, 3)]
    anchor, positive, clean = (random_view(x, SIDE, WEAK, draws(seed)) for seed in (1, 2, 4))
    negative, _ = smooth_blend(clean, draw_patches(1, SIDE, PLAIN, draws(PATCH)))
    titles = ["strong view", "strong view", "positive", "anchor", "negative"]
    for axis, picture, title in zip(axes, (*strong, positive[0], anchor[0], negative[0]), titles, strict=True):
        show(axis, picture, title)
    join(figure, axes[0], axes[1], "pull")
    join(figure, axes[2], axes[3], "pull")
    join(figure, axes[3], axes[4], "push")
    figure.text(0.19, 0.93, "base method", ha="center")
    figure.text(0.71, 0.93, "SPD", ha="center")
    return figure


def blend(x: Tensor) -> Figure:
    """Draw SmoothBlend as a strip."""
    patches = draw_patches(1, SIDE, PLAIN, draws(PATCH))
    blended, alpha = smooth_blend(x, patches)
    figure, axes = plt.subplots(1, 4, figsize=(8.8, 2.5))
    for axis, picture, title in zip(axes, (x, pasted_layer(x, patches), alpha, blended), TITLES, strict=True):
        show(axis, picture[0], title)
    return figure


if __name__ == "__main__":
    use_style()
    x = torch.from_numpy(render("fryum", "Normal", 3, size=SIDE)[0]).permute(2, 0, 1)[None].float() / 255
    for name, figure in (("spd_views", views(x)), ("smoothblend", blend(x))):
        figure.savefig(STATIC / f"{name}.webp", dpi=140)
