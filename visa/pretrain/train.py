"""The training loop: schedule, checkpoint and exact resume, curves, collapse monitor."""

import io
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from visa.backbone import create_backbone, load_weights
from visa.errors import VisaError
from visa.paths import written_whole
from visa.pretrain.images import Images
from visa.pretrain.methods import SimSiam, SpdSettings, draw_views
from visa.provenance import code_digest, digest, file_digest

COLLAPSE_WARNING = 0.5


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of one pre-training.

    `base_lr` is for a batch of 256 and scales with the batch; momentum, weight decay and the base rate are SimSiam's
    (Chen & He 2021, section 4). The rate rises linearly over `warmup_epochs`, then falls along a cosine; the
    predictor's stays at its peak. `image_size` is the side S of the views, in pixels. `spd` None: the base method.
    Raises VisaError for a value below what makes sense.
    """

    arch: str = "resnet18"
    epochs: int = 100
    batch_size: int = 32
    image_size: int = 64
    base_lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    seed: int = 0
    spd: SpdSettings | None = None
    weights: str = ""

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 2, "image_size": 16, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise VisaError(f"{name} is {getattr(self, name)}: give {bound} or more.")

    @property
    def lr(self) -> float:
        """The peak learning rate, scaled linearly with the batch size."""
        return self.base_lr * self.batch_size / 256


@dataclass
class Result:
    """A finished pre-training: the method with its heads, one row of terms a step, and seconds spent training."""

    method: SimSiam
    curves: list[dict[str, float]]
    seconds: float


def pretrain(
    images: Images, settings: PretrainSettings, checkpoint: Path, device: torch.device, save_every: float = 30.0
) -> Result:
    """Train SimSiam, with or without SPD, on from `checkpoint` if there is one (see `checkpoint_path`).

    A checkpoint is written between two steps, every `save_every` seconds: an interruption or a kill costs no more than
    that. On a CPU a resumed run ends with the same bits as an undisturbed one: batches and views depend on seed and
    step alone.
    Raises VisaError if there are too few images, the checkpoint has other settings, or the loss is not finite.
    """
    steps_per_epoch = len(images) // settings.batch_size
    if steps_per_epoch == 0:
        raise VisaError(f"{len(images)} images make no batch of {settings.batch_size}: set a smaller batch_size.")
    steps = settings.epochs * steps_per_epoch
    method = build_method(settings).to(device)
    optimizer = _optimizer(method, settings)
    state = _State(method, optimizer, settings, checkpoint)
    state.resume(device)
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    order = _Order(len(images), settings, state.step)
    bar = tqdm(total=steps, initial=state.step, desc="pre-training", unit="step", mininterval=2)
    try:
        for batch in images.batches(order):
            _set_lr(optimizer, settings, state.step / steps_per_epoch)
            state.curves.append(_step(method, optimizer, batch.to(device), settings, state.step))
            state.step += 1
            state.seconds = time.monotonic() - started
            bar.update()
            if time.monotonic() - saved > save_every:
                state.save()
                saved = time.monotonic()
    finally:
        bar.close()
    state.save()
    return Result(method.eval(), state.curves, state.seconds)


def build_method(settings: PretrainSettings) -> SimSiam:
    """The untrained method of `settings`: weights depend on the seed alone, the same with and without SPD."""
    backbone = create_backbone(settings.arch, settings.seed)
    if settings.weights:
        load_weights(backbone, Path(settings.weights))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return SimSiam(backbone, settings.spd)


def checkpoint_path(folder: Path, settings: PretrainSettings, data: str) -> Path:
    """The checkpoint of these settings, this data (its fingerprint) and this code; any other has another name."""
    weights = file_digest(Path(settings.weights)) if settings.weights else ""
    key = digest([asdict(settings), weights, data, code_digest("pretrain", "backbone.py")])
    return folder / f"checkpoint-{key}.pt"


def learning_rate(settings: PretrainSettings, epoch: float) -> float:
    """Rate at a (fractional) epoch: linear warm-up, then half a cosine down to 0 at the last epoch."""
    if epoch < settings.warmup_epochs:
        return settings.lr * (epoch + 1e-3) / settings.warmup_epochs
    span = max(settings.epochs - settings.warmup_epochs, 1e-9)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (epoch - settings.warmup_epochs) / span)))


def _optimizer(method: SimSiam, settings: PretrainSettings) -> torch.optim.Optimizer:
    predictor = {id(p) for p in method.predictor.parameters()}
    groups = [
        {"params": [p for p in method.parameters() if id(p) not in predictor], "constant_lr": False},
        {"params": list(method.predictor.parameters()), "constant_lr": True},
    ]
    return torch.optim.SGD(groups, settings.lr, settings.momentum, weight_decay=settings.weight_decay)


def _set_lr(optimizer: torch.optim.Optimizer, settings: PretrainSettings, epoch: float) -> None:
    for group in optimizer.param_groups:
        constant = group["constant_lr"] and epoch >= settings.warmup_epochs
        group["lr"] = settings.lr if constant else learning_rate(settings, epoch)


@dataclass(frozen=True)
class _Order:
    """Indices of each batch from step `first` on: a new permutation an epoch, its incomplete last batch left out."""

    images: int
    settings: PretrainSettings
    first: int

    def __iter__(self) -> Iterator[list[int]]:
        size = self.settings.batch_size
        per_epoch = self.images // size
        for epoch in range(self.first // per_epoch, self.settings.epochs):
            order = torch.randperm(self.images, generator=_generator(self.settings.seed, "order", epoch)).tolist()
            for batch in range(per_epoch):
                if epoch * per_epoch + batch >= self.first:
                    yield order[batch * size : (batch + 1) * size]


def _step(
    method: SimSiam, optimizer: torch.optim.Optimizer, batch: Tensor, settings: PretrainSettings, step: int
) -> dict[str, float]:
    method.train()
    generator = _generator(settings.seed, "views", step, batch.device)
    with torch.no_grad():
        views = draw_views(batch.float() / 255, settings.image_size, settings.spd, generator)
    terms = method.terms(views)
    optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    row = {"step": float(step), "lr": optimizer.param_groups[0]["lr"]} | {
        k: float(v.detach()) for k, v in terms.items()
    }
    if not math.isfinite(row["loss"]):
        raise VisaError(f"the loss is {row['loss']} at step {step}: try a lower base_lr or a longer warm-up.")
    return row


def _generator(seed: int, use: str, count: int, device: torch.device | str = "cpu") -> Generator:
    """A generator that depends on nothing but its arguments, so that a resumed run draws the same."""
    return Generator(device).manual_seed(int(digest([seed, use, count])[:15], 16))


@dataclass
class _State:
    """What a checkpoint holds."""

    method: nn.Module
    optimizer: torch.optim.Optimizer
    settings: PretrainSettings
    path: Path
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.curves: list[dict[str, float]] = []
        self.key = digest(asdict(self.settings))

    def save(self) -> None:
        content = {
            "key": self.key,
            "step": self.step,
            "seconds": self.seconds,
            "curves": self.curves,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with written_whole(self.path) as partial:
            partial.write_bytes(buffer.getbuffer())

    def resume(self, device: torch.device) -> None:
        if not self.path.is_file():
            return
        try:
            content: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:
            raise VisaError(f"the checkpoint {self.path} cannot be read: delete it to start anew.") from error
        if content["key"] != self.key:
            raise VisaError(f"the checkpoint {self.path} was made with other settings: delete it to start anew.")
        self.method.load_state_dict(content["method"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.seconds, self.curves = content["step"], content["seconds"], content["curves"]
