"""Views against torchvision under the drawn parameters and in their statistics; SmoothBlend against its formula."""

import itertools
import statistics
from dataclasses import replace

import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from visa.errors import VisaError
from visa.pretrain.augment import (
    STRONG,
    Draws,
    View,
    apply_jitter_,
    draw_crop,
    draw_jitter,
    gaussian_blur_,
    random_view,
    resized_crop,
)
from visa.pretrain.smoothblend import BLEND, CUTPASTE, SmoothBlend, draw_patches, pasted_layer, smooth_blend

STILL = View((1.0, 1.0), (0, 0, 0, 0), jitter_p=0, grey_p=0, blur_p=0, blur_sigma=(0, 0), flip_p=0, ratio=(1, 1))


def draws(seed=0, part=0, parts=1):
    return Draws(torch.Generator().manual_seed(seed), part, parts)


@pytest.fixture
def images():
    return torch.rand(8, 3, 48, 40, generator=torch.Generator().manual_seed(7))


def jitter_one_by_one(image, jitter, i):
    """torchvision's operations on one image, in its drawn order."""
    brightness, contrast, saturation = jitter.factors[i].tolist()
    operations = (
        lambda x: tv.adjust_brightness(x, brightness),
        lambda x: tv.adjust_contrast(x, contrast),
        lambda x: tv.adjust_saturation(x, saturation),
        lambda x: tv.adjust_hue(x, float(jitter.hue[i])),
    )
    for operation in jitter.order[i].tolist():
        image = operations[operation](image)
    return image


def crop_one_by_one(image, crop, i, side):
    top, left, height, width, flip = (int(value[i]) for value in crop)
    view = tv.resized_crop(image, top, left, height, width, [side, side], antialias=True)
    return tv.horizontal_flip(view) if flip else view


@pytest.mark.parametrize("side", [13, 32, 70])
def test_crop_equals_torchvision(images, side):
    crop = draw_crop(8, 48, 40, STRONG, draws())
    assert crop.flip.any() and not crop.flip.all()
    theirs = torch.stack([crop_one_by_one(x, crop, i, side) for i, x in enumerate(images)])
    torch.testing.assert_close(resized_crop(images, crop, side), theirs, atol=1e-5, rtol=0)


def test_jitter_equals_torchvision_in_every_order():
    orders = torch.tensor(list(itertools.permutations(range(4))))
    drawn = draw_jitter(24, (0.8, 0.8, 0.8, 0.5), draws(1))._replace(order=orders)
    images = torch.rand(24, 3, 9, 11, generator=torch.Generator().manual_seed(2))
    images[:, :, 0] = images[:, :1, 0]  # a row of grey, where hue is not defined
    images[:, 0, 1] = images[:, 1, 1]  # and ties between channels
    images[:, 2, 2] = images[:, 0, 2]
    theirs = torch.stack([jitter_one_by_one(x, drawn, i) for i, x in enumerate(images)])
    apply_jitter_(images, drawn)
    torch.testing.assert_close(images, theirs, atol=1e-4, rtol=0)


def test_blur_equals_torchvision(images):
    sigma = torch.tensor([0.1, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 0.0])
    blurred = images.clone()
    gaussian_blur_(blurred, sigma, reach=6)
    for i, s in enumerate(sigma[:-1].tolist()):
        torch.testing.assert_close(blurred[i], tv.gaussian_blur(images[i], [13, 13], [s, s]), atol=1e-5, rtol=0)
    assert torch.equal(blurred[-1], images[-1])


@pytest.mark.parametrize(
    ("height", "width", "view"),
    [
        (60, 100, STRONG),
        (40, 100, replace(STRONG, scale=(0.6, 1.0))),  # about half fall back to the central box
    ],
)
def test_crops_are_distributed_as_torchvisions(height, width, view):
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(8, view.scale, view.ratio, antialias=True)
    image = torch.empty(3, height, width)
    theirs = [theirs.make_params([image]) for _ in range(2000)]
    theirs = {k: torch.tensor([float(p[k]) for p in theirs]) for k in ("top", "left", "height", "width")}
    ours = draw_crop(4000, height, width, view, draws())._asdict()
    assert ours["flip"].float().mean() == pytest.approx(view.flip_p, abs=0.03)
    ours = {k: ours[k].float() for k in theirs}
    for name in theirs:
        assert ks_2samp(ours[name], theirs[name]).pvalue > 1e-3, name
    for of in (lambda p: p["height"] * p["width"], lambda p: p["width"] / p["height"]):
        assert ks_2samp(of(ours), of(theirs)).pvalue > 1e-3


def test_jitters_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    theirs = v2.ColorJitter(*STRONG.jitter)
    theirs = [theirs.make_params([]) for _ in range(2000)]
    ours = draw_jitter(4000, STRONG.jitter, draws())
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for values, name in zip((*ours.factors.T, ours.hue), names, strict=True):
        assert ks_2samp(values, [p[name] for p in theirs]).pvalue > 1e-3, name
    assert len(ours.order.unique(dim=0)) == 24
    untouched = draw_jitter(4000, STRONG.jitter, draws(), p=0.8)
    untouched = (untouched.factors == 1).all(1) & (untouched.hue == 0)
    assert untouched.float().mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("side", [32, 224])
def test_parts_of_a_batch_have_the_views_of_the_whole(images, side):
    whole = random_view(images, side, STRONG, draws(3))
    parts = [random_view(images[4 * i : 4 * i + 4], side, STRONG, draws(3, i, 2)) for i in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_views_are_bounded_and_leave_the_images_as_they_are(images):
    before = images.clone()
    one = random_view(images, 32, STRONG, draws(5))
    assert torch.equal(images, before) and one.shape == (8, 3, 32, 32) and one.min() >= 0 and one.max() <= 1
    for height, width in ((1, 1), (3, 50), (50, 3)):
        box = draw_crop(500, height, width, STRONG, draws())
        assert min(box.height.min(), box.width.min()) >= 1 and min(box.top.min(), box.left.min()) >= 0
        assert (box.top + box.height).max() <= height and (box.left + box.width).max() <= width


def test_certain_steps_always_happen_and_others_never(images):
    as_bytes = (images[..., :40, :] * 255).byte()
    images = as_bytes.float() / 255
    assert torch.equal(random_view(as_bytes, 40, STILL, draws()), images)
    assert torch.equal(random_view(images, 40, replace(STILL, flip_p=1), draws()), images.flip(3))
    r, g, b = random_view(images, 32, replace(STRONG, grey_p=1), draws()).unbind(1)
    assert torch.equal(r, g) and torch.equal(g, b)
    sigma = (224 / 40, 224 / 40)
    blurred = random_view(images, 40, replace(STILL, blur_p=1, blur_sigma=sigma), draws())
    torch.testing.assert_close(blurred, tv.gaussian_blur(images, [7, 7], [1, 1]), atol=1e-5, rtol=0)


def naive_blend(x, p, i):
    """The formula of section 3.2 for image i of the batch, pixel by pixel: x' and alpha."""
    side = x.shape[-1]
    top, left, height, width = (int(v[i]) for v in (p.top, p.left, p.height, p.width))
    source_top, source_left, sigma = int(p.source_top[i]), int(p.source_left[i]), float(p.sigma[i])
    patch = x[i][:, source_top : source_top + height, source_left : source_left + width]
    patch = patch if p.colour is None else jitter_one_by_one(patch, p.colour, i)
    u, alpha, blended = torch.zeros_like(x[i]), torch.zeros(side, side), torch.zeros_like(x[i])
    for row in range(side):
        for column in range(side):
            if top <= row < top + height and left <= column < left + width:
                u[:, row, column] = patch[:, row - top, column - left]
            alpha[row, column] = blurred(row, top, height, sigma) * blurred(column, left, width, sigma)
            a = alpha[row, column]
            blended[:, row, column] = (1 - a) * x[i, :, row, column] + a * u[:, row, column]
    return blended, alpha


def blurred(at, start, extent, sigma):
    """The share of a Gaussian around the centre of pixel `at` that lies in an interval."""
    if not sigma:
        return float(start <= at < start + extent)
    gaussian = statistics.NormalDist(at + 0.5, sigma)
    return gaussian.cdf(start + extent) - gaussian.cdf(start)


NO_JITTER = (0, 0, 0, 0)


@pytest.mark.parametrize(
    "params",
    [BLEND, CUTPASTE, SmoothBlend(area=(0.02, 0.1), jitter=NO_JITTER)],
    ids=["blend", "cutpaste", "no jitter"],
)
def test_smooth_blend_equals_the_formula(params):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    patches = draw_patches(4, 32, params, draws(1))
    blended, alpha = smooth_blend(images, patches)
    torch.testing.assert_close(blended, (1 - alpha) * images + alpha * pasted_layer(images, patches))
    assert alpha.shape == (4, 1, 32, 32) and (params.jitter == NO_JITTER) is (patches.colour is None)
    for i in range(len(images)):
        for found, expected in zip((blended[i], alpha[i, 0]), naive_blend(images, patches, i), strict=True):
            assert found.min() >= 0 and found.max() <= 1
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_zero_layer_darkens_the_rim_and_the_shifted_one_does_not():
    white = torch.ones(4, 3, 48, 48)
    patches = draw_patches(4, 48, SmoothBlend(area=(0.05, 0.08), jitter=NO_JITTER), draws())
    assert smooth_blend(white, patches)[0].min() < 0.8
    assert torch.allclose(smooth_blend(white, patches, onto="shifted")[0], white, atol=1e-5)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 8, 9), torch.zeros(2, 3, 8, 8).byte(), torch.zeros(3, 8, 8)])
def test_images_that_cannot_be_blended_are_refused(wrong):
    with pytest.raises(VisaError, match="give square ones, N,3,S,S, divided by 255"):
        smooth_blend(wrong, draw_patches(2, 8, BLEND, draws()))
