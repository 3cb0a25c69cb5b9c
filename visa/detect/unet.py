"""Segmentation with segmentation_models_pytorch's U-Net, whose encoder is a pre-trained backbone."""

import copy
import math
from typing import Any

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import sigmoid_focal_loss

from visa.backbone import STAGES, STEM, looked_at, normalize, stage_maps
from visa.data.dataset import is_known, load_masks
from visa.data.setups import Split
from visa.detect.finetune import TwoClass, fine_tune, predict, training_facts
from visa.detect.shared import Context, Scored

_CHANNELS = (256, 128, 64, 32, 16)  # of the decoder's levels: the library's default
_RARE = 0.01  # probability of a defect that the last layer starts from (Lin et al. 2017, section 3.3)
_FITTED = 0.5  # a training fails if its pixel AP on its own training anomalies is lower


def score_split(context: Context, split: Split) -> Scored:
    """Train a U-Net on a split's images whose mask is known and score its test images: (N,) and probability maps."""
    chosen = context.settings.two_class
    train = [sample for sample in split.train if is_known(sample)]
    if unusable := len(split.train) - len(train):
        print(f"{split.object}, {split.setup}: {unusable} anomalies without a mask do not train the U-Net.")
    images, masks = context.images(train, chosen.size), load_masks(context.root, train, chosen.size)[0]
    backbone = copy.deepcopy(context.backbone)
    model, losses = fit_unet(backbone, images, masks, chosen, context.settings.seed, context.progress)
    shown = masks.amax((1, 2)) > 0
    logits = predict(model, images[shown], chosen.precision)
    context.facts["training"] = training_facts(losses, logits, masks[shown], _FITTED)
    images = context.images(split.test, chosen.size)
    return score_unet(model, images, context.size, chosen.precision, context.progress)


class UNet(nn.Module):
    """Map images N,3,H,W in [0,1] to one logit per pixel, N,H,W: `segmentation_models_pytorch.Unet` on a backbone.

    The library's decoder and head, with default settings, take the backbone's own maps of stride 2 to 32, so that no
    weights are copied, renamed or lost. A model without a map of stride 2 has no skip connection there, as in the
    library's own encoders.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.eval()
        channels = [x.shape[1] for x in looked_at(backbone, self._pyramid)]
        self.decoder = UnetDecoder(channels, _CHANNELS)
        self.head = SegmentationHead(_CHANNELS[-1], 1)
        initialize_decoder(self.decoder)
        initialize_head(self.head)
        nn.init.constant_(self.head[0].bias, -math.log((1 - _RARE) / _RARE))
        self.to(next(backbone.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(self.decoder(self._pyramid(normalize(images, self.backbone))))
        return logits[:, 0]

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        """Return the normalised images and their maps of stride 2, 4, 8, 16 and 32."""
        maps = stage_maps(self.backbone, x, (STEM, *STAGES))
        height, width = (side // 2 for side in x.shape[2:])
        return [x, maps.get(STEM, x.new_empty(len(x), 0, height, width)), *(maps[stage] for stage in STAGES)]


def fit_unet(
    backbone: nn.Module, images: Tensor, masks: Tensor, settings: TwoClass, seed: int = 0, progress: bool = False
) -> tuple[UNet, list[float]]:
    """Train a U-Net on `backbone`, in place, with focal loss (Lin et al. 2017, equation 5); return it and its losses.

    images: uint8 N,3,H,W; masks: (N, H, W) in {0, 1}. Raises VisaError as `fine_tune`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UNet(backbone).to(memory_format=torch.channels_last)

    def loss(logits: Tensor, masks: Tensor) -> Any:
        return sigmoid_focal_loss(logits, masks, settings.focal_alpha, settings.focal_gamma, reduction="mean")

    return model, fine_tune(model, loss, images, masks, settings, seed, progress)


def score_unet(
    model: UNet, images: Tensor, size: tuple[int, int], precision: str = "32-true", progress: bool = False
) -> Scored:
    """Return image scores (N,) and maps (N, height, width) of `size`, float32, of images uint8 N,3,H,W.

    The map is the probability of a defect, resized bilinearly and rounded to half precision, which halves its size on
    disk. The image score is the map's maximum, as in PaDiM (section 3.3): SPD's paper defines none.
    """
    logits = predict(model, images, precision, progress)
    parts = [interpolate(part[:, None].sigmoid(), size=size, mode="bilinear") for part in torch.split(logits, 64)]
    maps = torch.cat(parts)[:, 0].half().float()
    return maps.amax((1, 2)).numpy(), maps.numpy()
