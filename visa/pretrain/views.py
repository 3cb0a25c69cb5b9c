"""The views of a batch: strong ones for the base loss, weak and blended ones for the SPD term."""

from dataclasses import dataclass

import torch
from torch import Tensor

from visa.pretrain.augment import Draws, View, random_view
from visa.pretrain.blend import draw_patches, smooth_blend
from visa.pretrain.spd import SpdSettings


@dataclass(frozen=True)
class Views:
    """Views of N images for one step, each N,3,S,S in [0,1].

    `first`, `second`: strong views for the base loss (supervised pre-training has no second); `labels`: N classes;
    `spd`: anchor, positive and negative of the SPD term; `shuffle`: a permutation of the images of all processes, in
    which MoCo encodes its keys.
    """

    first: Tensor
    second: Tensor | None
    labels: Tensor
    spd: tuple[Tensor, Tensor, Tensor] | None
    shuffle: Tensor


def draw_views(
    images: Tensor, labels: Tensor, side: int, strong: View, two: bool, spd: SpdSettings | None, draws: Draws
) -> Views:
    """All views of a batch N,3,H,W, as `random_view` takes it; the same strong views with and without `spd`."""
    first = random_view(images, side, strong, draws)
    second = random_view(images, side, strong, draws) if two else None
    shuffle = torch.rand(len(images) * draws.parts, generator=draws.generator, device=images.device).argsort()
    return Views(first, second, labels, spd_views(images, side, spd, draws) if spd else None, shuffle)


def spd_views(images: Tensor, side: int, spd: SpdSettings, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor, positive and negative of images N,3,H,W: weak views, the negative's with SmoothBlend on it.

    The cross-entropy form compares no pairs, and its anchor is the positive.
    """
    positive = random_view(images, side, spd.weak, draws)
    anchor = positive if spd.form == "cross-entropy" else random_view(images, side, spd.weak, draws)
    clean = anchor if spd.negative_of == "anchor" else random_view(images, side, spd.weak, draws)
    negative, _ = smooth_blend(clean, draw_patches(len(clean), side, spd.blend, draws), spd.blend.onto)
    return anchor, positive, negative
