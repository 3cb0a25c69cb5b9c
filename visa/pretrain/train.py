"""The training loop: order of the images, curves, checkpoints and exact resume, and when to stop."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from visa.errors import VisaError
from visa.pretrain import methods
from visa.pretrain.checkpoint import Content, is_finite, load_shared, save, save_final
from visa.pretrain.fabric import share
from visa.pretrain.feed import Order, all_skipped, on_device
from visa.pretrain.images import Images
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.speed import fastest
from visa.pretrain.step import Speed, Step, default_speed
from visa.provenance import digest

COLLAPSE_WARNING = 0.5
"""Below this `feature_std` (1 is healthy) embeddings have begun to be all alike."""

COLLAPSED = 0.1
"""Below this for COLLAPSE_STEPS steps after warm-up a run is stopped: healthy ones stay near 1, collapsed ones reach 0
(Chen & He 2021, figure 2)."""

COLLAPSE_STEPS = 100
MEASURED_FROM = 500
"""A new run of so many steps begins by measuring what is fastest; for a shorter one that would not pay."""

_GROUP = 20  # steps between two looks at the loss on a GPU, which must not wait for it at each


@dataclass
class Result:
    """A finished pre-training.

    `method` with its heads, in evaluation mode; `curves`: a row of loss terms a step, means over processes; `seconds`
    spent training; `images_per_second` of all processes together; `skipped`: corrupt images; `speed`: how it ran.
    """

    method: nn.Module
    curves: list[dict[str, float]]
    seconds: float
    images_per_second: float
    skipped: list[str]
    speed: Speed


def pretrain(
    images: Images,
    settings: PretrainSettings,
    checkpoint: Path,
    fabric: Fabric,
    speed: Speed | None = None,
    save_every: float = 30.0,
) -> Result:
    """Train the method of `settings`, on from `checkpoint` if there is one (see `checkpoint_path`).

    A checkpoint is written between two steps, every `save_every` seconds: an interruption or a kill costs no more than
    that. Batches and views depend on seed and step alone: on a CPU a resumed run ends with the same bits as an
    undisturbed one, and any number of processes may go on with it. Without `speed` a run goes on as it began; a new
    one of MEASURED_FROM steps or more takes what `fastest` finds, a shorter one `default_speed`.
    Raises VisaError if there are too few images, processes cannot share a batch equally, the checkpoint has other
    settings, or the loss is not finite or the embeddings collapse, with what was seen and what to try.
    """
    if len(images) < settings.batch_size:
        raise VisaError(f"{len(images)} images make no batch of {settings.batch_size}: set a smaller batch_size.")
    share(settings.batch_size, fabric)
    key = digest(asdict(settings))
    content = load_shared(checkpoint, key, fabric)
    speed = speed or _stored_speed(content, fabric) or _new_speed(images, settings, fabric)
    with speed.applied():
        step = Step(methods.build(settings, images.classes), settings, fabric, speed)
        run = _Run(step, len(images) // settings.batch_size, checkpoint, key)
        if content:
            run.restore(content)
        run.train(images, save_every)
    return Result(step.method.eval(), run.curves, run.seconds, run.rate, all_skipped(images, fabric), speed)


class _Run:
    """A training under way: what a checkpoint holds, and the steps whose terms are still on the device."""

    def __init__(self, step: Step, per_epoch: int, checkpoint: Path, key: str) -> None:
        self.step, self.per_epoch, self.checkpoint, self.key = step, per_epoch, checkpoint, key
        self.steps = step.settings.epochs * per_epoch
        self.at, self.seconds, self.rate = 0, 0.0, 0.0
        self.curves: list[dict[str, float]] = []
        self.waiting: list[tuple[float, dict[str, Tensor]]] = []

    def train(self, images: Images, save_every: float) -> None:
        settings, fabric = self.step.settings, self.step.fabric
        if self.at == self.steps:
            return
        order = Order(images, settings, self.at, fabric.global_rank, fabric.world_size)
        group = 1 if fabric.device.type == "cpu" else _GROUP
        saved, clock = time.monotonic(), _Clock(self.at, self.seconds)
        with _bar(self, fabric) as bar:
            for batch in on_device(images.batches(order), fabric.device):
                self.waiting.append(self.step(batch, self.at, self.at / self.per_epoch))
                self.at += 1
                if self.at % group and self.at < self.steps:
                    continue
                bar.update(len(self.waiting) * settings.batch_size)
                self.look()
                self.seconds, self.rate = clock.read(self.at, settings.batch_size)
                if time.monotonic() - saved > save_every and self.at < self.steps:
                    self.save()
                    saved = time.monotonic()
        self.finish()

    def look(self) -> None:
        """Fetch the terms of the steps since the last look, in one go; raises VisaError if training makes no sense."""
        names = list(self.waiting[0][1])
        table = torch.stack([torch.stack([terms[name] for name in names]) for _, terms in self.waiting])
        means: Tensor = self.step.fabric.all_reduce(table, reduce_op="mean")  # type: ignore[assignment]
        rows: list[list[float]] = means.tolist()
        first = self.at - len(rows)
        for i, ((lr, _), values) in enumerate(zip(self.waiting, rows, strict=True)):
            row = {"step": float(first + i), "lr": lr, **dict(zip(names, values, strict=True))}
            self._check_finite(row)
            self.curves.append(row)
        self.waiting.clear()
        self._check_collapse()

    def save(self) -> None:
        """Write a checkpoint if all weights are finite; if not, the next step's loss says so to every process."""
        if self.step.fabric.global_rank == 0 and self._is_finite():
            save(self.checkpoint, self.content() | {"optimizer": self.step.optimizer.state_dict()})

    def finish(self) -> None:
        if not self._is_finite():
            raise VisaError(self._diverged("a weight", self.at - 1))
        if self.step.fabric.global_rank == 0:
            save_final(self.checkpoint, self.content())
        self.step.fabric.barrier()

    def content(self) -> Content:
        columns = list(self.curves[0])
        return {
            "key": self.key,
            "step": self.at,
            "seconds": self.seconds,
            "rate": self.rate,
            "columns": columns,
            "curves": torch.tensor([[row[c] for c in columns] for row in self.curves], dtype=torch.float64),
            "method": self.step.method.state_dict(),
            "optimizer": None,
            "speed": asdict(self.step.speed),
            "device": self.step.fabric.device.type,
        }

    def restore(self, content: Content) -> None:
        self.step.method.load_state_dict(content["method"])
        if content["optimizer"]:
            self.step.optimizer.load_state_dict(content["optimizer"])
        self.at, self.seconds, self.rate = content["step"], content["seconds"], content["rate"]
        self.curves = [dict(zip(content["columns"], row, strict=True)) for row in content["curves"].tolist()]

    def _is_finite(self) -> bool:
        states = self.step.optimizer.state.values()
        momenta = [t for state in states for t in state.values() if isinstance(t, Tensor)]
        return is_finite([*self.step.method.state_dict().values(), *momenta])

    def _check_finite(self, row: dict[str, float]) -> None:
        for name in ("base", "spd", "loss"):
            if not math.isfinite(row.get(name, 0.0)):
                raise VisaError(self._diverged(f"the term {name!r} of the loss", int(row["step"]), row[name]))

    def _diverged(self, what: str, step: int, value: float = math.nan) -> str:
        return (
            f"{what} is {value} at step {step} of {self.steps}: try a lower base_lr, a longer warm-up, or precision "
            f"32-true; the last good checkpoint, if one was written, stays at {self.checkpoint}."
        )

    def _check_collapse(self) -> None:
        last = self.curves[-COLLAPSE_STEPS:]
        warm = last[0]["step"] >= self.step.settings.warmup_epochs * self.per_epoch
        if len(last) == COLLAPSE_STEPS and warm and all(row.get("feature_std", 1.0) < COLLAPSED for row in last):
            raise VisaError(
                f"the embeddings have collapsed: feature_std is {last[-1]['feature_std']:.3f}, and was below "
                f"{COLLAPSED} for {COLLAPSE_STEPS} steps up to step {self.at - 1} (1 is healthy, 0 means that all "
                "images embed alike): try a lower base_lr, a larger batch_size, or another seed."
            )


class _Clock:
    """Seconds of training, and images a second since the first look, which includes what happens only once."""

    def __init__(self, at: int, seconds: float) -> None:
        self.started, self.first = time.monotonic() - seconds, (time.monotonic(), at)
        self.looks = 0

    def read(self, at: int, batch_size: int) -> tuple[float, float]:
        now = time.monotonic()
        rate = (at - self.first[1]) * batch_size / max(now - self.first[0], 1e-9)
        self.looks += 1
        if self.looks == 1:
            self.first = (now, at)
        return now - self.started, rate


def _bar(run: _Run, fabric: Fabric) -> Any:
    size = run.step.settings.batch_size
    return tqdm(
        total=run.steps * size,
        initial=run.at * size,
        desc="pre-training",
        unit=" images",
        unit_scale=True,
        mininterval=2,
        disable=fabric.global_rank > 0,
    )


def _stored_speed(content: Content | None, fabric: Fabric) -> Speed | None:
    return Speed(**content["speed"]) if content and content["device"] == fabric.device.type else None


def _new_speed(images: Images, settings: PretrainSettings, fabric: Fabric) -> Speed:
    seen = len(images) // settings.batch_size * settings.batch_size * settings.epochs
    if seen < MEASURED_FROM * settings.batch_size:
        return default_speed(fabric.device)
    found, _ = fastest(settings, fabric.device, max(images.classes, 2), seen)
    return found
