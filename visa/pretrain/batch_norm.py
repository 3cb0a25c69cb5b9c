"""Batch norm over the images of all processes.

torch's nn.SyncBatchNorm works on CUDA only; a small one of our own serves groups of CPU processes.
"""

from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with batch norms that share their statistics over the process group; weights and names stay the same.

    Every process must bring the same number of images.
    """
    if device.type == "cuda":  # timm's conversion knows its own norms with an activation, too
        synced: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return synced
    for name, child in model.named_children():
        setattr(model, name, _OnCpu.of(child) if isinstance(child, _BatchNorm) else sync_batch_norm(child, device))
    return model


def after_norm(norm: nn.Module) -> nn.Module:
    """What a norm of timm's does after normalising: drop-out and activation; nothing for torch's own."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


class _OnCpu(_BatchNorm):
    """Batch norm over the images of all processes, N,C,... in each."""

    after: nn.Module

    @classmethod
    def of(cls, norm: _BatchNorm) -> "_OnCpu":
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synced.weight, synced.bias = norm.weight, norm.bias
        synced.running_mean, synced.running_var = norm.running_mean, norm.running_var
        synced.num_batches_tracked = norm.num_batches_tracked
        synced.after = after_norm(norm)
        return synced.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self._over_all(x.float()).to(x.dtype) if self.training else super().forward(x))
        return y

    def _over_all(self, x: Tensor) -> Tensor:
        axes, shape = [d for d in range(x.ndim) if d != 1], [1, -1] + [1] * (x.ndim - 2)
        count = dist.get_world_size() * x.numel() // x.shape[1]
        mean = sum_over_processes(x.sum(axes)) / count
        centred = x - mean.view(shape)
        var = sum_over_processes(centred.square().sum(axes)) / count  # of the centred values: no cancellation
        if self.track_running_stats:
            self._track(mean.detach(), var.detach() * count / max(count - 1, 1))
        y = centred * (var + self.eps).rsqrt().view(shape)
        return y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y

    def _track(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient, since the sum enters every process's loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum of the processes' tensors of one shape; the gradient flows back to each."""
    total: Tensor = _Sum.apply(x)
    return total
