"""The U-Net: its loss is the published one, its maps fit the images, and it finds what it was shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from visa.backbone import create_backbone
from visa.detect.finetune import Labelled
from visa.detect.two_class import TwoClass
from visa.detect.unet import UNet, fit_unet, focal_loss, score_unet
from visa.metrics import pixel_metrics

TINY = TwoClass(size=(48, 64), epochs=1, min_steps=30, checks=4, decoder_width=8, precision="32-true")


def toy(n, seed):
    """n normal images of noise, and n with a dark square."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(100, 156, (2 * n, 3, 48, 64), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(2 * n, 48, 64, dtype=torch.uint8)
    for i, (top, left) in enumerate(torch.randint(0, 28, (n, 2), generator=generator).tolist()):
        images[n + i, :, top : top + 20, left : left + 20] = 20
        masks[n + i, top : top + 20, left : left + 20] = 1
    return Labelled(images, masks, torch.tensor([0] * n + [1] * n))


def fitted(seed=0, **changes):
    return fit_unet(create_backbone("resnet18_half"), toy(10, 0), replace(TINY, **changes), seed)


def test_focal_loss_is_equation_5_averaged_over_each_image():
    logits, masks = torch.randn(3, 5, 7), torch.rand(3, 5, 7).round()
    p = torch.where(masks == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha = torch.where(masks == 1, 0.25, 0.75)
    expected = (-alpha * (1 - p) ** 2 * p.log()).mean((1, 2))
    torch.testing.assert_close(focal_loss(logits, masks), expected)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2))
    torch.testing.assert_close(focal_loss(logits, masks, alpha=0.5, gamma=0.0), plain / 2)


@pytest.mark.parametrize("arch", ["resnet18_half", "timm/test_efficientnet"])
def test_it_fits_every_backbone_and_image_size_and_expects_few_defects_at_first(arch):
    model = UNet(create_backbone(arch), 8)
    for size in ((64, 96), (50, 71)):
        logits = model(torch.rand(2, 3, *size))
        assert logits.shape == (2, *size)
        assert logits.sigmoid().mean() < 0.1
    logits.sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not [name for name in unused if not name.startswith("backbone.")]


def test_a_square_is_found_on_images_never_seen():
    new = toy(8, 1)
    scores, maps = score_unet(fitted(), new.images, (24, 32))
    assert maps.shape == (16, 24, 32)
    assert maps.dtype == scores.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))
    assert pixel_metrics(maps, new.masks[:, ::2, ::2].numpy())["auroc"] > 0.9
    np.testing.assert_array_equal(maps, maps.astype(np.float16))


def test_a_seed_gives_the_same_bits():
    maps = [score_unet(fitted(seed, min_steps=3, batch_size=4), toy(2, 1).images, (48, 64))[1] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])
