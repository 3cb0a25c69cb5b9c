"""PatchCore's coreset, neighbours and scores against plain versions, and on inputs whose answer is known."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from visa.detect import patchcore, shared
from visa.detect.padim import PaDiM
from visa.detect.patchcore import PatchCore, distances, greedy_coreset, nearest_patches
from visa.errors import VisaError


def extract(images: Tensor) -> list[Tensor]:
    """Two stages without weights: the colours at strides 4 and 8."""
    return [avg_pool2d(images, 4), avg_pool2d(images, 8)]


def noise(count, seed=0, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def plain_greedy(x, count, start):
    picks, nearest = [start], torch.full((len(x),), torch.inf)
    while len(picks) < count:
        nearest = torch.minimum(nearest, distances(x[picks[-1]][None], x)[0])
        picks.append(int(nearest.argmax()))
    return picks


@pytest.mark.parametrize("active", [2**14, 100])
@pytest.mark.parametrize("kind", ["blob", "clusters", "far", "grid"])
def test_coreset_picks_equal_the_plain_greedy_ones(kind, active, monkeypatch):
    monkeypatch.setattr(patchcore, "_ACTIVE", active)  # with few points kept up to date, the others catch up often
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    if kind == "clusters":
        x = 0.05 * x + 5 * x[torch.arange(3000) % 20]
    if kind == "far":  # products alone would lose all digits
        x = x + 300
    if kind == "grid":  # many equal distances
        x = x.round()[:, :4]
    assert greedy_coreset(x, 250, start=7).tolist() == plain_greedy(x, 250, start=7)


def test_neighbours_equal_brute_force_and_are_exact_near_zero():
    rng = torch.Generator().manual_seed(0)
    bank, x = torch.randn(200, 16, generator=rng), torch.randn(300, 16, generator=rng)
    distance, index = nearest_patches(x, bank)
    plain = (x[:, None].double() - bank.double()).norm(dim=2).min(1)
    torch.testing.assert_close(distance, plain.values.float())
    assert index.equal(plain.indices)
    assert nearest_patches(bank, bank.repeat(20, 1))[1].tolist() == list(range(200)), "the first of equal ones"
    far = bank + 1000
    assert nearest_patches(far, far)[0].max() == 0


def test_neighbours_near_zero_are_exact_among_many_that_are_nearly_as_near():
    """Products of rows of norm 10 know squares to about 1e-5; here neighbours are 1e-4 and 2e-4 away."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(50, 100, generator=rng)
    step = torch.nn.functional.normalize(torch.randn(50, 100, generator=rng), dim=1)
    bank = torch.cat([x + 2e-4 * step, x - 1e-4 * step, torch.randn(4000, 100, generator=rng)])
    distance, index = nearest_patches(x, bank)
    assert index.tolist() == list(range(50, 100))
    torch.testing.assert_close(distance, (x - bank[50:100]).norm(dim=1))


def test_image_score_follows_equation_7():
    detector = PatchCore(extract, ratio=40 / 1024, neighbors=9).fit([noise(4)])
    scores, _ = detector.score(noise(3, seed=8))
    x, (h, w) = detector._embed(noise(3, seed=8))
    bank = detector.bank.double().numpy()
    for patches, score in zip(x.double().view(3, h * w, -1).numpy(), scores, strict=True):
        distances = np.linalg.norm(patches[:, None] - bank, axis=2)
        worst = distances.min(1).argmax()
        nearest = distances[worst].argmin()
        crowd = np.argsort(np.linalg.norm(bank - bank[nearest], axis=1))[:9]
        weight = 1 - np.exp(distances[worst, nearest]) / np.exp(distances[worst, crowd]).sum()
        assert score == pytest.approx(weight * distances[worst, nearest], rel=1e-4)


def test_a_planted_patch_is_the_top_of_a_constant_map():
    detector = PatchCore(extract, ratio=1.0).fit([torch.full((1, 3, 64, 64), 0.5)])  # borders differ from the middle
    images = torch.full((2, 3, 64, 64), 0.5)
    images[1, :, 40:48, 8:16] = 1
    scores, maps = detector.score(images)
    assert scores.dtype == maps.dtype == np.float32
    assert maps.shape == (2, 64, 64)
    assert scores[0] < 1e-6
    assert maps[0].max() < 1e-6
    assert scores[1] > 0.1
    y, x = np.unravel_index(maps[1].argmax(), maps[1].shape)
    assert abs(y - 43.5) < 3
    assert abs(x - 11.5) < 3


@pytest.mark.parametrize("neighbors", [0, 1])
def test_without_neighbours_the_score_is_the_largest_distance(neighbors):
    detector = PatchCore(extract, ratio=40 / 1024, neighbors=neighbors, sigma=0).fit([noise(4)])
    scores, maps = detector.score(noise(2, seed=8))
    distances = nearest_patches(detector._embed(noise(2, seed=8))[0], detector.bank)[0]
    np.testing.assert_allclose(scores, distances.view(2, -1).amax(1))
    assert maps.max() <= scores.max()


def test_ratio_and_seed_decide_the_coreset():
    def fit(seed):
        return PatchCore(extract, ratio=0.05, seed=seed).fit(noise(4).split(3))

    assert len(fit(0).bank) == round(0.05 * 4 * 256)
    assert fit(0).bank.equal(fit(0).bank)
    assert not fit(0).bank.equal(fit(1).bank)


@pytest.mark.parametrize(
    ("settings", "images", "sentence"),
    [
        ({}, [], "no training images"),
        ({"ratio": 1.5}, [noise(1)], "give a share above 0"),
        ({"ratio": 0}, iter(lambda: 1 / 0, None), "coreset ratio is 0"),  # before any image is looked at
    ],
)
def test_mistakes_are_told_in_one_sentence(settings, images, sentence):
    with pytest.raises(VisaError, match=sentence):
        PatchCore(extract, **settings).fit(images)


@pytest.mark.parametrize(
    ("detector", "sentence"),
    [
        (PatchCore(extract), r"512 patches of 6 dimensions \(PatchCore\) need 0.0 GB"),
        (PaDiM(extract, n_channels=5), "16 x 16 covariances of 5 channels need 0.0 GB"),
    ],
)
def test_what_exceeds_the_memory_is_told_in_one_sentence(detector, sentence, monkeypatch):
    monkeypatch.setattr(shared, "_memory", lambda device: 20_000.0)
    with pytest.raises(VisaError, match=sentence):
        detector.fit([noise(1), noise(1)])
