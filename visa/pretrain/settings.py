"""Settings of a pre-training: each method's published ones as defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import torch
from torch import nn

from visa.backbone import check_stages, create_backbone, load_weights
from visa.errors import VisaError, check_choice, check_values
from visa.pretrain import METHODS
from visa.pretrain.augment import STRONG, View
from visa.pretrain.spd import SpdSettings

SMALL: dict[str, Any] = {
    **{"steps": 350, "epochs": 35, "warmup_epochs": 2.0, "batch_size": 16, "image_size": 64, "base_lr": 4.0},
    **{"optimizer": "sgd", "schedule": "cosine", "form": "cross-entropy", "eta": 0.7},
    **{"queue": 1024, "key_momentum": 0.99},
}
"""For random weights on a small machine, as in notebook 03. Chosen for SimSiam with SPD on mini-VisA's pcb1, where so
short a training learns the term's cross-entropy form but not its cosine form (book/results/form)."""

ADAPTATION: dict[str, Any] = {
    **{"steps": 60, "epochs": 60, "batch_size": 32, "image_size": 128, "base_lr": 0.16, "warmup_epochs": 5.0},
    **{"optimizer": "sgd", "schedule": "cosine", "freeze_norms": True, "clip": 1.0, "heads_lr": 10.0, "eta": 0.02},
}
"""For given weights (see `adaptation`), at a peak rate of 0.02. Sources: `steps` and `eta` were chosen on fryum
(book/results/protocol/tuning.csv), the others in prototypes; book/results/sensitivity shows what changing them does."""

_BOUNDS = {
    "epochs": (1, 100_000),
    "batch_size": (2, 2**20),
    "image_size": (16, 4096),
    "base_lr": (0, 1e30),  # too high a rate stops the training with a message of its own
    "momentum": (0, 1),
    "weight_decay": (0, 1e30),
    "warmup_epochs": (0, 100_000),
    "seed": (0, 2**31 - 1),
    "temperature": (1e-3, 1e3),
    "queue": (1, 2**24),
    "key_momentum": (0, 1),
    "bn_group": (2, 2**20),
    "steps": (0, 10**9),
    "clip": (0, 1e30),
    "heads_lr": (1e-6, 1e6),
}


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of one pre-training; `published` returns each method's own.

    `batch_size` counts the images of all processes; `base_lr` is for a batch of 256 and scales linearly with it. The
    rate rises linearly over `warmup_epochs`, then falls along half a cosine, or to a tenth at a third and again at two
    thirds of the epochs ("steps"). `image_size`: side S of the views, in pixels. `spd` None: the base method alone.
    `strong`: views of the base loss. `temperature` is MoCo v2's and SimCLR's; `queue` (keys), `key_momentum` and
    `bn_group` (images that share batch-norm statistics) are MoCo v2's. `weights`: a file to start from.
    For given weights: `steps`, if above 0, is the number of steps, which cycle through the images, and `epochs` is only
    the unit of the schedule; `freeze_norms` keeps the backbone's batch-norm statistics but trains scales and shifts;
    `clip`, if above 0, bounds the gradient's norm; `heads_lr` multiplies the learning rate of new layers.
    Raises VisaError for a value out of range.
    """

    method: str = "simsiam"
    arch: str = "resnet50"
    epochs: int = 100
    batch_size: int = 256
    image_size: int = 224
    base_lr: float = 0.05
    optimizer: Literal["sgd", "lars"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "steps"] = "cosine"
    warmup_epochs: float = 0.0
    seed: int = 0
    spd: SpdSettings | None = None
    strong: View = STRONG
    temperature: float = 0.2
    queue: int = 65536
    key_momentum: float = 0.999
    bn_group: int = 32
    weights: str = ""
    steps: int = 0
    freeze_norms: bool = False
    clip: float = 0.0
    heads_lr: float = 1.0

    def __post_init__(self) -> None:
        if self.spd and self.method in ("supervised", "auxiliary"):  # they have no embeddings to compare
            object.__setattr__(self, "spd", replace(self.spd, form="cross-entropy"))
        check_choice("method", self.method, METHODS)
        check_choice("optimizer", self.optimizer, ("sgd", "lars"))
        check_choice("schedule", self.schedule, ("cosine", "steps"))
        for name, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise VisaError(f"{name} is {getattr(self, name)}: give {low} or more, at most {high:.7g}.")
        if self.method == "mocov2" and self.queue < self.batch_size:
            raise VisaError(f"queue is {self.queue}: give {self.batch_size} (batch_size) or more.")

    @property
    def lr(self) -> float:
        """The peak learning rate, scaled linearly with the batch size."""
        return self.base_lr * self.batch_size / 256


def published(method: str, **changes: Any) -> PretrainSettings:
    """Return the published settings of `method` on ImageNet, with `changes`; its module names their sources.

    Raises VisaError for an unknown method or setting.
    """
    check_choice("method", method, METHODS)
    for name in changes:
        check_choice("setting", name, PretrainSettings.__dataclass_fields__)
    module = import_module(METHODS[method].rpartition(".")[0])
    return replace(PretrainSettings(method=method, **module.PUBLISHED), **changes)


def adaptation(method: str) -> dict[str, Any]:
    """Return the settings, by name, for training `method` from given weights: ADAPTATION, and its module's own.

    The gradient is clipped, so that one batch cannot undo the weights. The backbone's batch-norm statistics stay
    frozen, so that small batches do no harm and compared trainings differ only in their loss. Raises VisaError for an
    unknown method.
    """
    check_choice("method", method, METHODS)
    return {**ADAPTATION, **getattr(import_module(METHODS[method].rpartition(".")[0]), "ADAPTATION", {})}


def configured(method: str, spd: bool, values: Mapping[str, object]) -> PretrainSettings:
    """Return the published settings changed by `values`, scalars named as in `PretrainSettings` and `SpdSettings`.

    If `values` names `weights`, the settings of `adaptation` are the defaults.
    Raises VisaError for an unknown name, one that needs more than a scalar, or a value of another type.
    """
    own, term = _scalars(PretrainSettings()), _scalars(SpdSettings())
    values = {**adaptation(method), **values} if values.get("weights") else values
    check_values(values, {**own, **term})
    chosen = SpdSettings(**{k: v for k, v in values.items() if k in term})  # type: ignore[arg-type]
    return published(method, spd=chosen if spd else None, **{k: v for k, v in values.items() if k in own})


def build(settings: PretrainSettings, classes: int) -> nn.Module:
    """Build the untrained method of `settings`; its weights depend on the seed alone, and are the same without SPD.

    A method is a module whose `forward` takes Views and returns named loss terms, means over the batch: `loss` =
    `base` + eta * `spd`. Each process sees its part of the batch; negatives and keys are gathered from all processes.
    `classes`: the number of labels of supervised pre-training, which raises VisaError if it is below 2.
    """
    backbone = create_backbone(settings.arch, settings.seed)
    if settings.weights:
        check_stages(load_weights(backbone, Path(settings.weights)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        method: nn.Module = resolve_name(METHODS[settings.method])(backbone, settings, classes)
        return method


def _scalars(settings: PretrainSettings | SpdSettings) -> dict[str, object]:
    plain = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return {k: v for k, v in plain.items() if isinstance(v, bool | int | float | str) and k != "method"}
