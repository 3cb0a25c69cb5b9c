"""Image classification: the whole backbone fine-tuned under a linear head, with binary cross-entropy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from visa.backbone import feature_width, normalize
from visa.detect.finetune import Labelled, fine_tune, predict
from visa.detect.two_class import TwoClass


class Classifier(nn.Module):
    """Images N,3,H,W in [0,1] to one logit each (N,): the backbone's pooled features and a linear layer."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        device = next(backbone.parameters()).device
        self.head = nn.Linear(feature_width(backbone), 1).to(
            device
        )  # drawn on the CPU: a seed means the same everywhere

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(self.backbone(normalize(images, self.backbone)))[:, 0]
        return logits


def fit_classifier(
    backbone: nn.Module, images: Tensor, labels: Tensor, settings: TwoClass, seed: int = 0, progress: bool = False
) -> Classifier:
    """A classifier on `backbone`, which it changes, from images uint8 N,3,H,W and labels (N,), 1 for an anomaly.

    Raises VisaError as `fine_tune`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(backbone).to(memory_format=torch.channels_last)
    whole = labels[:, None, None].expand(-1, *images.shape[2:])  # an image is defective everywhere, or nowhere
    fine_tune(model, _binary_cross_entropy, Labelled(images, whole, labels), settings, seed, progress)
    return model


def score_images(
    model: Classifier, images: Tensor, precision: str = "32-true", progress: bool = False
) -> NDArray[np.float32]:
    """Logits (N,) of images uint8 N,3,H,W; higher is more anomalous."""
    return predict(model, images, precision, progress).numpy()


def _binary_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, masks[:, 0, 0], reduction="none")
