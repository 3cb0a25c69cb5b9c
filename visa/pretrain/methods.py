"""Pre-training methods, each a module with one interface: `terms(views) -> named loss terms`."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from visa.backbone import feature_width, normalize
from visa.pretrain.augment import BLEND, STRONG, WEAK, SmoothBlend, View, draw_patches, random_view, smooth_blend
from visa.pretrain.losses import simsiam_loss, spd_loss

METHODS = ("random", "simsiam")


@dataclass(frozen=True)
class Views:
    """Two strong views for the base loss; anchor, positive and negative for the SPD term. Each N,3,S,S in [0,1]."""

    first: Tensor
    second: Tensor
    spd: tuple[Tensor, Tensor, Tensor] | None = None


@dataclass(frozen=True)
class SpdSettings:
    """What the SPD term sees and weighs.

    `eta`: weight of L_SPD (0.1, the best of the paper's 0.1, 0.5 and 1.0). `negative_of`: the weak view that
    SmoothBlend perturbs, one of its own or the anchor's. `joint_pass`: anchor, positive and negative share one batch,
    and with it the statistics of batch normalisation; in separate batches the statistics alone can tell them apart.
    """

    eta: float = 0.1
    negative_of: Literal["own view", "anchor"] = "own view"
    joint_pass: bool = True
    weak: View = WEAK
    blend: SmoothBlend = BLEND


def draw_views(images: Tensor, side: int, spd: SpdSettings | None, generator: Generator) -> Views:
    """All views of a batch N,3,H,W in [0,1]; the SPD views only where `spd` is given."""
    first, second = (random_view(images, side, STRONG, generator) for _ in range(2))
    if spd is None:
        return Views(first, second)
    anchor, positive, own = (random_view(images, side, spd.weak, generator) for _ in range(3))
    clean = anchor if spd.negative_of == "anchor" else own
    negative, _ = smooth_blend(clean, draw_patches(clean, spd.blend, generator), spd.blend.onto)
    return Views(first, second, (anchor, positive, negative))


class SimSiam(nn.Module):
    """SimSiam (Chen & He 2021), with the SPD term where `spd` is given.

    Projector: three layers of 2048 with batch norm, the last without affine parameters. Predictor: 2048-512-2048
    (section 4 and appendix D there).
    """

    def __init__(
        self, backbone: nn.Module, spd: SpdSettings | None = None, width: int = 2048, hidden: int = 512
    ) -> None:
        super().__init__()
        self.spd = spd
        self.backbone = backbone
        self.projector = nn.Sequential(
            *_layer(feature_width(backbone), width),
            *_layer(width, width),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        self.predictor = nn.Sequential(*_layer(width, hidden), nn.Linear(hidden, width))

    def embed(self, images: Tensor) -> Tensor:
        """The projection z, N,2048, of images N,3,S,S in [0,1]."""
        z: Tensor = self.projector(self.backbone(normalize(images, self.backbone)))
        return z

    def terms(self, views: Views) -> dict[str, Tensor]:
        """The loss and its parts: `loss` = `base` + eta * `spd`; `feature_std` of z, 1 healthy and 0 collapsed."""
        z1, z2 = self.embed(views.first), self.embed(views.second)
        base = simsiam_loss(self.predictor(z1), self.predictor(z2), z1, z2)
        terms = {"loss": base, "base": base, "feature_std": feature_std(z1)}
        if self.spd and views.spd:
            z_anchor, z_positive, z_negative = self._embed_spd(views.spd)
            terms["spd"] = spd_loss(z_anchor, z_negative, z_positive)
            terms["loss"] = base + self.spd.eta * terms["spd"]
        return terms

    def _embed_spd(self, images: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        if self.spd and self.spd.joint_pass:
            return self.embed(torch.cat(images)).chunk(3)
        return tuple(self.embed(x) for x in images)


def feature_std(z: Tensor) -> Tensor:
    """Collapse monitor: mean standard deviation of unit-length embeddings N,D, times sqrt(D).

    Near 1 for embeddings spread over the sphere, 0 where all are equal (Chen & He 2021, section 4.1).
    """
    unit = nn.functional.normalize(z.detach(), dim=1)
    spread: Tensor = unit.std(0).mean() * z.shape[1] ** 0.5
    return spread


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)
