"""Fine-tuning: who trains and judges, which weights remain, and what classifier and U-Net find on new images."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from visa.backbone import create_backbone
from visa.detect.classifier import fit_classifier
from visa.detect.finetune import Labelled, TwoClass, augment, balanced_batches, fine_tune, hold_out, predict
from visa.detect.unet import UNet, fit_unet, focal_loss, score_unet
from visa.errors import VisaError
from visa.metrics import image_metrics, pixel_metrics

TINY = TwoClass(size=(32, 48), epochs=1, min_steps=24, checks=4, decoder_width=8, precision="32-true")
LINEAR = replace(TINY, batch_size=4, min_steps=40, checks=40)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(normal=10, anomaly=10, seed=0):
    """Normal images of noise, anomalous ones with a dark square, and its mask."""
    images = torch.randint(100, 156, (normal + anomaly, 3, 32, 48), generator=seeded(seed), dtype=torch.uint8)
    masks = torch.zeros(normal + anomaly, 32, 48, dtype=torch.uint8)
    places = torch.randint(0, 16, (anomaly, 2), generator=seeded(seed + 1000)).tolist()
    for image, mask, (top, left) in zip(images[normal:], masks[normal:], places, strict=True):
        image[:, top : top + 16, left : left + 16] = 20
        mask[top : top + 16, left : left + 16] = 1
    return Labelled(images, masks, torch.tensor([0] * normal + [1] * anomaly))


class Linear(nn.Module):
    """A logit for each image from its pixels' mean and deviation."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Identity()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        features = torch.stack([torch.ones(len(x)), x.mean((1, 2, 3)), x.std((1, 2, 3))], dim=1)
        return self.backbone(features) @ self.weight


def squared(logits, masks):
    return (logits - masks.amax((1, 2))) ** 2


def test_each_class_gives_a_share_of_its_images_at_least_one():
    labels = torch.tensor([0, 1] * 5 + [0] * 25)
    train, judge = hold_out(labels, 0.2, seeded())
    assert sorted([*train.tolist(), *judge.tolist()]) == list(range(35))
    assert labels[judge].tolist() == [0] * 6 + [1]
    for share in (0.0, 0.9):
        assert [len(part) for part in hold_out(torch.tensor([0, 0, 1, 1]), share, seeded())] == [2, 2]
    with pytest.raises(VisaError, match="1 usable anomalous training images"):
        hold_out(torch.tensor([0, 0, 0, 1]), 0.2, seeded())


def test_every_batch_is_half_anomalous_and_a_class_is_used_up_before_it_repeats():
    labels = torch.tensor([0] * 9 + [1] * 3)
    batches = balanced_batches(labels, 6, 6, seeded())
    assert batches.shape == (6, 6)
    assert (labels[batches].sum(1) == 3).all()
    assert batches[labels[batches] == 1].bincount()[9:].tolist() == [6, 6, 6]
    assert batches[labels[batches] == 0].bincount().tolist() == [2] * 9
    assert sorted(batches[:3][labels[batches[:3]] == 0].tolist()) == list(range(9))


def test_augmentation_moves_the_mask_with_its_image():
    masks = data().masks[10:].float()
    images = masks[:, None].expand(-1, 3, -1, -1)
    moved, moved_masks = augment(images, masks, 0.2, 0.0, seeded())
    assert not moved_masks.equal(masks)
    assert ((moved[:, 0] > 0.5) == (moved_masks > 0.5)).float().mean() > 0.98
    assert set(moved_masks.unique().tolist()) <= {0, 1}
    flips = [masks, masks.flip(1), masks.flip(2), masks.flip(1, 2)]
    flipped = augment(images, masks, 0.0, 0.0, seeded())[1]
    found = {next(k for k, f in enumerate(flips) if f[i].equal(flipped[i])) for i in range(len(masks))}
    assert len(found) > 1, "each image is flipped in its own way"


def test_the_weights_of_the_lowest_held_out_loss_remain():
    """Training drives the logit up for ever; the images that judge want it at 0.03."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Identity()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return self.backbone(self.weight).expand(len(x))

    def loss(logits, masks):
        return -logits if torch.is_grad_enabled() else (logits - 0.03) ** 2

    model = One()
    settings = replace(LINEAR, judged_from=0, weight_decay=0)
    losses = list(fine_tune(model, loss, data(), settings).values())
    best = losses.index(min(losses))
    assert 0 < best == len(losses) - 1 - settings.patience, "training stopped when it got no better"
    assert (model.weight.item() - 0.03) ** 2 == pytest.approx(min(losses))
    late = fine_tune(One(), loss, data(), replace(LINEAR, judged_from=0.9))
    assert min(late) >= 36


def test_images_that_judge_do_not_train():
    first = data()
    _, judge = hold_out(first.labels, 0.2, seeded())
    changed = first._replace(images=first.images.clone())
    changed.images[judge] = 255 - changed.images[judge]
    only_the_end = replace(LINEAR, checks=1)
    models = Linear(), Linear()
    losses = [fine_tune(m, squared, d, only_the_end) for m, d in zip(models, (first, changed), strict=True)]
    assert models[0].weight.equal(models[1].weight)
    assert losses[0] != losses[1]


def test_mistakes_are_told_in_one_sentence():
    with pytest.raises(VisaError, match="diverged"):
        fine_tune(Linear(), lambda logits, masks: logits * torch.nan, data(), TINY)
    with pytest.raises(VisaError, match="1 usable anomalous"):
        fine_tune(Linear(), squared, data(10, 1), TINY)
    for wrong, match in (
        ({"min_steps": 0}, "min_steps is 0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"head_lr": float("nan")}, "head_lr is nan"),
        ({"size": (16, 64)}, "sides of 32"),
        ({"decoder_width": 12}, "decoder_width is 12"),
        ({"precision": "16"}, "unknown precision"),
    ):
        with pytest.raises(VisaError, match=match):
            TwoClass(**wrong)


def fitted_classifier(arch="resnet18_half", seed=0, **changes):
    shown = data()
    return fit_classifier(create_backbone(arch), shown.images, shown.labels, replace(TINY, **changes), seed)


def fitted_unet(seed=0, **changes):
    return fit_unet(create_backbone("resnet18_half"), data(), replace(TINY, **changes), seed)


@pytest.mark.slow
def test_the_classifier_finds_a_square_on_images_never_seen():
    model, new = fitted_classifier(), data(20, 20, 1)
    scores = predict(model, new.images, "32-true")
    assert image_metrics(scores.numpy(), new.labels.numpy())["auroc"] > 0.9
    assert scores.shape == (40,)
    torch.testing.assert_close(predict(model, new.images[:3], "32-true"), scores[:3], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_u_net_finds_a_square_on_images_never_seen():
    new = data(8, 8, 1)
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
    logits = [predict(fit(seed=seed, min_steps=3, batch_size=4), data(2, 2, 1).images, "32-true") for seed in (0, 0, 1)]
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
