"""The training loop, from top to bottom: a run with its curves, a step, its views, the optimiser, checkpoints."""

import io
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from timm.optim.lars import Lars
from torch import Generator, Tensor, nn
from tqdm import tqdm

from visa.backbone import batch_norms
from visa.errors import VisaError
from visa.paths import written_whole
from visa.pretrain import VERSION
from visa.pretrain.augment import Draws, View, Views, random_view
from visa.pretrain.fabric import all_strings, from_first
from visa.pretrain.images import Batch, Images
from visa.pretrain.settings import PretrainSettings, build
from visa.pretrain.spd import SpdSettings, spd_views
from visa.provenance import digest, file_digest

PRECISIONS = ("32-true", "bf16-mixed")

COLLAPSED = 0.1
"""A run is stopped if `feature_std` stays below this for COLLAPSE_STEPS steps after warm-up: healthy runs stay near 1,
collapsed ones reach 0 (Chen & He 2021, figure 2)."""

COLLAPSE_STEPS = 100

PAUSE = 50
"""A run trains this many times as long as saving took before it saves again: saving costs at most 2 % of the time."""

_GROUP = 20  # steps between two reads of the loss on a GPU: reading it at every step would make the GPU wait


@dataclass
class Result:
    """A finished pre-training.

    `method` with its heads, on the CPU in evaluation mode; `curves`: loss terms of each step, means over processes, on
    the first process only; `seconds` spent training; `images_per_second` of all processes together;
    `skipped`: corrupt images; `where`: on what device, in how many processes and at what precision the last step ran.
    """

    method: nn.Module
    curves: list[dict[str, float]]
    seconds: float
    images_per_second: float
    skipped: list[str]
    where: dict[str, Any]


class Step:
    """A training step of `method` on this process's part of a global batch.

    `precision`: "32-true" is float32, "bf16-mixed" is torch's autocast to bfloat16; None is "bf16-mixed" on a CUDA GPU
    that supports it, else "32-true". On CUDA weights and activations are in the memory format channels_last.
    """

    def __init__(self, method: nn.Module, settings: PretrainSettings, fabric: Fabric, precision: str | None) -> None:
        cuda = fabric.device.type == "cuda"
        bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        self.precision = precision or ("bf16-mixed" if bf16 else "32-true")
        if fabric.world_size > 1 and cuda and getattr(method, "syncs_batch_norm", True):
            method = convert_sync_batchnorm(method)  # type: ignore[no-untyped-call]  # torch's; timm's own norms, too
        if cuda:
            method = method.to(memory_format=torch.channels_last)
        self.method, self.settings, self.fabric = method.train(), settings, fabric
        if settings.freeze_norms:
            for norm in batch_norms(method.get_submodule("backbone")):
                norm.eval()
        self.optimizer = build_optimizer(method, settings)
        self.model = fabric.setup_module(method)

    def __call__(self, batch: Batch, step: int, epoch: float) -> tuple[float, dict[str, Tensor]]:
        """Train on uint8 images; returns the learning rate and the loss terms, of this process alone."""
        rate = set_lr(self.optimizer, self.settings, epoch)
        views = self.draw(batch, step)
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            terms = self.model(views)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        if clip := self.settings.clip:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=clip, error_if_nonfinite=False)
        self.optimizer.step()
        return rate, {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def draw(self, batch: Batch, step: int) -> Views:
        """Draw this part's views on the device: they depend on seed, step and image, not on the number of processes."""
        device, s = self.fabric.device, self.settings
        images, labels = (t.to(device, non_blocking=True) for t in batch)
        draws = Draws(seeded(s.seed, "views", step, device), self.fabric.global_rank, self.fabric.world_size)
        two = getattr(self.method, "second_view", True)
        return draw_views(images.contiguous().float() / 255, labels, s.image_size, s.strong, two, s.spd, draws)


class Training:
    """A training of the method of `settings`, which resumes from `checkpoint` if there is one.

    On a CPU a resumed run ends with the same bits as an uninterrupted one. The number of processes may change when it
    resumes. `precision`: see `Step`.
    Raises VisaError if there are too few images, processes cannot share a batch equally, or no checkpoint can be read.
    """

    def __init__(
        self, images: Images, settings: PretrainSettings, checkpoint: Path, fabric: Fabric, precision: str | None = None
    ) -> None:
        if len(images) < settings.batch_size and not settings.steps:
            raise VisaError(f"{len(images)} images make no batch of {settings.batch_size}: set a smaller batch_size.")
        if settings.batch_size % (n := fabric.world_size):
            raise VisaError(f"batch_size is {settings.batch_size}: give a multiple of {n}, the number of processes.")
        self.step = step = Step(build(settings, images.classes), settings, fabric, precision)
        self.images, self.checkpoint = images, checkpoint
        self.length = settings.steps or settings.epochs * (len(images) // settings.batch_size)
        self.per_epoch = self.length / settings.epochs
        self.at, self.seconds, self.rate = 0, 0.0, 0.0
        self.rows: list[dict[str, float]] = []  # of each step done
        self.where = {"device": str(fabric.device), "processes": fabric.world_size, "precision": step.precision}
        self.skipped: set[str] = set()
        self.waiting: list[tuple[float, dict[str, Tensor]]] = []
        self.saved, self.saving = time.monotonic(), 0.0
        if content := from_first(lambda: load_checkpoint(checkpoint), fabric):
            self._restore(content)

    def run(self, save_every: float = 30.0) -> Result:
        """Take all `steps` and return the `result`."""
        for _ in self.steps(save_every):
            pass
        return self.result()

    def steps(self, save_every: float = 30.0) -> Iterator[dict[str, float]]:
        """Train, and yield the loss terms of each step; those of the steps before a checkpoint come first.

        A checkpoint is written between two steps, every `save_every` seconds (after every step if 0), or less often
        (see PAUSE). Raises VisaError, which says what to try, if the loss is not finite or the embeddings collapse.
        """
        yield from self.rows
        settings, fabric = self.step.settings, self.step.fabric
        if self.at == self.length:
            return
        order = batch_indices(len(self.images), settings, self.at, fabric.global_rank, fabric.world_size)
        group = 1 if fabric.device.type == "cpu" else _GROUP
        first, began, before = self.at, time.monotonic(), self.seconds
        shown: dict[str, Any] = {"desc": "pre-training", "unit": " images", "unit_scale": True, "mininterval": 2}
        size, silent = settings.batch_size, fabric.global_rank > 0
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True),  # all batches have one shape
            tqdm(total=self.length * size, initial=first * size, disable=silent, **shown) as bar,
        ):
            for batch in self.images.batches(order):
                self.waiting.append(self.step(batch, self.at, self.at / self.per_epoch))
                self.at += 1
                if self.at % group and self.at < self.length:
                    continue
                bar.update(len(self.waiting) * size)
                seen = len(self.rows)
                self._look()
                took = time.monotonic() - began
                self.seconds, self.rate = before + took, (self.at - first) * size / took
                pause = save_every and max(save_every, PAUSE * self.saving)
                if time.monotonic() - self.saved > pause and self.at < self.length:
                    self._save()
                yield from self.rows[seen:]
        self._finish()

    def result(self) -> Result:
        """Return the Result of the steps so far."""
        method = self.step.method.to("cpu").to(memory_format=torch.contiguous_format).eval()
        curves = self.rows if self.step.fabric.is_global_zero else []
        return Result(method, curves, self.seconds, self.rate, sorted(self.skipped), self.where)

    def _look(self) -> None:
        """Fetch the loss terms since the last call together; raises VisaError if one is not finite or z collapsed."""
        rates, terms = zip(*self.waiting, strict=True)
        self.waiting.clear()
        table = torch.stack([torch.stack(list(of_step.values())) for of_step in terms])
        means: Tensor = self.step.fabric.all_reduce(table, reduce_op="mean")  # type: ignore[assignment]
        for rate, values in zip(rates, means.tolist(), strict=True):
            self.rows.append({"step": float(len(self.rows)), "lr": rate, **dict(zip(terms[0], values, strict=True))})
        for row in self.rows[-len(rates) :]:
            for name in ("base", "spd", "loss"):
                if not math.isfinite(row.get(name, 0.0)):
                    raise VisaError(self._diverged(f"the term {name!r} of the loss", int(row["step"]), row[name]))
        self._check_collapse()

    def _save(self) -> None:
        """Write a checkpoint if all weights are finite; if not, every process finds out from the next step's loss."""
        started = time.monotonic()
        if self.step.fabric.global_rank == 0 and self._is_finite():
            save_checkpoint(self.checkpoint, self._content() | {"optimizer": self.step.optimizer.state_dict()})
        self.saved = time.monotonic()
        self.saving = self.saved - started

    def _finish(self) -> None:
        if not self._is_finite():
            raise VisaError(self._diverged("a weight", self.at - 1))
        self.skipped.update(all_strings(self.images.skipped, self.step.fabric))
        if self.step.fabric.global_rank == 0:
            save_checkpoint(self.checkpoint, self._content())
        self.step.fabric.barrier()

    def _content(self) -> dict[str, Any]:
        return {
            "step": self.at,
            "seconds": self.seconds,
            "rate": self.rate,
            "where": self.where,
            "columns": list(self.rows[0]) if self.rows else [],
            "curves": torch.tensor([list(row.values()) for row in self.rows], dtype=torch.float64),
            "skipped": sorted({*self.skipped, *self.images.skipped}),
            "method": self.step.method.state_dict(),
            "optimizer": None,
        }

    def _restore(self, content: dict[str, Any]) -> None:
        self.step.method.load_state_dict(content["method"])
        if content["optimizer"]:
            self.step.optimizer.load_state_dict(content["optimizer"])
        self.at, self.seconds, self.rate = content["step"], content["seconds"], content["rate"]
        self.skipped = set(content["skipped"])
        self.rows = [dict(zip(content["columns"], row, strict=True)) for row in content["curves"].tolist()]
        if self.at == self.length:
            self.where = content.get("where", self.where)

    def _is_finite(self) -> bool:
        states = self.step.optimizer.state.values()
        momenta = [t for state in states for t in state.values() if isinstance(t, Tensor)]
        values = [t for t in (*self.step.method.state_dict().values(), *momenta) if t.is_floating_point()]
        return bool(torch.stack([t.isfinite().all() for t in values]).all())  # waits for the device once

    def _diverged(self, what: str, step: int, value: float = math.nan) -> str:
        return (
            f"{what} is {value} at step {step} of {self.length}: try a lower base_lr, a longer warm-up, or precision "
            f"32-true; the last good checkpoint, if one was written, stays at {self.checkpoint}."
        )

    def _check_collapse(self) -> None:
        first = self.at - COLLAPSE_STEPS
        if "feature_std" not in self.rows[-1] or first < max(0, self.step.settings.warmup_epochs * self.per_epoch):
            return
        spread = [row["feature_std"] for row in self.rows[first:]]
        if all(value < COLLAPSED for value in spread):
            raise VisaError(
                f"the embeddings have collapsed: feature_std is {spread[-1]:.3f}, and was below "
                f"{COLLAPSED} for {COLLAPSE_STEPS} steps up to step {self.at - 1} (1 is healthy, 0 means that all "
                "images embed alike): try a lower base_lr, a larger batch_size, or another seed."
            )


def draw_views(
    images: Tensor, labels: Tensor, side: int, strong: View, two: bool, spd: SpdSettings | None, draws: Draws
) -> Views:
    """Draw all views of a batch N,3,H,W, as `random_view` takes it; the same strong views with and without `spd`."""
    first = random_view(images, side, strong, draws)
    second = random_view(images, side, strong, draws) if two else None
    shuffle = torch.rand(len(images) * draws.parts, generator=draws.generator, device=images.device).argsort()
    return Views(first, second, labels, spd_views(images, side, spd, draws) if spd else None, shuffle)


def batch_indices(images: int, settings: PretrainSettings, first: int, part: int, parts: int) -> Iterator[list[int]]:
    """Yield this process's part of each global batch from step `first` on; each epoch shuffles the images anew.

    An epoch's incomplete last batch is left out; where `steps` is set, the next epoch fills it.
    """
    size = settings.batch_size
    whole, own = images // size * size, size // parts
    period = images if settings.steps else whole  # images that an epoch gives

    def order(epoch: int) -> list[int]:
        generator = seeded(settings.seed, "order", epoch)
        return torch.randperm(images, generator=generator)[:period].tolist()

    at = first * size // period
    ready = order(at)[first * size - at * period :]
    for _ in range(first, settings.steps or settings.epochs * (whole // size)):
        while len(ready) < size:
            at += 1
            ready += order(at)
        yield ready[part * own : (part + 1) * own]
        ready = ready[size:]


def seeded(seed: int, use: str, count: int, device: torch.device | str = "cpu") -> Generator:
    """Return a generator that depends only on the arguments, so that a resumed run draws the same numbers."""
    return Generator(device).manual_seed(int(digest([seed, use, count])[:15], 16))


def build_optimizer(method: nn.Module, settings: PretrainSettings) -> torch.optim.Optimizer:
    """Build SGD, or LARS (You et al. 2017), over the trainable weights of `method`.

    LARS applies neither weight decay nor its layer-wise rate to biases and the scales of norms, as in SimCLR's released
    code (Chen et al. 2020). The groups of a `predictor` have the flag `constant_lr`: SimSiam's keeps the peak rate
    (Chen & He 2021, section 4.2). The groups of new layers have `heads_lr` as the `scale` of their rate.
    """
    lars, kinds = settings.optimizer == "lars", dict[tuple[bool, bool, bool], list[nn.Parameter]]()
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            kind = name.startswith("predictor."), not name.startswith("backbone."), weight.ndim < 2
            kinds.setdefault(kind, []).append(weight)
    groups: list[dict[str, Any]] = []
    for (constant, new, plain), weights in sorted(kinds.items()):
        own = {"weight_decay": 0.0 if plain else settings.weight_decay, "always_adapt": not plain} if lars else {}
        groups.append({"params": weights, "constant_lr": constant, "scale": settings.heads_lr if new else 1.0, **own})
    optimizer: torch.optim.Optimizer = (Lars if lars else torch.optim.SGD)(
        groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    return optimizer


def learning_rate(settings: PretrainSettings, epoch: float) -> float:
    """Return the rate at a (fractional) epoch: linear warm-up from 0, then the schedule.

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
        group["lr"] = group["scale"] * (settings.lr if constant else rate)
    return rate


def training_key(settings: PretrainSettings, data: str) -> str:
    """Compute a training's key from its settings, the data's fingerprint, the initial weights file and VERSION.

    Edits of the code do not change the key, so checkpoints and results stay valid until VERSION is raised.
    """
    weights = file_digest(Path(settings.weights)) if settings.weights else ""
    return digest([asdict(settings), weights, data, VERSION])


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Replace the last checkpoint atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written_whole(path) as partial, partial.open("wb") as stream:
        stream.write(buffer.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())  # after a power cut the file must not be there without its bytes


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint to the CPU; return None if there is none. Raises VisaError if it cannot be read."""
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise VisaError(f"the checkpoint {path} cannot be read: delete it to start anew.") from error
    return content
