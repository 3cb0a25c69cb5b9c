"""One training step, and how a device runs it: precision, memory format, compilation, threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from visa.errors import check_choice
from visa.pretrain.augment import Draws
from visa.pretrain.batch_norm import sync_batch_norm
from visa.pretrain.feed import seeded
from visa.pretrain.input.loader import Batch
from visa.pretrain.optim import build_optimizer, set_lr
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.views import Views, draw_views

PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class Speed:
    """How a device runs the steps; it changes results by rounding alone.

    `precision`: float32, or bfloat16 by autocast where torch holds it safe; `channels_last`: memory format of the
    weights, which activations follow; `compile`: torch.compile of the backbones; `threads`: of the CPU, 0 leaves them.
    Raises VisaError for a precision not in PRECISIONS.
    """

    precision: str = "32-true"
    channels_last: bool = False
    compile: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set what torch keeps for the whole process, and put it back at the end."""
        threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
        torch.set_num_threads(self.threads or threads)
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark


def default_speed(device: torch.device, precision: str | None = None) -> Speed:
    """What is usually fastest: bfloat16 (where the GPU computes in it) and channels_last on CUDA, else float32.

    `precision` takes the place of that choice.
    """
    if device.type != "cuda":
        return Speed(precision or "32-true")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Speed(precision or ("bf16-mixed" if bf16 else "32-true"), channels_last=True)


class Step:
    """A training step of `method` on this process's part of a global batch."""

    def __init__(self, method: nn.Module, settings: PretrainSettings, fabric: Fabric, speed: Speed) -> None:
        if fabric.world_size > 1 and getattr(method, "syncs_batch_norm", True):
            method = sync_batch_norm(method, fabric.device)
        if speed.channels_last:
            method = method.to(memory_format=torch.channels_last)
        if speed.compile:
            for name, part in method.named_children():
                if name in ("backbone", "key_backbone"):
                    part.compile(dynamic=False)  # two or three batch sizes, each fixed
        self.method, self.settings, self.fabric, self.speed = method.train(), settings, fabric, speed
        self.optimizer = build_optimizer(method, settings)
        self.model = fabric.setup_module(method)

    def __call__(self, batch: Batch, step: int, epoch: float) -> tuple[float, dict[str, Tensor]]:
        """Train on uint8 images that lie on the device; returns the learning rate and the loss terms, unsynced."""
        rate = set_lr(self.optimizer, self.settings, epoch)
        views = self.draw(batch, step)
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=self.speed.precision == "bf16-mixed"):
            terms = self.model(views)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(terms["loss"])
        self.optimizer.step()
        return rate, {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def draw(self, batch: Batch, step: int) -> Views:
        """This part's views: they depend on seed, step and image, not on the number of processes."""
        images = batch.images
        if images.is_cpu:  # its views are made of bytes, and quicker where colours lie side by side
            images = images.contiguous(memory_format=torch.channels_last)
        else:
            images = images.contiguous().float() / 255
        generator = seeded(self.settings.seed, "views", step, images.device)
        draws = Draws(generator, self.fabric.global_rank, self.fabric.world_size)
        two, s = self.settings.method != "supervised", self.settings
        return draw_views(images, batch.labels, s.image_size, s.strong, two, s.spd, draws)
