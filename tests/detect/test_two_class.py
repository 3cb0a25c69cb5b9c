"""The classifier and the U-Net find what they were shown on new images, and the same from the same seed."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from visa.backbone import create_backbone
from visa.detect.classifier import fit_classifier
from visa.detect.finetune import Labelled, TwoClass, predict
from visa.detect.unet import UNet, fit_unet, focal_loss, score_unet
from visa.metrics import image_metrics, pixel_metrics

TINY = TwoClass(size=(32, 48), epochs=1, min_steps=24, checks=4, decoder_width=8, precision="32-true")


def toy(n, seed):
    """n normal images of noise, and n with a dark square."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(100, 156, (2 * n, 3, 32, 48), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(2 * n, 32, 48, dtype=torch.uint8)
    for i, (top, left) in enumerate(torch.randint(0, 16, (n, 2), generator=generator).tolist()):
        images[n + i, :, top : top + 16, left : left + 16] = 20
        masks[n + i, top : top + 16, left : left + 16] = 1
    return Labelled(images, masks, torch.tensor([0] * n + [1] * n))


def fitted_classifier(arch="resnet18_half", seed=0, **changes):
    data = toy(10, 0)
    return fit_classifier(create_backbone(arch), data.images, data.labels, replace(TINY, **changes), seed)


def fitted_unet(seed=0, **changes):
    return fit_unet(create_backbone("resnet18_half"), toy(10, 0), replace(TINY, **changes), seed)


@pytest.mark.slow
def test_the_classifier_finds_a_square_on_images_never_seen():
    model, new = fitted_classifier(), toy(20, 1)
    scores = predict(model, new.images, "32-true")
    assert image_metrics(scores.numpy(), new.labels.numpy())["auroc"] > 0.9
    assert scores.shape == (40,)
    torch.testing.assert_close(predict(model, new.images[:3], "32-true"), scores[:3], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_u_net_finds_a_square_on_images_never_seen():
    new = toy(8, 1)
    scores, maps = score_unet(fitted_unet(min_steps=40), new.images, (16, 24))
    assert maps.shape == (16, 16, 24)
    assert maps.dtype == scores.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))
    assert pixel_metrics(maps, new.masks[:, ::2, ::2].numpy())["auroc"] > 0.9
    np.testing.assert_array_equal(maps, maps.astype(np.float16))


@pytest.mark.parametrize("fit", [fitted_classifier, partial(fitted_classifier, "timm/test_efficientnet"), fitted_unet])
def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(fit):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    logits = [predict(fit(seed=seed, min_steps=3, batch_size=4), toy(2, 1).images, "32-true") for seed in (0, 0, 1)]
    assert torch.rand(1).equal(expected)
    assert logits[0].equal(logits[1])
    assert not logits[0].equal(logits[2])


def test_focal_loss_is_equation_5_averaged_over_each_image():
    logits, masks = torch.randn(3, 5, 7), torch.rand(3, 5, 7).round()
    p = torch.where(masks == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha = torch.where(masks == 1, 0.25, 0.75)
    expected = (-alpha * (1 - p) ** 2 * p.log()).mean((1, 2))
    torch.testing.assert_close(focal_loss(logits, masks), expected)


@pytest.mark.parametrize("arch", ["resnet18_half", "timm/test_efficientnet"])
def test_the_u_net_fits_every_backbone_and_image_size_and_expects_few_defects_at_first(arch):
    model = UNet(create_backbone(arch), 8)
    for size in ((64, 96), (50, 71)):
        logits = model(torch.rand(2, 3, *size))
        assert logits.shape == (2, *size)
        assert logits.sigmoid().mean() < 0.1
    logits.sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not [name for name in unused if not name.startswith("backbone.")]
