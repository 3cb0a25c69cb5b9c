"""SmoothBlend against the paper's formula, pixel by pixel."""

import statistics

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from visa.errors import VisaError
from visa.pretrain.augment import Draws
from visa.pretrain.smoothblend import BLEND, CUTPASTE, SmoothBlend, draw_patches, pasted_layer, smooth_blend


def draws(seed=0, part=0, parts=1):
    return Draws(torch.Generator().manual_seed(seed), part, parts)


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def jittered(patch, colour, i):
    """torchvision's ColorJitter on the patch by itself."""
    brightness, contrast, saturation = colour.factors[i].tolist()
    for operation in colour.order[i].tolist():
        if operation == 0:
            patch = tv.adjust_brightness(patch, brightness)
        elif operation == 1:
            patch = tv.adjust_contrast(patch, contrast)
        elif operation == 2:
            patch = tv.adjust_saturation(patch, saturation)
        else:
            patch = tv.adjust_hue(patch, float(colour.hue[i]))
    return patch


def naive_blend(x, p, i):
    """The formula of section 3.2 for image i of the batch, pixel by pixel: x', u and alpha."""
    side = x.shape[-1]
    top, left, height, width = (int(v[i]) for v in (p.top, p.left, p.height, p.width))
    source_top, source_left, sigma = int(p.source_top[i]), int(p.source_left[i]), float(p.sigma[i])
    patch = x[i][:, source_top : source_top + height, source_left : source_left + width]
    patch = patch if p.colour is None else jittered(patch, p.colour, i)
    u, alpha, blended = torch.zeros_like(x[i]), torch.zeros(side, side), torch.zeros_like(x[i])
    for row in range(side):
        for column in range(side):
            if top <= row < top + height and left <= column < left + width:
                u[:, row, column] = patch[:, row - top, column - left]
            alpha[row, column] = blurred(row, top, height, sigma) * blurred(column, left, width, sigma)
            a = alpha[row, column]
            blended[:, row, column] = (1 - a) * x[i, :, row, column] + a * u[:, row, column]
    return blended, u, alpha


def blurred(at, start, extent, sigma):
    """The share of a Gaussian around the centre of pixel `at` that lies in an interval."""
    if not sigma:
        return float(start <= at < start + extent)
    gaussian = statistics.NormalDist(at + 0.5, sigma)
    return gaussian.cdf(start + extent) - gaussian.cdf(start)


NO_JITTER = (0, 0, 0, 0)


@pytest.mark.parametrize(
    "params",
    [BLEND, CUTPASTE, SmoothBlend(area=(0.02, 0.1)), SmoothBlend(sigma=(0, 0), jitter=NO_JITTER)],
    ids=["blend", "cutpaste", "large", "no jitter"],
)
def test_smooth_blend_equals_the_formula(images, params):
    patches = draw_patches(4, 32, params, draws(1))
    blended, alpha = smooth_blend(images, patches)
    u, same_alpha = pasted_layer(images, patches)
    assert blended.shape == u.shape == images.shape and alpha.shape == (4, 1, 32, 32)
    assert torch.equal(alpha, same_alpha) and (params.jitter == NO_JITTER) is (patches.colour is None)
    for i in range(len(images)):
        for found, expected in zip((blended[i], u[i], alpha[i, 0]), naive_blend(images, patches, i), strict=True):
            assert found.min() >= 0 and found.max() <= 1
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_cutpaste_s_edge_is_hard_whatever_lies_under_it(images):
    patches = draw_patches(4, 32, CUTPASTE, draws(1))
    blended, alpha = smooth_blend(images, patches)
    assert set(alpha.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(alpha.sum((1, 2, 3)), patches.height * patches.width)
    assert torch.equal(smooth_blend(images, patches, onto="shifted")[0], blended)


def test_the_zero_layer_darkens_the_rim_and_the_shifted_one_does_not():
    white = torch.ones(4, 3, 48, 48)
    patches = draw_patches(4, 48, SmoothBlend(area=(0.05, 0.08), jitter=NO_JITTER), draws())
    assert smooth_blend(white, patches)[0].min() < 0.8
    assert torch.allclose(smooth_blend(white, patches, onto="shifted")[0], white, atol=1e-5)


def test_patch_size_place_and_softness_stay_in_their_ranges():
    p = draw_patches(2000, 32, BLEND, draws())
    share = p.height * p.width / 32**2
    assert share.min() > 0.001 and share.max() < 0.11 and share.mean() == pytest.approx(0.0425, abs=0.004)
    for start, extent in ((p.top, p.height), (p.left, p.width), (p.source_top, p.height), (p.source_left, p.width)):
        assert start.min() >= 0 and (start + extent).max() <= 32
    assert p.sigma.min() >= 0.01 * 32 and p.sigma.max() <= 0.03 * 32
    whole = draw_patches(50, 32, SmoothBlend(area=(1, 1)), draws())
    assert whole.height.max() <= 32 and whole.top.min() >= 0 and (whole.left + whole.width).max() <= 32


def test_parts_of_a_batch_are_blended_as_the_whole(images):
    def blend(x, drawn):
        return smooth_blend(x, draw_patches(len(x), 32, BLEND, drawn))[0]

    parts = [blend(images[2 * i : 2 * i + 2], draws(3, i, 2)) for i in range(2)]
    assert torch.equal(torch.cat(parts), blend(images, draws(3)))


def test_mistakes_are_told_in_a_sentence():
    patches = draw_patches(2, 8, BLEND, draws())
    with pytest.raises(VisaError, match="square"):
        smooth_blend(torch.zeros(2, 3, 8, 9), patches)
    with pytest.raises(VisaError, match="divide bytes by 255"):
        smooth_blend(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), patches)
    with pytest.raises(VisaError, match="area is"):
        SmoothBlend(area=(0.1, 1.5))
    with pytest.raises(VisaError, match="unknown onto"):
        SmoothBlend(onto="ones")
    with pytest.raises(VisaError, match="Jitter is"):
        SmoothBlend(jitter=(-0.1, 0, 0, 0))
