"""Optimisers and the learning rate of each step."""

import math

import torch
from timm.optim.lars import Lars
from torch import nn

from visa.pretrain.settings import PretrainSettings


def build_optimizer(method: nn.Module, settings: PretrainSettings) -> torch.optim.Optimizer:
    """SGD, or LARS (You et al. 2017), over the trainable weights of `method`.

    LARS leaves biases and the scales of norms without weight decay and without its layer-wise rate, as SimCLR's
    released code does (Chen et al. 2020). The groups of a `predictor` bear the flag `constant_lr`: SimSiam's keeps the
    peak rate (Chen & He 2021, section 4.2).
    """
    groups = [
        {"params": params, "constant_lr": constant, **_own(plain, settings)}
        for (constant, plain), params in sorted(_sorted_weights(method, settings.optimizer == "lars").items())
    ]
    kind = Lars if settings.optimizer == "lars" else torch.optim.SGD
    optimizer: torch.optim.Optimizer = kind(
        groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    return optimizer


def learning_rate(settings: PretrainSettings, epoch: float) -> float:
    """Rate at a (fractional) epoch: linear warm-up from 0, then the schedule.

    "cosine": half a cosine down to 0 at the last epoch (Loshchilov & Hutter 2017, without restarts); "steps": a tenth
    at a third and again at two thirds of the epochs (He et al. 2016).
    """
    if epoch < settings.warmup_epochs:
        return settings.lr * epoch / settings.warmup_epochs
    if settings.schedule == "steps":
        drops = sum(3 * epoch >= third * settings.epochs for third in (1, 2))
        return settings.lr * 0.1**drops
    span = max(settings.epochs - settings.warmup_epochs, 1e-9)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (epoch - settings.warmup_epochs) / span)))


def set_lr(optimizer: torch.optim.Optimizer, settings: PretrainSettings, epoch: float) -> float:
    """Set every group's rate for a (fractional) epoch; returns that of the backbone's groups."""
    rate = learning_rate(settings, epoch)
    for group in optimizer.param_groups:
        constant = group["constant_lr"] and epoch >= settings.warmup_epochs
        group["lr"] = settings.lr if constant else rate
    return rate


def _sorted_weights(method: nn.Module, by_kind: bool) -> dict[tuple[bool, bool], list[nn.Parameter]]:
    """Trainable weights by (of the predictor, bias or norm scale); the second is always False unless `by_kind`."""
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            found.setdefault((name.startswith("predictor."), by_kind and weight.ndim < 2), []).append(weight)
    return found


def _own(plain: bool, settings: PretrainSettings) -> dict[str, float | bool]:
    if settings.optimizer == "sgd":
        return {}
    return {"weight_decay": 0.0 if plain else settings.weight_decay, "always_adapt": not plain}
