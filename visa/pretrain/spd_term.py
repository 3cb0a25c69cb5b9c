"""The SPD term of a method's loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visa.backbone import normalize, stage_maps
from visa.pretrain.losses import cosine, spd_cross_entropy, spd_loss
from visa.pretrain.spd import SpdSettings
from visa.pretrain.views import Views

Terms = dict[str, Tensor]


class SpdTerm(nn.Module):
    """The SPD term of any method: L_SPD of its embeddings, or the cross-entropy of an auxiliary classifier."""

    def __init__(self, spd: SpdSettings | None, backbone: nn.Module) -> None:
        super().__init__()
        self.settings = spd
        self.head = None
        if spd and spd.form == "cross-entropy":
            self.head = nn.Linear(_layer_width(backbone, spd.head_layer), 2)

    def add(self, terms: Terms, method: Any, views: Views) -> Terms:
        """`terms` with `loss`, and with `spd` (and its classifier's `spd_accuracy`) where there is one."""
        if not (self.settings and views.spd):
            return {"loss": terms["base"], **terms}
        spd = self._classified(method.backbone, views.spd) if self.head else self._compared(method, views.spd)
        return {"loss": terms["base"] + self.settings.eta * spd["spd"], **terms, **spd}

    def _compared(self, method: Any, images: tuple[Tensor, Tensor, Tensor]) -> Terms:
        assert self.settings
        z_anchor, z_positive, z_negative = _passed(method.embed, images, self.settings.joint_pass)
        gap = (cosine(z_anchor, z_negative) - cosine(z_anchor, z_positive)).detach()
        return {"spd": spd_loss(z_anchor, z_negative, z_positive), "spd_triplet": (gap < 0).float().mean()}

    def _classified(self, backbone: nn.Module, images: tuple[Tensor, Tensor, Tensor]) -> Terms:
        assert self.settings and self.head
        _, positive, negative = images
        layer, head = self.settings.head_layer, self.head

        def logits(x: Tensor) -> Tensor:
            pooled = stage_maps(backbone, normalize(x, backbone), (layer,))[layer].mean((2, 3))
            answers: Tensor = head(pooled)
            return answers.float()

        clean, blended = _passed(logits, (positive, negative), self.settings.joint_pass)
        right = torch.cat([clean.argmax(1) == 0, blended.argmax(1) == 1]).float().mean()
        return {"spd": spd_cross_entropy(clean, blended), "spd_accuracy": right.detach()}


def _passed(network: Callable[[Tensor], Tensor], views: tuple[Tensor, ...], joint: bool) -> tuple[Tensor, ...]:
    """The network's answer to each view; in a joint pass the views of an image stand side by side in one batch."""
    if not joint:
        return tuple(network(view) for view in views)
    answers = network(torch.stack(views, dim=1).flatten(0, 1))
    return tuple(answers[i :: len(views)] for i in range(len(views)))


def _layer_width(backbone: nn.Module, layer: str) -> int:
    was = backbone.training
    with torch.no_grad():
        width = stage_maps(backbone.eval(), torch.zeros(1, 3, 64, 64), (layer,))[layer].shape[1]
    backbone.train(was)
    return width
