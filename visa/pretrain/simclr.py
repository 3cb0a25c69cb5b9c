"""SimCLR (Chen et al. 2020): contrast an image's two strong views with the views of all other images of the batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visa.backbone import feature_width, normalize, zero_init_residual
from visa.pretrain.augment import View, Views
from visa.pretrain.fabric import gathered
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdTerm, Terms, feature_std

SIMCLR_STRONG = View((0.08, 1.0), (0.8, 0.8, 0.8, 0.2), jitter_p=0.8, grey_p=0.2, blur_p=0.5, blur_sigma=(0.1, 2.0))
"""SimCLR's view: a stronger crop and twice the colour jitter (appendix A)."""

PUBLISHED = {"epochs": 100, "batch_size": 4096, "base_lr": 0.3, "optimizer": "lars", "weight_decay": 1e-6}
PUBLISHED |= {"warmup_epochs": 10.0, "temperature": 0.1, "strong": SIMCLR_STRONG}
"""On ImageNet (section 2.3: LARS, 0.3 * batch / 256, ten epochs of warm-up)."""


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """SimCLR's normalised temperature-scaled cross-entropy (its paper's equation 1), a mean of at least 0.

    Row i of z1 and of z2, N,D, are views of one image; each of the 2N embeddings has one positive and 2N - 2 negatives.
    Computed in float32, because division by a small temperature would magnify bfloat16's rounding of a cosine.
    """
    with torch.autocast("cpu" if z1.is_meta else z1.device.type, enabled=False):
        z = F.normalize(torch.cat([z1, z2]).float(), dim=1)
        logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
        return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z1)))


class SimCLR(nn.Module):
    """SimCLR, with the SPD term where the settings have one.

    Projector: two layers, hidden as wide as the features, output 128, both with batch norm, the last without its shift
    (section 2.1 and the authors' released code). Residual branches of random weights start at zero, as in that code.
    """

    def __init__(self, backbone: nn.Module, settings: PretrainSettings, classes: int = 0, dim: int = 128) -> None:
        super().__init__()
        if not settings.weights:
            zero_init_residual(backbone)
        self.temperature, self.chance = settings.temperature, math.log(2 * settings.batch_size - 1)
        width = feature_width(backbone)
        self.backbone = backbone
        hidden = nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)
        last = nn.Linear(width, dim, bias=False), nn.BatchNorm1d(dim)
        last[1].bias.requires_grad_(False)
        self.projector = nn.Sequential(*hidden, *last)
        self.spd = SpdTerm(settings.spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """Return the projection z, N,128, of images N,3,S,S in [0,1]."""
        z: Tensor = self.projector(self.backbone(normalize(images, self.backbone)))
        return z.float()

    def forward(self, views: Views) -> Terms:
        """Return the loss terms; the negatives of an image are the other images of all processes."""
        assert views.second is not None
        z1, z2 = self.embed(torch.cat([views.first, views.second])).chunk(2)  # one batch, as in the released code
        base = nt_xent(gathered(z1), gathered(z2), self.temperature)
        return self.spd.add({"base": base, "feature_std": feature_std(z1)}, self, views)
