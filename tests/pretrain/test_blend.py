"""SmoothBlend against the paper's formula, patch by patch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as tv

from visa.errors import VisaError
from visa.pretrain.augment import Draws
from visa.pretrain.blend import BLEND, CUTPASTE, SmoothBlend, draw_patches, smooth_blend


def draws(seed=0, part=0, parts=1):
    return Draws(torch.Generator().manual_seed(seed), part, parts)


@pytest.fixture
def images():
    return torch.rand(6, 3, 48, 48, generator=torch.Generator().manual_seed(7))


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


def box(p, i):
    top, left, height, width = (int(v[i]) for v in (p.top, p.left, p.height, p.width))
    source_top, source_left = int(p.source_top[i]), int(p.source_left[i])
    return (
        (..., slice(top, top + height), slice(left, left + width)),
        (..., slice(source_top, source_top + height), slice(source_left, source_left + width)),
    )


def naive_blend(x, p, i):
    """The formula of section 3.2, step by step, for image i of the batch."""
    side = x.shape[-1]
    at, source = box(p, i)
    u, alpha = torch.zeros_like(x[i]), np.zeros((side, side))
    u[at] = x[i][source] if p.colour is None else jittered(x[i][source], p.colour, i)
    alpha[at] = 1
    # on a grid eight times finer, read at the pixel centres: close to the continuous Gaussian
    fine = gaussian_filter(np.kron(alpha, np.ones((8, 8))), 8 * float(p.sigma[i]), mode="constant", truncate=6)
    alpha = torch.tensor(fine.reshape(side, 8, side, 8)[:, 3:5, :, 3:5].mean((1, 3)), dtype=x.dtype)
    return (1 - alpha) * x[i] + alpha * u, alpha


def test_smooth_blend_equals_the_formula(images):
    patches = draw_patches(6, 48, SmoothBlend(area=(0.02, 0.1), sigma=(0.01, 0.03)), draws())
    blended, alpha = smooth_blend(images, patches)
    assert blended.shape == images.shape and alpha.shape == (6, 1, 48, 48)
    assert blended.min() >= 0 and blended.max() <= 1 and alpha.min() >= 0 and alpha.max() <= 1
    for i in range(len(images)):
        expected, soft = naive_blend(images, patches, i)
        assert torch.allclose(alpha[i, 0], soft, atol=0.02)
        assert torch.allclose(blended[i], expected, atol=0.02)


def test_cutpaste_has_a_hard_edge(images):
    patches = draw_patches(6, 48, CUTPASTE, draws(1))
    blended, alpha = smooth_blend(images, patches)
    assert set(alpha.unique().tolist()) == {0.0, 1.0}
    for i in range(len(images)):
        at, source = box(patches, i)
        expected = images[i].clone()
        expected[at] = jittered(images[i][source], patches.colour, i)
        torch.testing.assert_close(blended[i], expected, atol=1e-4, rtol=0)
        assert alpha[i].sum() == patches.height[i] * patches.width[i]
    assert torch.equal(smooth_blend(images, patches, onto="shifted")[0], blended)


def test_without_jitter_the_patch_keeps_its_colours(images):
    patches = draw_patches(6, 48, SmoothBlend(sigma=(0, 0), jitter=(0, 0, 0, 0)), draws(1))
    assert patches.colour is None
    blended, _ = smooth_blend(images, patches)
    for i in range(len(images)):
        at, source = box(patches, i)
        torch.testing.assert_close(blended[i][at], images[i][source], atol=1e-6, rtol=0)


def test_the_zero_layer_darkens_the_rim_and_the_shifted_one_does_not():
    white = torch.ones(4, 3, 48, 48)
    patches = draw_patches(4, 48, SmoothBlend(area=(0.05, 0.08), jitter=(0, 0, 0, 0)), draws())
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
        return smooth_blend(x, draw_patches(len(x), 48, BLEND, drawn))[0]

    parts = [blend(images[3 * i : 3 * i + 3], draws(3, i, 2)) for i in range(2)]
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
