"""Segmentation with a U-Net (Ronneberger et al. 2015) whose encoder is a pre-trained backbone."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import sigmoid_focal_loss

from visa.backbone import STAGES, normalize, stage_maps
from visa.data.dataset import is_known, load_masks
from visa.data.setups import Split
from visa.detect.finetune import Labelled, TwoClass, fine_tune, predict
from visa.detect.shared import Context, Scored, is_anomaly

_RARE = 0.01  # probability of a defect that the last layer starts from (Lin et al. 2017, section 3.3)
_GROUPS = 8


def score_split(context: Context, split: Split) -> Scored:
    """Train a U-Net on a split's images whose mask is known and score its test images: (N,) and probability maps."""
    chosen = context.settings.two_class
    train = [sample for sample in split.train if is_known(sample)]
    if unusable := len(split.train) - len(train):
        print(f"{split.object}, {split.setup}: {unusable} anomalies without a mask do not train the U-Net.")
    masks, _ = load_masks(context.root, train, chosen.size)
    data = Labelled(context.images(train, chosen.size), masks, torch.from_numpy(is_anomaly(train)).long())
    model = fit_unet(copy.deepcopy(context.backbone), data, chosen, context.settings.seed, context.progress)
    images = context.images(split.test, chosen.size)
    return score_unet(model, images, context.size, chosen.precision, context.progress)


class UNet(nn.Module):
    """Images N,3,H,W in [0,1] to a logit a pixel, N,H,W.

    From the backbone's coarsest stage up to its finest, of a quarter of the size: at each level the map is enlarged,
    joined with the stage of that size and passed through two convolutions; the last level's logits are enlarged to the
    image's size. `width`: channels of the finest level, twice as many at each coarser one. The new layers normalise in
    groups (Wu & He 2018), which no batch is too small for.
    """

    def __init__(self, backbone: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.backbone = backbone
        device = next(backbone.parameters()).device
        with torch.no_grad():
            maps = stage_maps(backbone.eval(), torch.zeros(1, 3, 64, 64, device=device), STAGES)
        *skips, channels = (maps[stage].shape[1] for stage in STAGES)
        self.levels = nn.ModuleList()
        for i, skip in reversed(list(enumerate(skips))):
            out = width << i
            self.levels.append(nn.Sequential(*_convolution(channels + skip, out), *_convolution(out, out)))
            channels = out
        self.logits = nn.Conv2d(channels, 1, 1)
        self.logits.bias = nn.Parameter(torch.full((1,), -math.log((1 - _RARE) / _RARE)))
        self.to(device)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        stages = stage_maps(self.backbone, normalize(images, self.backbone), STAGES)
        x = stages[STAGES[-1]]
        for level, stage in zip(self.levels, STAGES[-2::-1], strict=True):
            skip = stages[stage]
            x = level(torch.cat([interpolate(x, size=skip.shape[2:]), skip], dim=1))
        return interpolate(self.logits(x).float(), size=images.shape[2:], mode="bilinear")[:, 0]


def _convolution(channels: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, out), nn.ReLU(inplace=True)


def focal_loss(logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017, equation 5) of logits and masks N,H,W, its mean over each image's pixels: (N,)."""
    loss: Tensor = sigmoid_focal_loss(logits, masks, alpha, gamma)
    return loss.mean((1, 2))


def fit_unet(backbone: nn.Module, data: Labelled, settings: TwoClass, seed: int = 0, progress: bool = False) -> UNet:
    """A U-Net on `backbone`, which it changes, trained with focal loss; raises VisaError as `fine_tune`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UNet(backbone, settings.decoder_width).to(memory_format=torch.channels_last)

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        return focal_loss(logits, masks, settings.focal_alpha, settings.focal_gamma)

    fine_tune(model, loss, data, settings, seed, progress)
    return model


def score_unet(
    model: UNet, images: Tensor, size: tuple[int, int], precision: str = "32-true", progress: bool = False
) -> Scored:
    """Image scores (N,) and maps (N, height, width) of `size`, float32, of images uint8 N,3,H,W.

    The map is the probability of a defect, enlarged (or reduced) bilinearly and rounded to half precision, in which it
    takes half the room on disk. The image score is its maximum, as PaDiM's (section 3.3): the paper names none.
    """
    logits = predict(model, images, precision, progress)
    parts = [interpolate(part[:, None].sigmoid(), size=size, mode="bilinear") for part in torch.split(logits, 64)]
    maps = torch.cat(parts)[:, 0].half().float()
    return maps.amax((1, 2)).numpy(), maps.numpy()
