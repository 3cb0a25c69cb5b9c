"""The settings of the two methods that learn from defects: fine-tuned classifier and U-Net."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from visa.backbone import cpu_computes_in_bf16
from visa.errors import VisaError, check_choice

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
    - `freeze_batch_norm`: the backbone's batch norms keep the statistics of pre-training and learn only scale and
      shift. Against the doubt whether a batch of eight says enough, new statistics were better from 20 images on.
    - `zoom`, `light`: largest change of scale and position, and of brightness and contrast, beside flips.
    - `focal_alpha`, `focal_gamma`: Lin et al. 2017, table 1b.
    - `decoder_width`: channels of the U-Net's finest level, twice as many at each coarser one.
    - `precision`: `auto` takes bfloat16 where the device computes in it, except for depthwise convolutions on a
      CPU.
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
    freeze_batch_norm: bool = False
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
        if self.batch_size < 2 or not 32 <= min(self.size) <= max(self.size) <= 4096 or self.decoder_width % 8:
            raise VisaError("2-class training needs batches of 2, sides of 32 to 4096, a decoder width in eights.")
        if not 8 <= self.decoder_width <= 4096:
            raise VisaError(f"the 2-class setting decoder_width is {self.decoder_width}: give 8 to 4096.")


def autocast(model: nn.Module, precision: str) -> AbstractContextManager[None]:
    """torch's autocast to bfloat16 on the model's device, switched on as `precision` says (see TwoClass)."""
    device = next(model.parameters()).device
    on = precision == "bf16-mixed" or (precision == "auto" and _bf16_pays(model, device))
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


def _bf16_pays(model: nn.Module, device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Measured: half the time of float32 for a ResNet, but 1.4 times it for training EfficientNet-Lite0.
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules())
    return device.type == "cpu" and not depthwise and cpu_computes_in_bf16()
