"""Fine-tuning on labelled images by the recipe of the paper's authors: settings, training, and whether it succeeded."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from visa.errors import VisaError, check_choice
from visa.metrics import image_metrics

Loss = Callable[[Tensor, Tensor], Any]  # from logits and targets of N images to their mean loss
_JUDGED = 32  # images per batch in inference
PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class TwoClass:
    """The authors' recipe for the classifier and the U-Net; one set for all setups, backbones and objects.

    From the paper: cross-entropy for the classifier, focal loss for the U-Net. From an author's reply of February 2023
    (issue #8 of amazon-science/spot-diff on GitHub): the U-Net of segmentation_models_pytorch, a horizontal flip with
    probability 0.5 and no other augmentation, lest it favour some kinds of defects, batches of 8, focal loss against
    the imbalance, and images of 800 x 800 where possible. Not published, and chosen here by
    the fit to training images: optimiser, learning rate and its schedule, length of training, and the focal loss's
    parameters. Images are smaller here, for CPUs. Nothing is held out: training has a fixed length, and the last
    weights are kept. Raises VisaError for a value out of range.

    - `size`: height and width of the images, here VisA's 2:3; the authors' is (800, 800).
    - `batch_size`: images per step, drawn from the shuffled training images without balancing classes; at least 2.
    - `flip`: probability that an image is mirrored from left to right.
    - `epochs`: passes over the training images, but at least `min_steps` steps, which matters for ten images.
    - `lr`: peak learning rate of AdamW (Loshchilov & Hutter 2019), with linear warm-up over the first tenth of the
      steps and cosine decay.
    - `weight_decay`: AdamW's.
    - `focal_alpha`, `focal_gamma`: Lin et al. 2017, table 1b.
    - `precision`: one of PRECISIONS; `auto` is bfloat16 on a GPU that supports it, else float32.
    """

    size: tuple[int, int] = (128, 192)
    batch_size: int = 8
    flip: float = 0.5
    epochs: int = 10
    min_steps: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.01
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)
        if bad := [x for x in ("epochs", "min_steps", "lr", "focal_alpha") if not 0 < getattr(self, x) <= 1e6]:
            raise VisaError(f"the 2-class setting {bad[0]} is {getattr(self, bad[0])}: give a number above 0, to 1e6.")
        if self.batch_size < 2 or not 32 <= min(self.size) <= max(self.size) <= 4096 or not 0 <= self.flip <= 1:
            raise VisaError("2-class training needs batches of 2 or more, sides of 32 to 4096, and `flip` from 0 to 1.")


def fine_tune(
    model: nn.Module,
    loss: Loss,
    images: Tensor,
    targets: Tensor,
    settings: TwoClass,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train `model`, which maps images in [0,1] to logits, in place; return the loss of each step.

    images: uint8 N,3,H,W; targets: labels (N,) or masks (N, H, W) in {0, 1}. Each batch is moved to the model's
    device. Raises VisaError if a class has no image, or if the loss is not finite.
    """
    anomalous = targets.flatten(1).any(1) if targets.ndim > 1 else targets > 0
    if anomalous.all() or not anomalous.any():
        name = "normal" if len(targets) and anomalous.all() else "anomalous"
        raise VisaError(f"0 usable {name} training images: the 2-class networks learn from both kinds.")
    generator, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
    count, size = len(images), settings.batch_size
    steps = max(settings.min_steps, settings.epochs * math.ceil(count / size))
    rounds = [torch.randperm(count, generator=generator) for _ in range(math.ceil(steps * size / count))]
    flips = torch.rand(steps, size, generator=generator) < settings.flip
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=settings.weight_decay)
    schedule, losses = LambdaLR(optimizer, lambda step: _rate(step, steps)), []
    batches = zip(torch.cat(rounds)[: steps * size].view(steps, size), flips, strict=True)
    for batch, flip in tqdm(batches, "fine-tuning", steps, disable=not progress):
        x, y = (_flipped(part[batch], flip).to(device).float() for part in (images, targets))
        with autocast(model.train(), settings.precision):
            logits = model(x / 255)
        value = loss(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        optimizer.step()
        schedule.step()
        losses.append(value.detach())
    curve: list[float] = torch.stack(losses).tolist()
    if not all(map(math.isfinite, curve)):
        raise VisaError("the training loss is not finite: training diverged; lower `lr`.")
    return curve


def training_facts(losses: Sequence[float], logits: Tensor, targets: Tensor, fitted: float) -> dict[str, Any]:
    """Return what is recorded of a training: the loss of each step, AP on its own images, and whether it `failed`.

    A network that does not fit its own training images (AP below `fitted`) says nothing about its backbone.
    """
    ap = image_metrics(logits.flatten().numpy(), targets.flatten().numpy())["ap"]
    return {"ap": ap, "fitted": fitted, "failed": ap < fitted, "losses": [float(f"{x:.5g}") for x in losses]}


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, precision: str, progress: bool = False) -> Tensor:
    """Return the model's logits, float32 on the CPU, of images uint8 N,3,H,W."""
    device = next(model.parameters()).device
    parts = tqdm(torch.split(images, _JUDGED), "scoring", disable=not progress)
    with autocast(model.eval(), precision):
        return torch.cat([model(part.to(device).float() / 255).float().cpu() for part in parts])


def autocast(model: nn.Module, precision: str) -> AbstractContextManager[None]:
    """Return torch's autocast to bfloat16 on the model's device, enabled according to `precision` (see TwoClass)."""
    device = next(model.parameters()).device
    auto = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=auto if precision == "auto" else precision != "32-true")


def _flipped(x: Tensor, flip: Tensor) -> Tensor:
    """Mirror images or masks N,...,H,W from left to right where `flip` (N,) is true; labels (N,) stay unchanged."""
    return x if x.ndim == 1 else torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1, steps // 10)) * (1 + math.cos(math.pi * step / steps)) / 2
