"""SmoothBlend and the views against slow re-derivations and torchvision's own operations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as tv

from visa.pretrain.augment import (
    BLEND,
    STRONG,
    WEAK,
    SmoothBlend,
    apply_colour,
    draw_patches,
    gaussian_blur,
    random_view,
    smooth_blend,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(6, 3, 48, 48, generator=generator(7))


def naive_blend(x, p, i, onto):
    """The formula of section 3.2, pixel by pixel, for image i of the batch."""
    side = x.shape[-1]
    top, left, height, width = (int(v[i]) for v in (p.top, p.left, p.height, p.width))
    source_top, source_left = int(p.source_top[i]), int(p.source_left[i])
    patch = x[i, :, source_top : source_top + height, source_left : source_left + width]
    patch = apply_colour(patch[None], p.colour[i : i + 1])[0].clamp(0, 1)
    u, alpha = torch.zeros_like(x[i]), np.zeros((side, side))
    u[:, top : top + height, left : left + width] = patch
    alpha[top : top + height, left : left + width] = 1
    # on a grid eight times finer, read at the pixel centres: close to the continuous Gaussian
    fine = gaussian_filter(np.kron(alpha, np.ones((8, 8))), 8 * float(p.sigma[i]), mode="constant", truncate=6)
    alpha = torch.tensor(fine.reshape(side, 8, side, 8)[:, 3:5, :, 3:5].mean((1, 3)), dtype=x.dtype)
    return (1 - alpha) * x[i] + alpha * u, alpha


def test_smooth_blend_equals_the_formula(images):
    params = SmoothBlend(area=(0.02, 0.1), sigma=(0.01, 0.03))
    patches = draw_patches(images, params, generator())
    blended, alpha = smooth_blend(images, patches)
    for i in range(len(images)):
        expected, soft = naive_blend(images, patches, i, "zeros")
        assert torch.allclose(alpha[i, 0], soft, atol=0.02)
        assert torch.allclose(blended[i], expected, atol=0.02)


def test_without_softness_it_is_a_cut_and_paste(images):
    patches = draw_patches(images, SmoothBlend(sigma=(0, 0), jitter=(0, 0, 0, 0)), generator(1))
    blended, alpha = smooth_blend(images, patches)
    assert set(alpha.unique().tolist()) == {0.0, 1.0}
    for i in range(len(images)):
        p = {name: int(getattr(patches, name)[i]) for name in ("top", "left", "height", "width")}
        s = int(patches.source_top[i]), int(patches.source_left[i])
        pasted = blended[i, :, p["top"] : p["top"] + p["height"], p["left"] : p["left"] + p["width"]]
        assert torch.allclose(pasted, images[i, :, s[0] : s[0] + p["height"], s[1] : s[1] + p["width"]], atol=1e-5)
        assert alpha[i].sum() == p["height"] * p["width"]
    assert torch.equal(blended[alpha.expand_as(blended) == 0], images[alpha.expand_as(images) == 0])


def test_the_zero_layer_darkens_the_rim_and_the_shifted_one_does_not():
    white = torch.ones(4, 3, 48, 48)
    patches = draw_patches(white, SmoothBlend(area=(0.05, 0.08), jitter=(0, 0, 0, 0)), generator())
    assert smooth_blend(white, patches)[0].min() < 0.8
    assert torch.allclose(smooth_blend(white, patches, onto="shifted")[0], white, atol=1e-5)


def test_patch_size_place_and_softness_stay_in_their_ranges():
    many = torch.rand(2000, 3, 32, 32)
    p = draw_patches(many, BLEND, generator())
    share = p.height * p.width / 32**2
    assert share.min() > 0.001 and share.max() < 0.11 and share.mean() == pytest.approx(0.0425, abs=0.004)
    for start, extent in ((p.top, p.height), (p.left, p.width), (p.source_top, p.height), (p.source_left, p.width)):
        assert start.min() >= 0 and (start + extent).max() <= 32
    assert p.sigma.min() >= 0.01 * 32 and p.sigma.max() <= 0.03 * 32


@pytest.mark.parametrize("view", [STRONG, WEAK])
def test_views_are_reproducible_bounded_and_differ_between_images(images, view):
    one, again = (random_view(images, 32, view, generator(5)) for _ in range(2))
    assert torch.equal(one, again)
    assert one.shape == (6, 3, 32, 32) and one.min() >= 0 and one.max() <= 1
    same = random_view(images[:1].expand(4, -1, -1, -1), 32, view, generator(5))
    assert not torch.equal(same[0], same[1])


def test_a_weak_view_stays_closer_to_its_image_than_a_strong_one(images):
    smooth = gaussian_blur(images, torch.full((6,), 3.0))
    still = tv.resize(smooth, [32, 32], antialias=True)
    distance = {v: (random_view(smooth, 32, v, generator()) - still).abs().mean() for v in (WEAK, STRONG)}
    assert distance[WEAK] < 0.7 * distance[STRONG]


def test_nothing_drawn_means_a_plain_resize(images):
    still = replace(WEAK, scale=(1.0, 1.0), jitter_p=0.0, blur_p=0.0, flip_p=0.0)
    # aspect is still drawn, but a crop of the whole area is cut to the image
    view = random_view(images[:, :, :, :48], 48, still, generator())
    assert (view - images).abs().mean() < 0.2


def test_colour_matrix_equals_torchvision_one_factor_at_a_time(images):
    from visa.pretrain.augment import _colour

    for slot, apply in enumerate((tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)):
        jitter = [0.0, 0.0, 0.0, 0.0]
        jitter[slot] = 0.3
        matrix = _colour(images, tuple(jitter), generator(slot))
        ours = apply_colour(images, matrix)
        draws = torch.rand(4, 6, generator=generator(slot))[slot] * 0.6 + 0.7
        theirs = torch.stack([apply(x, float(f)) for x, f in zip(images, draws, strict=True)])
        assert torch.allclose(ours.clamp(0, 1), theirs, atol=0.005)


def test_hue_turns_colours_and_keeps_grey():
    from visa.pretrain.augment import _colour

    grey = torch.rand(1, 1, 8, 8).expand(3, 3, 8, 8)
    assert torch.allclose(apply_colour(grey, _colour(grey, (0, 0, 0, 0.5), generator())), grey, atol=1e-4)
    red = torch.tensor([0.6, 0.2, 0.2])[None, :, None, None].expand(3, 3, 4, 4)
    turned = apply_colour(red, _colour(red, (0, 0, 0, 0.5), generator(2)))
    assert (turned - red).abs().amax() > 0.1


def test_blur_equals_torchvision_inside(images):
    sigma = torch.tensor([0.5, 0.8, 1.0, 1.2, 1.5, 2.0])
    ours = gaussian_blur(images, sigma)
    for i, s in enumerate(sigma.tolist()):
        theirs = tv.gaussian_blur(images[i : i + 1], [13, 13], [s, s])[0]
        assert torch.allclose(ours[i], theirs, atol=2e-3)
