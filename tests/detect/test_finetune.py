"""Fine-tuning: the recipe's flips and batches, whose weights the U-Net has, and what both networks find and report."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from visa.backbone import create_backbone, normalize
from visa.detect.classifier import fit_classifier
from visa.detect.finetune import TwoClass, fine_tune, predict, training_facts
from visa.detect.unet import UNet, fit_unet, score_unet
from visa.errors import VisaError
from visa.metrics import image_metrics, pixel_metrics

TINY = TwoClass(size=(32, 48), epochs=1, min_steps=24, precision="32-true")


def data(normal=10, anomaly=10, seed=0):
    """Normal images of noise, anomalous ones with a dark square, and its masks; labels are `masks.amax((1, 2))`."""
    generators = [torch.Generator().manual_seed(s) for s in (seed, seed + 1000)]
    images = torch.randint(100, 156, (normal + anomaly, 3, 32, 48), generator=generators[0], dtype=torch.uint8)
    masks = torch.zeros(normal + anomaly, 32, 48, dtype=torch.uint8)
    places = torch.randint(0, 16, (anomaly, 2), generator=generators[1]).tolist()
    for image, mask, (top, left) in zip(images[normal:], masks[normal:], places, strict=True):
        image[:, top : top + 16, left : left + 16] = 20
        mask[top : top + 16, left : left + 16] = 1
    return images, masks


class Seen(nn.Module):
    """Keeps what it is shown; its logits are a parameter."""

    def __init__(self):
        super().__init__()
        self.logit, self.batches = nn.Parameter(torch.zeros(())), []

    def forward(self, x):
        self.batches.append((x * 255).round())
        return self.logit.expand(len(x))


def shown(targets, **changes):
    """Images of a training of six steps, and the targets beside them; each image has its number in every row."""
    targets_seen = []

    def loss(logits, y):
        targets_seen.append(y)
        return logits.mean()

    numbered = torch.arange(len(targets), dtype=torch.uint8).view(-1, 1, 1, 1) + torch.tensor([100, 0, 0, 0])
    model, settings = Seen(), replace(TINY, batch_size=4, min_steps=6, **changes)
    fine_tune(model, loss, numbered.to(torch.uint8).expand(-1, 3, 2, -1), targets, settings)
    return torch.stack(model.batches), torch.stack(targets_seen)


def test_all_images_train_in_full_batches_and_are_used_up_before_one_repeats():
    images, labels = shown(torch.tensor([0] * 9 + [1] * 3))
    numbers = images[:, :, 0, 0, 1].int()
    assert numbers.shape == (6, 4)
    assert sorted(numbers[:3].flatten().tolist()) == sorted(numbers[3:].flatten().tolist()) == list(range(12))
    assert labels.equal((numbers > 8).float())


def test_half_of_the_images_are_mirrored_from_left_to_right_and_their_masks_with_them():
    masks = torch.zeros(12, 2, 4, dtype=torch.uint8)
    masks[3:, :, 0] = 1  # where the images are bright
    images, found = shown(masks)
    bright = (images[:, :, 0] >= 100).float()
    assert bright.sum((2, 3)).eq(2).all(), "one column, left or right, in both rows"
    assert 6 < bright[..., 0, 3].sum() < 18
    normal = images[:, :, 0, 0, 1] < 3
    assert found[~normal].equal(bright[~normal]) and not found[normal].any()
    assert shown(masks, flip=0.0)[0][..., 0].ge(100).all()


def test_mistakes_are_told_in_one_sentence():
    for labels, match in (([0] * 4, "0 usable anomalous"), ([1] * 4, "0 usable normal"), ([], "0 usable anomalous")):
        with pytest.raises(VisaError, match=match):
            shown(torch.tensor(labels))
    with pytest.raises(VisaError, match="diverged"):
        fine_tune(Seen(), lambda logits, y: logits.mean() * torch.nan, data()[0], data()[1], TINY)
    for wrong, match in (
        ({"min_steps": 0}, "min_steps is 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"size": (16, 64)}, "sides of 32"),
        ({"flip": 2}, "`flip` from 0 to 1"),
        ({"precision": "16"}, "unknown precision"),
    ):
        with pytest.raises(VisaError, match=match):
            TwoClass(**wrong)


def test_a_network_that_does_not_fit_its_own_images_has_failed():
    masks = data()[1][10:]
    assert training_facts([1.0, 0.5], masks * 4.0 - 2, masks, 0.5) == {
        "ap": 1, "fitted": 0.5, "failed": False, "losses": [1, 0.5]
    }  # fmt: skip
    assert training_facts([0.5], torch.zeros(masks.shape), masks, 0.5)["failed"]


def fitted_classifier(arch="resnet18_half", seed=0, **changes):
    images, masks = data()
    return fit_classifier(create_backbone(arch), images, masks.amax((1, 2)), replace(TINY, **changes), seed)


def fitted_unet(arch="resnet18_half", seed=0, **changes):
    return fit_unet(create_backbone(arch), *data(), replace(TINY, **changes), seed)


@pytest.mark.slow
def test_the_classifier_finds_a_square_on_images_never_seen():
    (model, losses), (images, masks) = fitted_classifier(), data(20, 20, 1)
    scores = predict(model, images, "32-true")
    assert len(losses) == 24 and np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert image_metrics(scores.numpy(), masks.amax((1, 2)).numpy())["auroc"] > 0.9
    torch.testing.assert_close(predict(model, images[:3], "32-true"), scores[:3], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_u_net_finds_a_square_on_images_never_seen():
    (model, losses), (images, masks) = fitted_unet(min_steps=40), data(8, 8, 1)
    scores, maps = score_unet(model, images, (16, 24))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert maps.shape == (16, 16, 24)
    assert maps.dtype == scores.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))
    assert pixel_metrics(maps, masks[:, ::2, ::2].numpy())["auroc"] > 0.9
    np.testing.assert_array_equal(maps, maps.astype(np.float16))


@pytest.mark.parametrize("fit", [fitted_classifier, partial(fitted_classifier, "timm/test_efficientnet"), fitted_unet])
def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(fit):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    models = [fit(seed=seed, min_steps=3, batch_size=4)[0] for seed in (0, 0, 1)]
    logits = [predict(model, data(2, 2, 1)[0], "32-true") for model in models]
    assert torch.rand(1).equal(expected)
    assert logits[0].equal(logits[1])
    assert not logits[0].equal(logits[2])


@pytest.mark.parametrize(
    ("arch", "name", "options"),
    [
        ("resnet18", "resnet18", {}),
        ("resnet18_half", "tu-resnet18", {"channels": (32, 64, 128, 256)}),
        ("timm/tf_efficientnet_lite0", "tu-tf_efficientnet_lite0", {}),
    ],
)
def test_the_u_net_is_the_librarys_on_the_backbones_own_weights(arch, name, options):
    """Its logits equal those of the library's own U-Net, which is loaded strictly."""
    backbone = create_backbone(arch, seed=3)
    weights = {k: v.clone() for k, v in backbone.state_dict().items()}
    model = UNet(backbone).eval()
    assert model.backbone.state_dict().keys() == weights.keys()
    assert all(v.equal(weights[k]) for k, v in model.backbone.state_dict().items()), "no weight is drawn anew"
    theirs = smp.Unet(name, encoder_weights=None, **options).eval()
    encoder = getattr(theirs.encoder, "model", theirs.encoder)
    unused = {k for k in weights if k.startswith(("conv_head.", "bn2."))} if "efficientnet" in arch else set()
    encoder.load_state_dict({k: v for k, v in weights.items() if k not in unused}, strict=True)
    theirs.decoder.load_state_dict(model.decoder.state_dict(), strict=True)
    theirs.segmentation_head.load_state_dict(model.head.state_dict(), strict=True)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(normalize(images, backbone))[:, 0])


@pytest.mark.parametrize("arch", ["resnet18_half", "timm/test_efficientnet", "timm/test_convnext"])
def test_the_u_net_fits_every_backbone_and_image_size_and_expects_few_defects_at_first(arch):
    model = UNet(create_backbone(arch))
    for size in ((64, 96), (50, 71)):
        logits = model(torch.rand(2, 3, *size))
        assert logits.shape == (2, *size)
        assert logits.sigmoid().mean() < 0.1
    logits.sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None and not name.startswith("backbone.")]
