"""Image classification: the whole backbone fine-tuned under a linear head, with binary cross-entropy."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from visa.backbone import feature_width, normalize
from visa.data.setups import Split
from visa.detect.finetune import TwoClass, fine_tune, predict, training_facts
from visa.detect.shared import Context, is_anomaly

_FITTED = 0.9  # a training fails if its AP on its own training images is lower


def score_split(context: Context, split: Split) -> tuple[NDArray[np.float32], None]:
    """Fine-tune on a split's training images and score its test images: logits (N,)."""
    chosen, labels = context.settings.two_class, torch.from_numpy(is_anomaly(split.train))
    images = context.images(split.train, chosen.size)
    backbone = copy.deepcopy(context.backbone)
    model, losses = fit_classifier(backbone, images, labels, chosen, context.settings.seed, context.progress)
    context.facts["training"] = training_facts(losses, predict(model, images, chosen.precision), labels, _FITTED)
    test = context.images(split.test, chosen.size)
    return predict(model, test, chosen.precision, context.progress).numpy(), None


class Classifier(nn.Module):
    """Map images N,3,H,W in [0,1] to one logit each (N,), by the backbone's pooled features and a linear layer."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(feature_width(backbone), 1)  # on the CPU: a seed draws the same weights everywhere
        self.head.to(next(backbone.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(self.backbone(normalize(images, self.backbone)))[:, 0]
        return logits


def fit_classifier(
    backbone: nn.Module, images: Tensor, labels: Tensor, settings: TwoClass, seed: int = 0, progress: bool = False
) -> tuple[Classifier, list[float]]:
    """Train a classifier on `backbone`, in place, with binary cross-entropy; return it and the loss of each step.

    images: uint8 N,3,H,W; labels: (N,), 1 for an anomaly. Raises VisaError as `fine_tune`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(backbone).to(memory_format=torch.channels_last)
    return model, fine_tune(model, binary_cross_entropy_with_logits, images, labels, settings, seed, progress)
