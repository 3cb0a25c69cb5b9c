"""What the SPD term sees and weighs: its settings, and the views of a batch."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from visa.backbone import STAGES
from visa.errors import check_choice
from visa.pretrain.augment import WEAK, Draws, View, random_view
from visa.pretrain.blend import BLEND, SmoothBlend, draw_patches, smooth_blend

FORMS = ("cosine", "cross-entropy")


@dataclass(frozen=True)
class SpdSettings:
    """What the SPD term sees and weighs.

    `eta`: its weight (0.1, the best of the paper's 0.1, 0.5 and 1.0). `form`: "cosine" compares embeddings (L_SPD);
    "cross-entropy" has an auxiliary classifier on the pooled features of `head_layer` say which images are blended:
    always so beside supervised pre-training, and a variant in the paper's ablation elsewhere. `negative_of`: the weak
    view that SmoothBlend perturbs, one of its own or the anchor's. `joint_pass`: the term's images share one batch, and
    with it the statistics of batch normalisation; in separate batches the statistics alone can tell them apart.
    """

    eta: float = 0.1
    form: Literal["cosine", "cross-entropy"] = "cosine"
    head_layer: str = "layer4"
    negative_of: Literal["own view", "anchor"] = "own view"
    joint_pass: bool = True
    weak: View = WEAK
    blend: SmoothBlend = BLEND

    def __post_init__(self) -> None:
        check_choice("form of the SPD term", self.form, FORMS)
        check_choice("head_layer", self.head_layer, STAGES)
        check_choice("negative_of", self.negative_of, ("own view", "anchor"))


@dataclass(frozen=True)
class Views:
    """Views of N images for one step, each N,3,S,S in [0,1].

    `first`, `second`: strong views for the base loss (supervised pre-training has no second); `labels`: N classes;
    `spd`: anchor, positive and negative of the SPD term.
    """

    first: Tensor
    second: Tensor | None
    labels: Tensor
    spd: tuple[Tensor, Tensor, Tensor] | None = None


def draw_views(
    images: Tensor, labels: Tensor, side: int, strong: View, two: bool, spd: SpdSettings | None, draws: Draws
) -> Views:
    """All views of a batch N,3,H,W in [0,1]; the same strong views with and without `spd`."""
    first = random_view(images, side, strong, draws)
    second = random_view(images, side, strong, draws) if two else None
    return Views(first, second, labels, spd_views(images, side, spd, draws) if spd else None)


def spd_views(images: Tensor, side: int, spd: SpdSettings, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor, positive and negative of images N,3,H,W in [0,1]: weak views, the negative's with SmoothBlend on it.

    The cross-entropy form compares no pairs, and its anchor is the positive.
    """
    positive = random_view(images, side, spd.weak, draws)
    anchor = positive if spd.form == "cross-entropy" else random_view(images, side, spd.weak, draws)
    clean = anchor if spd.negative_of == "anchor" else random_view(images, side, spd.weak, draws)
    negative, _ = smooth_blend(clean, draw_patches(len(clean), side, spd.blend, draws), spd.blend.onto)
    return anchor, positive, negative
