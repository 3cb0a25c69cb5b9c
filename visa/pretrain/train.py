"""The training loop: order of the images, curves, checkpoints and exact resume, and when to stop."""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from visa.errors import VisaError
from visa.pretrain import methods
from visa.pretrain.checkpoint import Content, is_finite, load_shared, save, save_final
from visa.pretrain.fabric import check_shareable
from visa.pretrain.feed import Order, all_skipped, on_device
from visa.pretrain.input.images import Images
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

PAUSE = 50
"""Times as long as saving took, a run trains before it saves again: checkpoints cost a fiftieth of its time at most."""

_GROUP = 20  # steps between two looks at the loss on a GPU, which must not wait for it at each


@dataclass
class Result:
    """A finished pre-training.

    `method` with its heads, on the CPU in evaluation mode; `curves`: a row of loss terms a step, means over processes,
    which the first process alone has; `seconds` spent training; `images_per_second` of all processes together;
    `skipped`: corrupt images; `speed`: how it ran.
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
    precision: str | None = None,
    speed: Speed | None = None,
    save_every: float = 30.0,
) -> Result:
    """Train the method of `settings`, on from `checkpoint` if there is one (see `checkpoint_path`).

    A checkpoint is written between two steps, every `save_every` seconds, or more rarely where that would cost more
    than a fiftieth of the time (after every step if 0): an interruption or a kill costs no more than the steps since.
    Batches and views depend on seed and step alone: on a CPU a resumed run ends with the same bits as an undisturbed
    one, and any number of processes may go on with it.
    A run goes on at the speed it began with. A new one takes `default_speed`; in a single process one of MEASURED_FROM
    steps or more takes what `fastest` finds. `precision` fixes that part of it, `speed` all.
    Raises VisaError if there are too few images, processes cannot share a batch equally, the checkpoint has other
    settings, or the loss is not finite or the embeddings collapse, with what was seen and what to try.
    """
    if len(images) < settings.batch_size:
        raise VisaError(f"{len(images)} images make no batch of {settings.batch_size}: set a smaller batch_size.")
    check_shareable(settings.batch_size, fabric)
    key = digest(asdict(settings))
    content = load_shared(checkpoint, key, fabric)
    speed = _speed(content, images, settings, fabric, precision, speed)
    with speed.applied():
        step = Step(methods.build(settings, images.classes), settings, fabric, speed)
        run = _Run(step, images, checkpoint, key)
        if content:
            run.restore(content)
        elif run.steps >= MEASURED_FROM:
            run.save()  # killed before the next one, it would measure again, and might find another speed
        run.train(save_every)
    curves = run.rows() if fabric.is_global_zero else []
    return Result(_plain(step.method, settings, images), curves, run.seconds, run.rate, sorted(run.skipped), speed)


class _Run:
    """A training under way: what a checkpoint holds, and the steps whose terms are still on the device."""

    def __init__(self, step: Step, images: Images, checkpoint: Path, key: str) -> None:
        self.step, self.images, self.checkpoint, self.key = step, images, checkpoint, key
        self.per_epoch = len(images) // step.settings.batch_size
        self.steps = step.settings.epochs * self.per_epoch
        self.at, self.seconds, self.rate = 0, 0.0, 0.0
        self.columns: list[str] = []
        self.curves = torch.empty(0)  # a row for each of all steps, a column for each of `columns`
        self.skipped: set[str] = set()
        self.waiting: list[tuple[float, dict[str, Tensor]]] = []
        self.saved, self.saving = time.monotonic(), 0.0

    def train(self, save_every: float) -> None:
        settings, fabric = self.step.settings, self.step.fabric
        if self.at == self.steps:
            return
        order = Order(self.images, settings, self.at, fabric.global_rank, fabric.world_size)
        group = 1 if fabric.device.type == "cpu" else _GROUP
        clock = _Clock(self.at, self.seconds)
        with _bar(self, fabric) as bar:
            for batch in on_device(self.images.batches(order), fabric.device):
                self.waiting.append(self.step(batch, self.at, self.at / self.per_epoch))
                self.at += 1
                if self.at % group and self.at < self.steps:
                    continue
                bar.update(len(self.waiting) * settings.batch_size)
                self.look()
                self.seconds, self.rate = clock.read(self.at, settings.batch_size)
                pause = save_every and max(save_every, PAUSE * self.saving)
                if time.monotonic() - self.saved > pause and self.at < self.steps:
                    self.save()
        self.finish()

    def look(self) -> None:
        """Fetch the terms of the steps since the last look, in one go; raises VisaError if training makes no sense."""
        names = list(self.waiting[0][1])
        table = torch.stack([torch.stack([terms[name] for name in names]) for _, terms in self.waiting])
        means: Tensor = self.step.fabric.all_reduce(table, reduce_op="mean")  # type: ignore[assignment]
        first = self.at - len(self.waiting)
        if not self.columns:
            self._set_curves(["step", "lr", *names])
        for i, ((lr, _), values) in enumerate(zip(self.waiting, means.tolist(), strict=True), first):
            row = {"step": float(i), "lr": lr, **dict(zip(names, values, strict=True))}
            self._check_finite(row)
            self.curves[i] = torch.tensor([row[name] for name in self.columns], dtype=torch.float64)
        self.waiting.clear()
        self._check_collapse()

    def rows(self) -> list[dict[str, float]]:
        """The curves, a row for each step done."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.curves[: self.at].tolist()]

    def save(self) -> None:
        """Write a checkpoint if all weights are finite; if not, the next step's loss says so to every process."""
        started = time.monotonic()
        if self.step.fabric.global_rank == 0 and self._is_finite():
            save(self.checkpoint, self.content() | {"optimizer": self.step.optimizer.state_dict()})
        self.saved = time.monotonic()
        self.saving = self.saved - started

    def finish(self) -> None:
        if not self._is_finite():
            raise VisaError(self._diverged("a weight", self.at - 1))
        self.skipped.update(all_skipped(self.images, self.step.fabric))
        if self.step.fabric.global_rank == 0:
            save_final(self.checkpoint, self.content())
        self.step.fabric.barrier()

    def content(self) -> Content:
        return {
            "key": self.key,
            "step": self.at,
            "classes": self.images.classes,
            "seconds": self.seconds,
            "rate": self.rate,
            "columns": self.columns,
            "curves": self.curves[: self.at].clone(),  # a part of a tensor would be saved whole
            "skipped": sorted({*self.skipped, *self.images.skipped}),
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
        self.skipped = set(content["skipped"])
        if self.at:
            self._set_curves(content["columns"])
            self.curves[: self.at] = content["curves"]

    def _set_curves(self, columns: list[str]) -> None:
        self.columns, self.curves = columns, torch.zeros(self.steps, len(columns), dtype=torch.float64)

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
        first = self.at - COLLAPSE_STEPS
        if "feature_std" not in self.columns or first < max(0, self.step.settings.warmup_epochs * self.per_epoch):
            return
        spread = self.curves[first : self.at, self.columns.index("feature_std")]
        if bool((spread < COLLAPSED).all()):
            raise VisaError(
                f"the embeddings have collapsed: feature_std is {float(spread[-1]):.3f}, and was below "
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


def _plain(method: nn.Module, settings: PretrainSettings, images: Images) -> nn.Module:
    """The trained method as it was built: not compiled, its batch norms not synced, on the CPU."""
    plain = methods.build(replace(settings, weights=""), images.classes)
    plain.load_state_dict(method.state_dict())
    return plain.eval()


def _speed(
    content: Content | None,
    images: Images,
    settings: PretrainSettings,
    fabric: Fabric,
    precision: str | None,
    speed: Speed | None,
) -> Speed:
    """How to go on or to begin; that a run goes on otherwise than it began is told."""
    stored = None
    if content and not content["optimizer"]:
        return Speed(**content["speed"])  # it is finished
    if content and content["device"] == fabric.device.type:
        stored = Speed(**content["speed"])
    if stored and not speed:
        speed = replace(stored, precision=precision or stored.precision)
    speed = speed or _new_speed(images, settings, fabric, precision)
    if stored and speed != stored and fabric.is_global_zero:
        print(f"The training began with {stored} and goes on with {speed}.")
    return speed


def _new_speed(images: Images, settings: PretrainSettings, fabric: Fabric, precision: str | None) -> Speed:
    steps = len(images) // settings.batch_size * settings.epochs
    if steps < MEASURED_FROM or fabric.world_size > 1:  # of several processes each might find another
        return default_speed(fabric.device, precision)
    found, _ = fastest(settings, fabric.device, max(images.classes, 2), steps * settings.batch_size, precision)
    return found
