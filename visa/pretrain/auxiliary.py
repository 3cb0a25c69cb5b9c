"""The SPD term alone, for given weights: the auxiliary classifier of the paper's supervised form, without its loss."""

from torch import Tensor, nn

from visa.errors import VisaError
from visa.pretrain.augment import Views
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdTerm, Terms

PUBLISHED: dict[str, object] = {}
"""Empty: the paper has this classifier only beside a supervised loss (section 3.2)."""

ADAPTATION = {"heads_lr": 3.0}  # chosen on fryum: book/results/protocol/tuning.csv


class Auxiliary(nn.Module):
    """A classifier on the backbone's features detects images that SmoothBlend has perturbed; nothing else is learned.

    Raises VisaError for settings without the SPD term.
    """

    second_view = False

    def __init__(self, backbone: nn.Module, settings: PretrainSettings, classes: int = 0) -> None:
        if not settings.spd:
            raise VisaError("the method 'auxiliary' is the SPD term alone: leave spd on.")
        super().__init__()
        self.backbone = backbone
        self.spd = SpdTerm(settings.spd, backbone)

    def forward(self, views: Views) -> Terms:
        """Return the loss terms; there is no base loss, and eta is not used."""
        base: Tensor = views.first.new_zeros(())
        terms = self.spd.add({"base": base}, self, views)
        return {**terms, "loss": terms["spd"]}
