"""PaDiM and PatchCore against plain versions, and on inputs whose answer is known."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from visa.detect import patchcore, shared
from visa.detect.padim import PaDiM
from visa.detect.patchcore import PatchCore, distances, greedy_coreset, nearest_patches
from visa.errors import VisaError


def fine(images: Tensor) -> list[Tensor]:
    """Three stages without weights: the colours at strides 1, 2 and 4."""
    return [images, avg_pool2d(images, 2), avg_pool2d(images, 4)]


def coarse(images: Tensor) -> list[Tensor]:
    return [avg_pool2d(images, 4), avg_pool2d(images, 8)]


def noise(count, seed=0, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("detector", [PaDiM(fine, n_channels=9), PatchCore(coarse, ratio=1.0)])
def test_a_planted_patch_is_the_top_of_its_map(detector):
    detector.fit([0.1 * noise(20, size=64)])
    images = 0.1 * noise(2, 5, 64)
    images[1, :, 40:48, 8:16] += 0.5
    scores, maps = detector.score(images)
    assert scores.dtype == maps.dtype == np.float32
    assert maps.shape == (2, 64, 64)
    assert scores[1] > 1.5 * scores[0]
    assert np.abs(np.subtract(np.unravel_index(maps[1].argmax(), (64, 64)), (43.5, 11.5))).max() < 3


def test_distances_equal_numpys_mahalanobis():
    train, test = noise(40), noise(3, seed=1)
    detector = PaDiM(fine, n_channels=5, seed=3, sigma=0).fit(train.split(7))

    def features(images):
        maps = [m.repeat_interleave(s, 2).repeat_interleave(s, 3) for m, s in zip(fine(images), (1, 2, 4), strict=True)]
        return torch.cat(maps, dim=1)[:, detector.channels].double().numpy()

    a, b = features(train), features(test)
    got = detector.score(test)[1]  # the finest stage has the images' size
    for y, z in [(0, 0), (7, 12), (15, 3)]:
        covariance = np.cov(a[:, :, y, z], rowvar=False) + 0.01 * np.eye(5)
        delta = b[:, :, y, z] - a[:, :, y, z].mean(0)
        expected = np.sqrt(np.einsum("ni,ij,nj->n", delta, np.linalg.inv(covariance), delta))
        np.testing.assert_allclose(got[:, y, z], expected, rtol=1e-4)


def test_batches_do_not_matter_even_far_from_zero():
    """Naive sums of squares would lose the variance behind a mean of 1000."""
    train = noise(24) * 0.1 + 1000
    whole = PaDiM(fine, 4).fit([train]).cholesky
    parts = PaDiM(fine, 4).fit(train.split(5)).cholesky
    torch.testing.assert_close(parts, whole, rtol=0, atol=0.01)


def test_smoothing_lowers_the_score_and_the_size_has_to_stay():
    train, test = torch.rand(10, 3, 16, 24), torch.rand(2, 3, 16, 24)
    sharp, smooth = (PaDiM(fine, n_channels=6, sigma=sigma).fit([train]) for sigma in (0, 2))
    assert smooth.score(test)[1].shape == (2, 16, 24)
    assert (smooth.score(test)[0] < sharp.score(test)[0]).all()
    np.testing.assert_array_equal(smooth.score(test)[0], smooth.score(test)[1].max(axis=(1, 2)))
    with pytest.raises(VisaError, match="16 x 24 positions, not 24 x 16"):
        sharp.score(test.mT)
    with pytest.raises(VisaError, match="keep one image size"):
        sharp.fit([train, train.mT])


def test_the_seed_decides_the_channels_and_fitting_again_forgets_the_first_fit():
    detector = PaDiM(fine, n_channels=4).fit([noise(8, seed=1)])
    again, new = detector.fit([noise(8)]), PaDiM(fine, n_channels=4).fit([noise(8)])
    torch.testing.assert_close(again.cholesky, new.cholesky, rtol=0, atol=0)
    assert len({tuple(PaDiM(fine, 4, seed).fit([noise(5)]).channels.tolist()) for seed in range(5)}) > 1
    assert len(set(new.channels.tolist())) == 4


@pytest.mark.parametrize(("available", "drawn"), [(448, 100), (1792, 550), (9, 9)])
def test_the_papers_number_of_channels_is_drawn_unless_another_is_given(available, drawn):
    assert len(PaDiM(fine)._draw_channels(available)) == drawn


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
    detector = PatchCore(coarse, ratio=40 / 1024, neighbors=9).fit([noise(4, size=64)])
    scores, _ = detector.score(noise(3, 8, 64))
    x, (h, w) = detector._embed(noise(3, 8, 64))
    bank = detector.bank.double().numpy()
    for patches, score in zip(x.double().view(3, h * w, -1).numpy(), scores, strict=True):
        distances = np.linalg.norm(patches[:, None] - bank, axis=2)
        worst = distances.min(1).argmax()
        nearest = distances[worst].argmin()
        crowd = np.argsort(np.linalg.norm(bank - bank[nearest], axis=1))[:9]
        weight = 1 - np.exp(distances[worst, nearest]) / np.exp(distances[worst, crowd]).sum()
        assert score == pytest.approx(weight * distances[worst, nearest], rel=1e-4)


@pytest.mark.parametrize("neighbors", [0, 1])
def test_without_neighbours_the_score_is_the_largest_distance(neighbors):
    detector = PatchCore(coarse, ratio=40 / 1024, neighbors=neighbors, sigma=0).fit([noise(4, size=64)])
    scores, maps = detector.score(noise(2, 8, 64))
    distances = nearest_patches(detector._embed(noise(2, 8, 64))[0], detector.bank)[0]
    np.testing.assert_allclose(scores, distances.view(2, -1).amax(1))
    assert maps.max() <= scores.max()


@pytest.mark.parametrize(
    ("detector", "images", "sentence"),
    [
        (PaDiM(fine, n_channels=10), [noise(4)], "n_channels is 10"),
        (PaDiM(fine, n_channels=3), [noise(1)], "at least two"),
        (PaDiM(fine, n_channels=3, epsilon=0), [noise(2)], "raise epsilon"),
        (PaDiM(fine, n_channels=3), [noise(4) * torch.nan], "look for NaN"),
        (PatchCore(coarse), [], "no training images"),
        (PatchCore(coarse, ratio=0), iter(lambda: 1 / 0, None), "coreset ratio is 0"),  # before any image is seen
        (PatchCore(coarse), [noise(1, size=96)], r"576 patches of 6 dimensions \(PatchCore\) need 0.0 GB"),
        (PaDiM(fine, n_channels=5), [noise(1, size=32)], "32 x 32 covariances of 5 channels need 0.0 GB"),
    ],
)
def test_mistakes_are_told_in_one_sentence(detector, images, sentence, monkeypatch):
    monkeypatch.setattr(shared, "_memory", lambda device: 26_000.0)
    with pytest.raises(VisaError, match=sentence):
        detector.fit(images)
