"""SPD, the paper's self-supervised term: anchor, positive and negative, L_SPD, and its auxiliary classifier.

L = L_base + eta * L_SPD (paper, section 3.2). A positive differs from its anchor by a weak global change, a negative
by a small local one (SmoothBlend); the term pulls the positive's embedding closer and pushes the negative's away.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visa.backbone import STAGES, batch_norms, looked_at, normalize, stage_maps
from visa.errors import VisaError, check_choice
from visa.pretrain.augment import WEAK, Draws, View, Views, random_view
from visa.pretrain.smoothblend import BLEND, SmoothBlend, draw_patches, smooth_blend

Terms = dict[str, Tensor]  # named terms of a loss, each a mean over the batch


@dataclass(frozen=True)
class SpdSettings:
    """Settings of the SPD term: its weight, form and images.

    `eta`: its weight (0.1, the best of the paper's 0.1, 0.5 and 1.0). `form`: "cosine" compares embeddings (L_SPD);
    "cross-entropy" trains an auxiliary classifier on the pooled features of `head_layer` to detect blended images. The
    latter is the only form for supervised pre-training, and for other methods a variant of the paper's ablation.
    `negative_of`: the weak view that SmoothBlend perturbs, one of its own or the anchor's. `joint_pass`: the term's
    images share one batch and its batch-norm statistics; in separate batches, statistics alone could separate them.
    Raises VisaError for a value out of range.
    """

    eta: float = 0.1
    form: Literal["cosine", "cross-entropy"] = "cosine"
    head_layer: str = "layer4"
    negative_of: Literal["own view", "anchor"] = "own view"
    joint_pass: bool = True
    weak: View = WEAK
    blend: SmoothBlend = BLEND

    def __post_init__(self) -> None:
        check_choice("form of the SPD term", self.form, ("cosine", "cross-entropy"))
        if not 0 <= self.eta <= 1e6:
            raise VisaError(f"eta is {self.eta}: give a weight from 0 on, at most 1e6.")
        check_choice("head_layer", self.head_layer, STAGES)
        check_choice("negative_of", self.negative_of, ("own view", "anchor"))


def spd_views(images: Tensor, side: int, spd: SpdSettings, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Draw anchor, positive and negative, N,3,side,side each, of images N,3,H,W as `random_view` takes them.

    All three are weak views; SmoothBlend perturbs the negative's. The cross-entropy form compares no pairs, so its
    anchor is the positive.
    """
    positive = random_view(images, side, spd.weak, draws)
    anchor = positive if spd.form == "cross-entropy" else random_view(images, side, spd.weak, draws)
    clean = anchor if spd.negative_of == "anchor" else random_view(images, side, spd.weak, draws)
    negative, _ = smooth_blend(clean, draw_patches(len(clean), side, spd.blend, draws), spd.blend.onto)
    return anchor, positive, negative


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine similarity of N pairs of embeddings N,D: N values in [-1,1]."""
    return F.cosine_similarity(a, b, dim=1)


def spd_loss(z_anchor: Tensor, z_negative: Tensor, z_positive: Tensor) -> Tensor:
    """L_SPD = cos(z(anchor), z(negative)) - cos(z(anchor), z(positive)), a mean in [-2,2] (paper, section 3.2).

    The gradient flows through all three embeddings N,D. They come from the projection head, not from SimSiam's
    predictor: a predictor learns to point away from the negative while the embeddings stay as they are.
    """
    return (cosine(z_anchor, z_negative) - cosine(z_anchor, z_positive)).mean()


def spd_cross_entropy(clean: Tensor, blended: Tensor) -> Tensor:
    """Cross-entropy of an auxiliary classifier's logits N,2 of N clean and of N blended images (paper, section 3.2)."""
    labels = torch.arange(2, device=clean.device).repeat_interleave(len(clean))
    return F.cross_entropy(torch.cat([clean, blended]), labels)


class SpdTerm(nn.Module):
    """The SPD term of any method: L_SPD of its embeddings, or the cross-entropy of an auxiliary classifier."""

    def __init__(self, spd: SpdSettings | None, backbone: nn.Module) -> None:
        super().__init__()
        self.settings = spd
        self.head = None
        if spd and spd.form == "cross-entropy":
            layer = spd.head_layer
            maps = looked_at(backbone, lambda x: stage_maps(backbone, x, (layer,)))
            self.head = nn.Linear(maps[layer].shape[1], 2)

    def add(self, terms: Terms, method: Any, views: Views) -> Terms:
        """Return `terms` with the total `loss` and, if there is an SPD term, with `spd`.

        `method` has `embed` (images to z) and a `backbone`. With `spd` comes the share of images that the term gets
        right: `spd_triplet`, whose positive is nearer than the negative, or the classifier's `spd_accuracy`.
        """
        if not (self.settings and views.spd):
            return {"loss": terms["base"], **terms}
        spd = self.classified(method.backbone, *views.spd[1:]) if self.head else self._compared(method, views.spd)
        return {"loss": terms["base"] + self.settings.eta * spd["spd"], **terms, **spd}

    def _compared(self, method: Any, images: tuple[Tensor, Tensor, Tensor]) -> Terms:
        assert self.settings
        with running_statistics(method.projector):
            z_anchor, z_positive, z_negative = _passed(method.embed, images, self.settings.joint_pass)
        gap = (cosine(z_anchor, z_negative) - cosine(z_anchor, z_positive)).detach()
        spd = {"spd": spd_loss(z_anchor, z_negative, z_positive), "spd_std": feature_std(z_anchor)}
        return {**spd, "spd_triplet": (gap < 0).float().mean()}

    def classified(self, backbone: nn.Module, positive: Tensor, negative: Tensor) -> Terms:
        """Return the auxiliary classifier's cross-entropy and accuracy on positives and negatives N,3,S,S in [0,1]."""
        assert self.settings and self.head
        layer, head = self.settings.head_layer, self.head

        def logits(x: Tensor) -> Tensor:
            maps = stage_maps(backbone, normalize(x, backbone), (layer,))
            answers: Tensor = head(maps[layer].mean((2, 3)))
            return answers.float()

        clean, blended = _passed(logits, (positive, negative), self.settings.joint_pass)
        right = torch.cat([clean.argmax(1) == 0, blended.argmax(1) == 1]).float().mean()
        return {"spd": spd_cross_entropy(clean, blended), "spd_accuracy": right.detach()}


def feature_std(z: Tensor) -> Tensor:
    """Collapse monitor: mean standard deviation of unit-length embeddings N,D, times sqrt(D).

    Near 1 for embeddings spread over the sphere, 0 where all are equal (Chen & He 2021, section 4.1).
    """
    unit = F.normalize(z.detach(), dim=1)
    spread: Tensor = unit.std(0).mean() * z.shape[1] ** 0.5
    return spread


@contextmanager
def running_statistics(head: nn.Module) -> Iterator[None]:
    """Make a head's batch norms use their running statistics, which the base loss's passes set.

    Statistics of a batch of clean and blended images would move the two kinds to opposite sides of the origin, which
    the loss rewards. Running statistics do not rule out L_SPD's degenerate optimum of -2, with all clean images at one
    point and all blended ones opposite; `spd_std`, the spread of the anchors, would show it.
    """
    norms = [norm for norm in batch_norms(head) if norm.training]
    for norm in norms:
        norm.eval()
    yield
    for norm in norms:
        norm.train()


def _passed(network: Callable[[Tensor], Tensor], views: tuple[Tensor, ...], joint: bool) -> tuple[Tensor, ...]:
    """Pass each view through the network; in a joint pass the views of an image are adjacent in one batch."""
    if not joint:
        return tuple(network(view) for view in views)
    answers = network(torch.stack(views, dim=1).flatten(0, 1))
    return tuple(answers[i :: len(views)] for i in range(len(views)))
