"""Settings of a pre-training, with each method's published ones as defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from visa.errors import VisaError, check_choice
from visa.pretrain.augment import STRONG, View
from visa.pretrain.spd import SpdSettings

SIMCLR_STRONG = View((0.08, 1.0), (0.8, 0.8, 0.8, 0.2), jitter_p=0.8, grey_p=0.2, blur_p=0.5, blur_sigma=(0.1, 2.0))
"""SimCLR's view: a stronger crop and twice the colour jitter (Chen et al. 2020, appendix A)."""

CROP_AND_FLIP = View((0.08, 1.0), (0.0, 0.0, 0.0, 0.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0, blur_sigma=(0.1, 1.0))
"""Supervised pre-training's view (He et al. 2016, section 3.4, with the crop of Szegedy et al. 2015)."""


_BOUNDS = {
    "epochs": (1, 100_000),
    "batch_size": (2, 2**20),
    "image_size": (16, 4096),
    "base_lr": (0, 1e30),  # a rate that is too high stops the training with a sentence of its own
    "momentum": (0, 1),
    "weight_decay": (0, 1e30),
    "warmup_epochs": (0, 100_000),
    "seed": (0, 2**31 - 1),
    "temperature": (1e-3, 1e3),
    "queue": (1, 2**24),
    "key_momentum": (0, 1),
    "bn_group": (2, 2**20),
}


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of one pre-training; `published` gives each method's own.

    `batch_size` is that of all processes together; `base_lr` is for a batch of 256 and scales with it. The rate rises
    linearly over `warmup_epochs`, then falls along half a cosine, or by a tenth at a third and at two thirds of the
    epochs ("steps"). `image_size`: side S of the views, in pixels. `spd` None: the base method alone. `strong`: views
    of the base loss. `temperature` is MoCo v2's and SimCLR's; `queue` (keys), `key_momentum` and `bn_group` (images
    that share batch-norm statistics) are MoCo v2's. `weights`: a file to start from.
    Raises VisaError for a value that makes no sense.
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

    def __post_init__(self) -> None:
        if self.method == "supervised" and self.spd:  # labels come with a classifier, not with embeddings to compare
            object.__setattr__(self, "spd", replace(self.spd, form="cross-entropy"))
        check_choice("method", self.method, PUBLISHED)
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


PUBLISHED: dict[str, dict[str, Any]] = {
    # Chen & He 2021, section 4 (batch 512, no warm-up)
    "simsiam": {"epochs": 100, "batch_size": 512, "base_lr": 0.05, "weight_decay": 1e-4},
    # He et al. 2020, sections 3.3 and 4 (queue, momentum, eight GPUs of 32 images with batch norms of their own);
    # Chen et al. 2020b (MoCo v2: MLP head, views, cosine, temperature)
    "mocov2": {"epochs": 200, "batch_size": 256, "base_lr": 0.03, "weight_decay": 1e-4, "temperature": 0.2},
    # Chen et al. 2020, section 2.3: LARS, 0.3 * batch / 256, ten epochs of warm-up
    "simclr": {
        "epochs": 100,
        "batch_size": 4096,
        "base_lr": 0.3,
        "optimizer": "lars",
        "weight_decay": 1e-6,
        "warmup_epochs": 10.0,
        "temperature": 0.1,
        "strong": SIMCLR_STRONG,
    },
    # He et al. 2016, section 3.4: a tenth of the rate when the error plateaus, here at 30 and 60 of 90 epochs
    "supervised": {
        "epochs": 90,
        "batch_size": 256,
        "base_lr": 0.1,
        "schedule": "steps",
        "weight_decay": 1e-4,
        "strong": CROP_AND_FLIP,
    },
}
METHODS = tuple(PUBLISHED)


def published(method: str, **changes: Any) -> PretrainSettings:
    """The published settings of `method` on ImageNet, with `changes`; sources stand beside `PUBLISHED`.

    Raises VisaError for an unknown method or setting.
    """
    check_choice("method", method, PUBLISHED)
    for name in changes:
        check_choice("setting", name, PretrainSettings.__dataclass_fields__)
    return replace(PretrainSettings(method=method, **PUBLISHED[method]), **changes)


def configured(method: str, spd: bool, values: Mapping[str, object]) -> PretrainSettings:
    """The published settings with `values`, plain scalars by name: of `PretrainSettings`, or of `SpdSettings`.

    Raises VisaError for an unknown name, one that needs more than a scalar, or a value of another type.
    """
    own, term = _scalars(PretrainSettings()), _scalars(SpdSettings())
    for name, value in values.items():
        check_choice("setting", name, {**own, **term})
        kind = type({**own, **term}[name])
        if not (isinstance(value, kind) or (kind is float and isinstance(value, int))) or isinstance(value, bool) != (
            kind is bool
        ):
            raise VisaError(f"setting {name!r} is {value!r}, of type {type(value).__name__}: give {kind.__name__}.")
    chosen = SpdSettings(**{k: v for k, v in values.items() if k in term})  # type: ignore[arg-type]
    return published(method, spd=chosen if spd else None, **{k: v for k, v in values.items() if k in own})


def _scalars(settings: PretrainSettings | SpdSettings) -> dict[str, object]:
    plain = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return {k: v for k, v in plain.items() if isinstance(v, bool | int | float | str) and k != "method"}
