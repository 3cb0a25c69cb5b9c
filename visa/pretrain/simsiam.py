"""SimSiam (Chen & He 2021): two strong views of an image predict each other, with a stop-gradient on the target."""

from torch import Tensor, nn

from visa.backbone import feature_width, normalize, zero_init_residual
from visa.pretrain.augment import Views
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdTerm, Terms, cosine, feature_std

PUBLISHED = {"epochs": 100, "batch_size": 512, "base_lr": 0.05, "weight_decay": 1e-4}
"""On ImageNet (Chen & He 2021, section 4: batch 512, no warm-up)."""


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """SimSiam's D(p, stopgrad(z)) of predictions and projections N,D, in [-1,1] (its paper's equations 1 and 3)."""
    return -cosine(p, z.detach()).mean()


def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """The symmetric loss D(p1, stopgrad(z2))/2 + D(p2, stopgrad(z1))/2 in [-1,1] (its paper's equation 4)."""
    return (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2


class SimSiam(nn.Module):
    """SimSiam, with the SPD term where the settings have one.

    Projector: three layers of 2048 with batch norm, the last without affine parameters. Predictor: 2048-512-2048
    (section 3). Residual branches of random weights begin at zero (appendix A).
    """

    chance, best = 0.0, -1.0

    def __init__(
        self, backbone: nn.Module, settings: PretrainSettings, classes: int = 0, width: int = 2048, hidden: int = 512
    ) -> None:
        super().__init__()
        if not settings.weights:
            zero_init_residual(backbone)
        self.backbone = backbone
        self.projector = nn.Sequential(
            *_layer(feature_width(backbone), width),
            *_layer(width, width),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        self.predictor = nn.Sequential(*_layer(width, hidden), nn.Linear(hidden, width))
        self.spd = SpdTerm(settings.spd, backbone)

    def embed(self, images: Tensor) -> Tensor:
        """Return the projection z, N,2048, of images N,3,S,S in [0,1]."""
        z: Tensor = self.projector(self.backbone(normalize(images, self.backbone)))
        return z.float()

    def forward(self, views: Views) -> Terms:
        """Return the loss terms; `feature_std` of z is 1 where healthy and 0 where collapsed."""
        assert views.second is not None
        z1, z2 = self.embed(views.first), self.embed(views.second)
        base = simsiam_loss(self.predictor(z1).float(), self.predictor(z2).float(), z1, z2)
        return self.spd.add({"base": base, "feature_std": feature_std(z1)}, self, views)


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)
