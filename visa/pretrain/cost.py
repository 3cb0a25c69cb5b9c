"""What a full pre-training costs: floating-point operations a step, and hours from a measured throughput."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from visa.pretrain.methods import build
from visa.pretrain.settings import METHODS, PretrainSettings, published
from visa.pretrain.spd import SpdSettings
from visa.pretrain.views import Views

IMAGENET_IMAGES = 1_281_167


@dataclass(frozen=True)
class FullRun:
    """A published pre-training on ImageNet: `flops` for one image of a step, `hours` and `money` for all of it."""

    pretraining: str
    epochs: int
    flops: float
    images_per_second: float
    hours: float
    money: float


def flops_per_image(settings: PretrainSettings, classes: int = 1000, batch: int = 2) -> float:
    """Floating-point operations that the forward and backward pass of a training step spends on one image.

    Counted on the actual step, all views and heads included, without computing it; augmentation is left out.
    """
    with torch.device("meta"):
        x = torch.empty(batch, 3, settings.image_size, settings.image_size)
        labels = torch.zeros(batch, dtype=torch.long)
        method = _countable(build(replace(settings, weights=""), classes)).train()
    views = Views(x, x, labels, (x, x, x) if settings.spd else None, torch.arange(len(x), device="meta"))
    with FlopCounterMode(display=False) as counter:
        method(views)["loss"].backward()
    return float(counter.get_total_flops() / batch)


def _countable(method: nn.Module) -> nn.Module:
    """The same without batch norms and ReLU: nothing in them is counted, and going through them takes three quarters
    of the time."""
    for part in list(method.modules()):
        for name, child in part.named_children():
            if isinstance(child, _BatchNorm | nn.ReLU):
                setattr(part, name, nn.Identity())
    return method


def full_runs(sustained: float, price_per_hour: float, image_size: int = 224, arch: str = "resnet50") -> list[FullRun]:
    """Every method with and without SPD as published on ImageNet, at `sustained` floating-point operations a second.

    `sustained` is a measured run's images/s times its `flops_per_image`: an estimate, since other sizes use a device
    differently well. `price_per_hour` is that of the machine which sustains them.
    """
    runs = []
    for method in METHODS:
        for spd in (None, SpdSettings()):
            settings = published(method, arch=arch, image_size=image_size, spd=spd)
            flops = flops_per_image(settings)
            rate = sustained / flops
            hours = IMAGENET_IMAGES * settings.epochs / rate / 3600
            name = f"{method}+spd" if spd else method
            runs.append(FullRun(name, settings.epochs, flops, rate, hours, hours * price_per_hour))
    return runs
