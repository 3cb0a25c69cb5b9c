"""Supervised pre-training (He et al. 2016): classification of single views by cross-entropy."""

import math
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from visa.backbone import feature_width, load_classifier, normalize
from visa.errors import VisaError
from visa.pretrain.augment import View, Views
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdTerm, Terms

CROP_AND_FLIP = View((0.08, 1.0), (0.0, 0.0, 0.0, 0.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0, blur_sigma=(0.1, 1.0))
"""The view of He et al. 2016, section 3.4, with the crop of Szegedy et al. 2015."""

PUBLISHED = {"epochs": 90, "batch_size": 256, "base_lr": 0.1, "schedule": "steps", "weight_decay": 1e-4}
PUBLISHED |= {"strong": CROP_AND_FLIP}
"""On ImageNet (section 3.4: a tenth of the rate when the error plateaus, here at 30 and 60 of 90 epochs)."""

ADAPTATION = {"eta": 1.0}
"""Here the term is a cross-entropy, as is the base loss; the paper's 0.1 is for a difference of cosines."""


class Supervised(nn.Module):
    """Classification by cross-entropy; with SPD, together with its auxiliary classifier (paper, section 3.2).

    The classifier of given weights is kept if it has as many classes.
    Raises VisaError for fewer than two classes.
    """

    second_view = False

    def __init__(self, backbone: nn.Module, settings: PretrainSettings, classes: int) -> None:
        if classes < 2:
            raise VisaError(f"supervised pre-training needs 2 classes or more, not {classes}.")
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(feature_width(backbone), classes)
        if settings.weights:
            load_classifier(self.classifier, Path(settings.weights))
        self.chance = math.log(classes)
        self.spd = SpdTerm(settings.spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled features of images N,3,S,S in [0,1]; there is no projection head."""
        features: Tensor = self.backbone(normalize(images, self.backbone))
        return features.float()

    def forward(self, views: Views) -> Terms:
        """Return the loss terms, and the share of right answers."""
        logits = self.classifier(self.embed(views.first)).float()
        base = F.cross_entropy(logits, views.labels)
        accuracy = (logits.detach().argmax(1) == views.labels).float().mean()
        return self.spd.add({"base": base, "accuracy": accuracy}, self, views)
