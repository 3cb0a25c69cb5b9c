"""Fine-tuning on a few labelled images: settings, held-out share, balanced batches, augmentation, early stopping."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import affine_grid, grid_sample
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from visa.errors import VisaError, check_choice

Loss = Callable[[Tensor, Tensor], Tensor]  # logits and targets of N images to the loss of each, (N,)
_JUDGED = 32  # images at a time where no gradient is kept
PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class TwoClass:
    """How the classifier and the U-Net train; one set for all setups, backbones and objects.

    From the paper: cross-entropy for the classifier, focal loss for the U-Net. Its other settings were never
    published; what names no source below was chosen here, on training images of fryum that were held out.
    Raises VisaError for a setting that makes no sense.

    - `size`: height and width of the images, VisA's 2:3.
    - `batch_size`: half of it normal, half anomalous images.
    - `epochs`: over the training images, but never fewer than `min_steps` steps: ten images would get a handful.
    - `checks`: how often in all the held-out loss would be measured, were the first ones not left out.
    - `judged_from`: share of the steps before which no weights are kept and training does not stop. At first a
      U-Net finds nothing, which on a few images with small defects costs less than what it finds by halves later.
    - `patience`: checks in a row without a new best after which training stops.
    - `held_out`: share of each class's training images, at least one, that only stop the training.
    - `backbone_lr`, `head_lr`: highest rates of AdamW (Loshchilov & Hutter 2019) for the pre-trained and the new
      layers; they rise over the first tenth of the steps and fall as a cosine.
    - `weight_decay`: AdamW's.
    - `zoom`, `light`: largest change of scale and position, and of brightness and contrast, beside flips.
    - `focal_alpha`, `focal_gamma`: Lin et al. 2017, table 1b.
    - `decoder_width`: channels of the U-Net's finest level, twice as many at each coarser one.
    - `precision`: `auto` takes bfloat16 on a GPU that computes in it.
    """

    size: tuple[int, int] = (128, 192)
    batch_size: int = 8
    epochs: int = 10
    min_steps: int = 64
    checks: int = 16
    judged_from: float = 0.5
    patience: int = 4
    held_out: float = 0.2
    backbone_lr: float = 1e-3
    head_lr: float = 3e-3
    weight_decay: float = 0.01
    zoom: float = 0.1
    light: float = 0.1
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    decoder_width: int = 32
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)
        positive = ("epochs", "min_steps", "checks", "patience", "backbone_lr", "head_lr", "focal_alpha")
        if bad := [name for name in positive if not 0 < getattr(self, name) <= 1e6]:
            raise VisaError(f"the 2-class setting {bad[0]} is {getattr(self, bad[0])}: give a number above 0, to 1e6.")
        if bad := [name for name in ("judged_from", "held_out", "zoom", "light") if not 0 <= getattr(self, name) < 1]:
            raise VisaError(f"the 2-class setting {bad[0]} is {getattr(self, bad[0])}: give a share below 1.")
        if self.batch_size < 2 or not 32 <= min(self.size) <= max(self.size) <= 4096:
            raise VisaError("2-class training needs batches of 2 and sides of 32 to 4096.")
        if self.decoder_width not in range(8, 4097, 8):
            raise VisaError(f"the 2-class setting decoder_width is {self.decoder_width}: give 8, 16, ..., 4096.")


class Labelled(NamedTuple):
    """Training images uint8 N,3,H,W, their masks uint8 N,H,W in {0, 1}, and labels (N,), 1 for an anomaly."""

    images: Tensor
    masks: Tensor
    labels: Tensor

    def at(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Some of the images, in [0,1], and masks as float, on a device."""
        return self.images[index].to(device).float() / 255, self.masks[index].to(device).float()


def hold_out(labels: Tensor, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Indices to train on and indices to judge by: of each class `share`, at least one image (1 of 5, 2 of 10).

    labels: (N,), 1 for an anomaly. Raises VisaError for a class of fewer than two images.
    """
    train, judge = [], []
    for value, name in ((0, "normal"), (1, "anomalous")):
        of_class = (labels == value).nonzero()[:, 0]
        if len(of_class) < 2:
            raise VisaError(f"{len(of_class)} usable {name} training images: at least two are needed, one to judge by.")
        order = of_class[torch.randperm(len(of_class), generator=generator)]
        count = min(max(1, round(share * len(order))), len(order) - 1)
        judge.append(order[:count])
        train.append(order[count:])
    return torch.cat(train), torch.cat(judge)


def balanced_batches(labels: Tensor, size: int, steps: int, generator: Generator) -> Tensor:
    """Indices (steps, size), each row half normal, half anomalous; a class is used up before an image repeats.

    A weight in the loss would have the same mean, but some steps without a defect and others ruled by one image.
    """
    parts = []
    for value, count in ((0, size - size // 2), (1, size // 2)):
        of_class = (labels == value).nonzero()[:, 0]
        rounds = math.ceil(count * steps / len(of_class))
        order = torch.cat([of_class[torch.randperm(len(of_class), generator=generator)] for _ in range(rounds)])
        parts.append(order[: count * steps].view(steps, count))
    return torch.cat(parts, dim=1)


def augment(images: Tensor, masks: Tensor, zoom: float, light: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Flip, zoom and shift each image, N,3,H,W in [0,1], with its mask N,H,W; change its brightness and contrast.

    Drawn on the CPU, so that a seed means the same on every device, and computed where the images lie.
    """
    n = len(images)
    signed = (2 * torch.rand(n, 7, generator=generator) - 1).to(images.device)
    theta = images.new_zeros(n, 2, 3)
    theta[:, [0, 1], [0, 1]] = signed[:, :2].sign() * (1 + zoom * signed[:, 2:3])
    theta[:, :, 2] = zoom * signed[:, 3:5]
    grid = affine_grid(theta, [n, 1, *images.shape[2:]], align_corners=False)
    images = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    masks = grid_sample(masks[:, None], grid, mode="nearest", padding_mode="reflection", align_corners=False)[:, 0]
    contrast, brightness = (1 + light * signed[:, 5:, None, None, None]).unbind(1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean * brightness).clamp(0, 1), masks


def fine_tune(
    model: nn.Module, loss: Loss, data: Labelled, settings: TwoClass, seed: int = 0, progress: bool = False
) -> dict[int, float]:
    """Train `model` in place and leave it, in evaluation mode, with the weights of its lowest held-out loss.

    `model` maps images in [0,1] to logits and has a `backbone`; images are moved to its device batch by batch.
    Returns the held-out losses by the steps after which they were measured; each is the mean of the two classes'
    means, so that the rare class counts in full.
    Raises VisaError if a class has fewer than two images, or if the loss is no number.
    """
    generator = torch.Generator().manual_seed(seed)
    train, judge = hold_out(data.labels, settings.held_out, generator)
    steps = max(settings.min_steps, settings.epochs * math.ceil(len(train) / settings.batch_size))
    batches = train[balanced_batches(data.labels[train], settings.batch_size, steps, generator)]
    device = next(model.parameters()).device
    optimizer, schedule = _optimizer(model, settings, steps)
    every, losses, kept, best = max(1, steps // settings.checks), dict[int, float](), 0, {}
    for step, batch in enumerate(tqdm(batches, "fine-tuning", disable=not progress), start=1):
        images, masks = augment(*data.at(batch, device), settings.zoom, settings.light, generator)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(_losses(model.train(), loss, images, masks, settings.precision).mean())
        optimizer.step()
        schedule.step()
        if step < steps and (step % every or step < settings.judged_from * steps):
            continue
        losses[step] = _held_out_loss(model.eval(), loss, data, judge, settings.precision)
        if losses[step] == min(losses.values()):
            kept, best = step, {k: v.clone() for k, v in model.state_dict().items()}
        if step - kept >= settings.patience * every:
            break
    model.load_state_dict(best)
    return losses


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, precision: str, progress: bool = False) -> Tensor:
    """The model's logits, float32 on the CPU, of images uint8 N,3,H,W."""
    device = next(model.parameters()).device
    parts = tqdm(torch.split(images, _JUDGED), "scoring", disable=not progress)
    with autocast(model.eval(), precision):
        return torch.cat([model(part.to(device).float() / 255).float().cpu() for part in parts])


def _losses(model: nn.Module, loss: Loss, images: Tensor, masks: Tensor, precision: str) -> Tensor:
    """The loss of each image, (N,)."""
    with autocast(model, precision):
        logits = model(images)
    return loss(logits.float(), masks)


@torch.inference_mode()
def _held_out_loss(model: nn.Module, loss: Loss, data: Labelled, judge: Tensor, precision: str) -> float:
    device = next(model.parameters()).device
    parts = (data.at(part, device) for part in torch.split(judge, _JUDGED))
    each = torch.cat([_losses(model, loss, *part, precision).cpu() for part in parts])
    value = float(sum(each[data.labels[judge] == y].mean() for y in (0, 1)) / 2)
    if not math.isfinite(value):
        raise VisaError("the held-out loss is no number: training diverged; lower backbone_lr and head_lr.")
    return value


def _optimizer(model: nn.Module, settings: TwoClass, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    backbone = [p for name, p in model.named_parameters() if name.startswith("backbone.")]
    new = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": backbone, "lr": settings.backbone_lr}, {"params": new, "lr": settings.head_lr}]
    optimizer, warm_up = torch.optim.AdamW(groups, weight_decay=settings.weight_decay), max(1, steps // 10)
    return optimizer, LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warm_up) * (1 + math.cos(math.pi * step / steps)) / 2
    )


def autocast(model: nn.Module, precision: str) -> AbstractContextManager[None]:
    """torch's autocast to bfloat16 on the model's device, switched on as `precision` says (see TwoClass)."""
    device = next(model.parameters()).device
    auto = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=auto if precision == "auto" else precision != "32-true")
