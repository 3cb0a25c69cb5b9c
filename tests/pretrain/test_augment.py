"""Views against torchvision: its functional operations under the drawn parameters, and its transforms' statistics."""

import itertools
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from visa.errors import VisaError
from visa.pretrain.augment import (
    STRONG,
    WEAK,
    Draws,
    Jitter,
    View,
    apply_jitter_,
    draw_crop,
    draw_jitter,
    gaussian_blur_,
    random_view,
    resized_crop,
)

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


ORDERS = torch.tensor(list(itertools.permutations(range(4))))


def test_jitter_equals_torchvision_in_every_order():
    drawn = draw_jitter(24, (0.8, 0.8, 0.8, 0.5), draws(1))._replace(order=ORDERS)
    images = torch.rand(24, 3, 9, 11, generator=torch.Generator().manual_seed(2))
    images[:, :, 0] = images[:, :1, 0]  # a row of grey, where hue is not defined
    images[:, 0, 1] = images[:, 1, 1]  # and ties between channels
    images[:, 2, 2] = images[:, 0, 2]
    theirs = torch.stack([jitter_one_by_one(x, drawn, i) for i, x in enumerate(images)])
    apply_jitter_(images, drawn)
    torch.testing.assert_close(images, theirs, atol=1e-4, rtol=0)


def test_contrast_may_be_relative_to_a_region():
    x = torch.rand(1, 3, 8, 8)
    inside = torch.zeros(1, 1, 8, 8)
    inside[..., 2:5, 3:7] = 1
    jitter = Jitter(torch.tensor([[1.0, 0.3, 1.0]]), torch.zeros(1), torch.arange(4)[None])
    theirs = tv.adjust_contrast(x[..., 2:5, 3:7], 0.3)
    apply_jitter_(x, jitter, inside)
    torch.testing.assert_close(x[..., 2:5, 3:7], theirs, atol=1e-5, rtol=0)


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
        (100, 100, WEAK),
        (40, 100, replace(STRONG, scale=(0.6, 1.0))),  # about half fall back to the central box
        (100, 40, replace(STRONG, scale=(0.6, 1.0))),
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
        assert of(ours).mean() == pytest.approx(float(of(theirs).mean()), rel=0.03)
        assert of(ours).std() == pytest.approx(float(of(theirs).std()), rel=0.06)


def test_jitters_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    theirs = v2.ColorJitter(*STRONG.jitter)
    theirs = [theirs.make_params([]) for _ in range(2000)]
    ours = draw_jitter(4000, STRONG.jitter, draws())
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for values, name in zip((*ours.factors.T, ours.hue), names, strict=True):
        assert ks_2samp(values, [p[name] for p in theirs]).pvalue > 1e-3, name
    permutations = (ours.order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(permutations) == 24 and chisquare(permutations).pvalue > 1e-3
    untouched = draw_jitter(4000, STRONG.jitter, draws(), p=0.8)
    untouched = (untouched.factors == 1).all(1) & (untouched.hue == 0)
    assert untouched.float().mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("side", [32, 224])
def test_parts_of_a_batch_have_the_views_of_the_whole(images, side):
    whole = random_view(images, side, STRONG, draws(3))
    parts = [random_view(images[4 * i : 4 * i + 4], side, STRONG, draws(3, i, 2)) for i in range(2)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("view", [STRONG, WEAK])
def test_views_are_reproducible_bounded_and_differ_between_images(images, view):
    before = images.clone()
    one, again = (random_view(images, 32, view, draws(5)) for _ in range(2))
    assert torch.equal(one, again) and torch.equal(images, before)
    assert one.shape == (8, 3, 32, 32) and one.min() >= 0 and one.max() <= 1
    same = random_view(images[:1].expand(4, -1, -1, -1), 32, view, draws(5))
    assert not torch.equal(same[0], same[1])
    for height, width in ((1, 1), (3, 50), (50, 3), (33, 47)):
        box = draw_crop(500, height, width, view, draws())
        assert min(box.height.min(), box.width.min()) >= 1 and min(box.top.min(), box.left.min()) >= 0
        assert (box.top + box.height).max() <= height and (box.left + box.width).max() <= width


def test_a_still_view_is_a_plain_resize():
    images = torch.rand(3, 3, 40, 40)
    assert torch.equal(random_view(images, 40, STILL, draws()), images)
    as_bytes = (images * 255).byte()
    assert torch.equal(random_view(as_bytes, 40, STILL, draws()), as_bytes.float() / 255)
    plain = tv.resize(images, [24, 24], antialias=True)
    torch.testing.assert_close(random_view(images, 24, STILL, draws()), plain, atol=1e-5, rtol=0)


def test_certain_steps_always_happen(images):
    images = (images[..., :40, :] * 255).round() / 255
    assert torch.equal(random_view(images, 40, replace(STILL, flip_p=1), draws()), images.flip(3))
    r, g, b = random_view(images, 32, replace(STRONG, grey_p=1), draws()).unbind(1)
    assert torch.equal(r, g) and torch.equal(g, b)
    sigma = (224 / 40, 224 / 40)
    blurred = random_view(images, 40, replace(STILL, blur_p=1, blur_sigma=sigma), draws())
    torch.testing.assert_close(blurred, tv.gaussian_blur(images, [7, 7], [1, 1]), atol=1e-5, rtol=0)


class OnMeta(Draws):
    """Numbers that nobody can read: `.item()`, `nonzero` and the like raise on the meta device."""

    def uniform(self, n, *shape, low=0.0, high=1.0):
        return torch.empty(n, *shape, device="meta")


def test_away_from_a_cpu_no_value_is_read_back(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    drawn = OnMeta(torch.Generator())
    images = torch.empty(4, 3, 36, 30, device="meta")
    assert random_view(images, 32, STRONG, drawn).shape == (4, 3, 32, 32)


def test_draws_of_a_part_are_its_share_of_the_whole():
    whole = draws(2).uniform(6, 5, low=-1, high=3)
    assert torch.equal(torch.cat([draws(2, i, 3).uniform(2, 5, low=-1, high=3) for i in range(3)]), whole)
    assert whole.min() >= -1 and whole.max() <= 3 and whole.min() < 0 < whole.max()
    assert not draws().chance(100, 0.0).any() and draws().chance(100, 1.0).all()


def test_mistakes_are_told_in_a_sentence():
    for wrong in (torch.zeros(2, 1, 8, 8), torch.zeros(3, 8, 8).byte(), torch.zeros(2, 3, 8, 8).long()):
        with pytest.raises(VisaError, match="give N,3,H,W, uint8, or float"):
            random_view(wrong, 8, WEAK, draws())
    with pytest.raises(VisaError, match="Part 2 of 2"):
        draws(part=2, parts=2)
    for wrong in ({"scale": (0.5, 1.5)}, {"scale": (1.0, 0.5)}, {"grey_p": 1.2}, {"blur_sigma": (-1, 1)}):
        with pytest.raises(VisaError, match=f"{next(iter(wrong))} is"):
            replace(STRONG, **wrong)
    with pytest.raises(VisaError, match="hue"):
        replace(STRONG, jitter=(0.4, 0.4, 0.4, 0.6))
