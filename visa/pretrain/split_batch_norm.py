"""Batch norm over groups of a batch: what several small devices would see, on one large one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visa.pretrain.batch_norm import after_norm


def split_batch_norm(model: nn.Module, group: int) -> nn.Module:
    """`model` with batch norms that take their statistics over groups of `group` successive images in training.

    A batch that the group's size does not divide is one group. Weights and names stay the same.
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
        split.after = after_norm(norm)
        return split.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            answer: Tensor = self.after(super().forward(x))
            return answer
        n, channels, height, width = x.shape
        size = n if n % self.group else self.group
        groups = n // size
        # autograd keeps copies: the running statistics themselves change with the next pass, before its backward
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
