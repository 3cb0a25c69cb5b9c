"""The pre-training methods, each a module with one interface: `forward(views) -> named loss terms`.

Terms are means over the batch: `loss` = `base` + eta * `spd`. In a group of processes each sees its part of the batch;
negatives and keys are gathered from all.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visa.backbone import create_backbone, feature_width, load_weights, normalize, zero_init_residual
from visa.errors import VisaError
from visa.pretrain.losses import info_nce, nt_xent, simsiam_loss
from visa.pretrain.processes import gathered, own_rows
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdSettings
from visa.pretrain.spd_term import SpdTerm, Terms
from visa.pretrain.split_batch_norm import split_batch_norm
from visa.pretrain.views import Views


def build(settings: PretrainSettings, classes: int) -> nn.Module:
    """The untrained method of `settings`: weights depend on the seed alone, the same with and without SPD.

    `classes`: number of labels that supervised pre-training tells apart; raises VisaError if it is below 2.
    """
    backbone = create_backbone(settings.arch, settings.seed)
    if settings.weights:
        load_weights(backbone, Path(settings.weights))
    elif settings.method in ("simsiam", "simclr"):  # Chen & He 2021, appendix A; SimCLR's released code
        zero_init_residual(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        match settings.method:
            case "simsiam":
                return SimSiam(backbone, settings.spd)
            case "mocov2":
                s = settings
                return MoCoV2(backbone, s.spd, s.temperature, s.queue, s.key_momentum, s.bn_group)
            case "simclr":
                return SimCLR(backbone, settings.spd, settings.temperature)
            case _:
                return Supervised(backbone, settings.spd, classes)


class SimSiam(nn.Module):
    """SimSiam (Chen & He 2021), with the SPD term where `spd` is given.

    Projector: three layers of 2048 with batch norm, the last without affine parameters. Predictor: 2048-512-2048
    (section 3 there).
    """

    def __init__(
        self, backbone: nn.Module, spd: SpdSettings | None = None, width: int = 2048, hidden: int = 512
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = nn.Sequential(
            *_layer(feature_width(backbone), width),
            *_layer(width, width),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        self.predictor = nn.Sequential(*_layer(width, hidden), nn.Linear(hidden, width))
        self.spd = SpdTerm(spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """The projection z, N,2048, of images N,3,S,S in [0,1]."""
        return _project(self.backbone, self.projector, images)

    def forward(self, views: Views) -> Terms:
        """Loss terms; `feature_std` of z is 1 where healthy and 0 where collapsed."""
        z1, z2 = self.embed(views.first), self.embed(_second(views))
        base = simsiam_loss(self.predictor(z1).float(), self.predictor(z2).float(), z1, z2)
        return self.spd.add({"base": base, "feature_std": feature_std(z1)}, self, views)


class MoCoV2(nn.Module):
    """MoCo v2 (He et al. 2020; Chen et al. 2020b), with the SPD term on the query's z where `spd` is given.

    Projector: two layers, hidden as wide as the features, output 128, ReLU and no batch norm. The key encoder follows
    the query's by `momentum` a step and fills a queue of unit keys, which serve as negatives. Batch norm works on
    groups of `bn_group` images, and keys are encoded in another order than queries: in one common group the statistics
    alone would tell an image's key from the queue's (He et al. 2020, section 3.3, shuffling BN).
    """

    queue: Tensor
    queue_at: Tensor
    syncs_batch_norm = False

    def __init__(
        self,
        backbone: nn.Module,
        spd: SpdSettings | None = None,
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float = 0.999,
        bn_group: int = 32,
        dim: int = 128,
    ) -> None:
        super().__init__()
        self.temperature, self.momentum, self.bn_group = temperature, momentum, bn_group
        width = feature_width(backbone)
        self.backbone = split_batch_norm(backbone, bn_group)
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))
        self.key_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.register_buffer("queue_at", torch.zeros((), dtype=torch.long))
        self.spd = SpdTerm(spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """The query's projection z, N,128, of images N,3,S,S in [0,1]."""
        return _project(self.backbone, self.projector, images)

    def forward(self, views: Views) -> Terms:
        """Loss terms; in training mode the key encoder takes its step and the batch's keys enter the queue."""
        q = self.embed(views.first)
        if self.training:
            self._follow()
        keys = self._keys(_second(views), views.shuffle)
        base = info_nce(q, own_rows(keys), self.queue.clone(), self.temperature)
        if self.training:
            self._enqueue(keys)
        return self.spd.add({"base": base, "feature_std": feature_std(q)}, self, views)

    @torch.no_grad()
    def _keys(self, images: Tensor, shuffle: Tensor) -> Tensor:
        """Unit keys of the images of all processes, in their order, encoded in the order of `shuffle`."""
        shuffled = own_rows(gathered(images)[shuffle])
        keys = F.normalize(_project(self.key_backbone, self.key_projector, shuffled), dim=1)
        return gathered(keys)[shuffle.argsort()]

    @torch.no_grad()
    def _follow(self) -> None:
        pairs = ((self.key_backbone, self.backbone), (self.key_projector, self.projector))
        for key, query in pairs:
            torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - self.momentum)

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys, around the end of the queue."""
        at = (self.queue_at + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, at, keys)
        self.queue_at.add_(len(keys)).remainder_(len(self.queue))


class SimCLR(nn.Module):
    """SimCLR (Chen et al. 2020), with the SPD term where `spd` is given.

    Projector: two layers, hidden as wide as the features, output 128, both with batch norm, the last without its shift
    (section 2.1 and the authors' released code).
    """

    def __init__(
        self, backbone: nn.Module, spd: SpdSettings | None = None, temperature: float = 0.1, dim: int = 128
    ) -> None:
        super().__init__()
        self.temperature = temperature
        width = feature_width(backbone)
        self.backbone = backbone
        last = nn.BatchNorm1d(dim)
        last.bias.requires_grad_(False)
        self.projector = nn.Sequential(*_layer(width, width), nn.Linear(width, dim, bias=False), last)
        self.spd = SpdTerm(spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """The projection z, N,128, of images N,3,S,S in [0,1]."""
        return _project(self.backbone, self.projector, images)

    def forward(self, views: Views) -> Terms:
        """Loss terms; the negatives of an image are the other images of all processes."""
        z1, z2 = self.embed(torch.cat([views.first, _second(views)])).chunk(2)  # one batch, as in the released code
        base = nt_xent(gathered(z1), gathered(z2), self.temperature)
        return self.spd.add({"base": base, "feature_std": feature_std(z1)}, self, views)


class Supervised(nn.Module):
    """Classification by cross-entropy, with SPD's auxiliary classifier where `spd` is given (paper, section 3.2)."""

    def __init__(self, backbone: nn.Module, spd: SpdSettings | None, classes: int) -> None:
        if classes < 2:
            raise VisaError(f"supervised pre-training needs 2 classes or more, and here is {classes}.")
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(feature_width(backbone), classes)
        self.spd = SpdTerm(spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """Pooled features of images N,3,S,S in [0,1]; there is no projection head."""
        features: Tensor = self.backbone(normalize(images, self.backbone))
        return features.float()

    def forward(self, views: Views) -> Terms:
        """Loss terms, and the share of right answers."""
        logits = self.classifier(self.embed(views.first)).float()
        base = F.cross_entropy(logits, views.labels)
        accuracy = (logits.detach().argmax(1) == views.labels).float().mean()
        return self.spd.add({"base": base, "accuracy": accuracy}, self, views)


def feature_std(z: Tensor) -> Tensor:
    """Collapse monitor: mean standard deviation of unit-length embeddings N,D, times sqrt(D).

    Near 1 for embeddings spread over the sphere, 0 where all are equal (Chen & He 2021, section 4.1).
    """
    unit = F.normalize(z.detach(), dim=1)
    spread: Tensor = unit.std(0).mean() * z.shape[1] ** 0.5
    return spread


def _project(backbone: nn.Module, projector: nn.Module, images: Tensor) -> Tensor:
    z: Tensor = projector(backbone(normalize(images, backbone)))
    return z.float()


def _second(views: Views) -> Tensor:
    assert views.second is not None, "this method compares two views"
    return views.second


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)
