"""MoCo v2 (He et al. 2020; Chen et al. 2020b): contrast two views of an image with a queue of other images' keys."""

import copy
import math

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from visa.backbone import feature_width, normalize
from visa.pretrain.augment import Views
from visa.pretrain.fabric import gathered, own_rows
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdTerm, Terms, feature_std

PUBLISHED = {"epochs": 200, "batch_size": 256, "base_lr": 0.03, "weight_decay": 1e-4, "temperature": 0.2}
"""On ImageNet: He et al. 2020, sections 3.3 and 4 (queue, momentum, eight GPUs of 32 images with batch norms of their
own, the defaults of PretrainSettings); Chen et al. 2020b (MLP head, views, cosine schedule, temperature)."""


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE: -log softmax of the positive key among itself and the queue's K,D keys (He et al. 2020, equation 1).

    Queries and keys N,D are normalised here, the queue's keys are unit vectors; no gradient reaches the keys. The mean
    over N is computed in float32, as in `visa.pretrain.simclr.nt_xent`.
    """
    with torch.autocast("cpu" if q.is_meta else q.device.type, enabled=False):
        q, k = F.normalize(q.float(), dim=1), F.normalize(k.detach().float(), dim=1)
        positive = (q * k).sum(1, keepdim=True)
        logits = torch.cat([positive, q @ queue.detach().T], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


class MoCoV2(nn.Module):
    """MoCo v2, with the SPD term on the query's z where the settings have one.

    Projector: two layers, hidden as wide as the features, output 128, ReLU and no batch norm. The key encoder follows
    the query's by `key_momentum` a step and fills a queue of unit keys, which serve as negatives. Batch norm works on
    groups of `bn_group` images, and keys are encoded in shuffled order: the statistics of a common group alone would
    distinguish an image's key from the queue's (He et al. 2020, section 3.3, shuffling BN).
    """

    queue: Tensor
    queue_at: Tensor
    syncs_batch_norm = False

    def __init__(self, backbone: nn.Module, settings: PretrainSettings, classes: int = 0, dim: int = 128) -> None:
        super().__init__()
        self.temperature, self.momentum = settings.temperature, settings.key_momentum
        self.chance = math.log(settings.queue + 1)
        width = feature_width(backbone)
        self.backbone = split_batch_norm(backbone, settings.bn_group)
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))
        self.key_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(settings.queue, dim), dim=1))
        self.register_buffer("queue_at", torch.zeros((), dtype=torch.long))
        self.spd = SpdTerm(settings.spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """Return the query's projection z, N,128, of images N,3,S,S in [0,1]."""
        z: Tensor = self.projector(self.backbone(normalize(images, self.backbone)))
        return z.float()

    def forward(self, views: Views) -> Terms:
        """Return the loss terms; in training mode the key encoder takes a step and the batch's keys enter the queue."""
        assert views.second is not None
        q = self.embed(views.first)
        if self.training:
            with torch.no_grad():
                for key, query in ((self.key_backbone, self.backbone), (self.key_projector, self.projector)):
                    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - self.momentum)
        keys = self._keys(views.second, views.shuffle)
        base = info_nce(q, own_rows(keys), self.queue.clone(), self.temperature)
        if self.training:
            self._enqueue(keys)
        return self.spd.add({"base": base, "feature_std": feature_std(q)}, self, views)

    @torch.no_grad()
    def _keys(self, images: Tensor, shuffle: Tensor) -> Tensor:
        """Return unit keys of the images of all processes, in their order, encoded in the order of `shuffle`."""
        shuffled = own_rows(gathered(images)[shuffle])
        keys = self.key_projector(self.key_backbone(normalize(shuffled, self.key_backbone)))
        return gathered(F.normalize(keys.float(), dim=1))[shuffle.argsort()]

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys of the queue, which wraps around at its end."""
        at = (self.queue_at + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, at, keys)
        self.queue_at.add_(len(keys)).remainder_(len(self.queue))


def split_batch_norm(model: nn.Module, group: int) -> nn.Module:
    """Make the batch norms of `model` compute training statistics over groups of `group` successive images; return it.

    One device then computes what several small devices would. A batch that `group` does not divide is one group.
    Weights and names stay the same.
    """
    for name, child in model.named_children():
        replaced = _SplitBatchNorm.of(child, group) if isinstance(child, nn.BatchNorm2d) else None
        setattr(model, name, replaced or split_batch_norm(child, group))
    return model


class _SplitBatchNorm(nn.BatchNorm2d):
    """Batch norm of images N,C,H,W in groups; running statistics are the groups' mean."""

    group: int
    after: nn.Module
    running_mean: Tensor
    running_var: Tensor

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, group: int) -> "_SplitBatchNorm":
        split = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        split.load_state_dict(norm.state_dict())
        split.group = group
        # what a norm of timm's does after normalising; nothing for torch's own
        split.after = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        return split.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            answer: Tensor = self.after(super().forward(x))
            return answer
        n, channels, height, width = x.shape
        size = n if n % self.group else self.group
        groups = n // size
        # copies for autograd: the running statistics change in the next pass, before this pass's backward
        mean, var = self.running_mean.repeat(groups), self.running_var.repeat(groups)
        folded = x.reshape(groups, size, channels, height, width).transpose(0, 1)
        folded = folded.reshape(size, groups * channels, height, width)
        scale, shift = self.weight.repeat(groups), self.bias.repeat(groups)
        y = F.batch_norm(folded, mean, var, scale, shift, True, self.momentum or 0.1, self.eps)
        with torch.no_grad():
            self.running_mean.copy_(mean.view(groups, channels).mean(0))
            self.running_var.copy_(var.view(groups, channels).mean(0))
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        answer = self.after(y.view(size, groups, channels, height, width).transpose(0, 1).flatten(0, 1))
        return answer
