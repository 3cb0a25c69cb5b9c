"""The classifier: learns what can be learned from few images, and the same from the same seed."""

from dataclasses import replace

import numpy as np
import torch

from visa.backbone import create_backbone
from visa.detect.classifier import fit_classifier, score_images
from visa.detect.two_class import TwoClass
from visa.metrics import image_metrics

TINY = TwoClass(size=(32, 48), batch_size=8, epochs=1, min_steps=24, checks=4, precision="32-true")


def toy(n, seed):
    """n normal images of noise, and n with a dark bar."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(100, 156, (2 * n, 3, 32, 48), generator=generator, dtype=torch.uint8)
    for i, top in enumerate(torch.randint(0, 24, (n,), generator=generator).tolist()):
        images[n + i, :, top : top + 8, 8:40] = 20
    return images, torch.tensor([0] * n + [1] * n)


def fitted(seed=0, **changes):
    return fit_classifier(create_backbone("resnet18_half"), *toy(10, 0), replace(TINY, **changes), seed)


def test_a_bar_is_found_on_images_never_seen_whatever_they_are_scored_with():
    model = fitted()
    images, labels = toy(20, 1)
    scores = score_images(model, images)
    assert image_metrics(scores, labels.numpy())["auroc"] > 0.9
    assert scores.shape == (40,)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(score_images(model, images[:3]), scores[:3], rtol=1e-3, atol=1e-4)


def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    scores = [score_images(fitted(seed, min_steps=3, batch_size=4), toy(4, 1)[0]) for seed in (0, 0, 1)]
    assert torch.rand(1).equal(expected)
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_scores_of_other_backbones_have_one_number_an_image():
    model = fit_classifier(create_backbone("timm/test_efficientnet"), *toy(4, 0), TINY)
    assert score_images(model, toy(3, 1)[0]).shape == (6,)
