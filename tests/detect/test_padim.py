"""PaDiM against NumPy, and on inputs whose answer is known."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from visa.detect.padim import PaDiM
from visa.errors import VisaError


def extract(images: Tensor) -> list[Tensor]:
    """Three stages without weights: the colours at strides 1, 2 and 4."""
    return [images, avg_pool2d(images, 2), avg_pool2d(images, 4)]


def noise(count, seed=0, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_distances_equal_numpys_mahalanobis():
    train, test = noise(40), noise(3, seed=1)
    detector = PaDiM(extract, n_channels=5, seed=3, sigma=0).fit(train.split(7))

    def features(images):
        maps = [
            m.repeat_interleave(s, 2).repeat_interleave(s, 3) for m, s in zip(extract(images), (1, 2, 4), strict=True)
        ]
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
    whole = PaDiM(extract, 4).fit([train]).cholesky
    parts = PaDiM(extract, 4).fit(train.split(5)).cholesky
    torch.testing.assert_close(parts, whole, rtol=0, atol=0.01)


def test_smoothing_lowers_the_score_and_the_size_has_to_stay():
    train, test = torch.rand(10, 3, 16, 24), torch.rand(2, 3, 16, 24)
    sharp, smooth = (PaDiM(extract, n_channels=6, sigma=sigma).fit([train]) for sigma in (0, 2))
    assert smooth.score(test)[1].shape == (2, 16, 24)
    assert (smooth.score(test)[0] < sharp.score(test)[0]).all()
    with pytest.raises(VisaError, match="16 x 24 positions, not 24 x 16"):
        sharp.score(test.mT)
    with pytest.raises(VisaError, match="keep one image size"):
        sharp.fit([train, train.mT])


def test_a_planted_patch_is_the_top_of_its_map():
    detector = PaDiM(extract, n_channels=9).fit([noise(20, size=64) * 0.1])
    images = noise(2, seed=5, size=64) * 0.1
    images[1, :, 40:48, 8:16] += 0.5
    scores, maps = detector.score(images)
    assert scores.dtype == maps.dtype == np.float32
    assert maps.shape == (2, 64, 64)
    assert scores[1] > 1.5 * scores[0]
    y, x = np.unravel_index(maps[1].argmax(), maps[1].shape)
    assert abs(y - 43.5) < 3
    assert abs(x - 11.5) < 3
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))


def test_the_seed_decides_the_channels_and_fitting_again_forgets_the_first_fit():
    detector = PaDiM(extract, n_channels=4).fit([noise(8, seed=1)])
    again, new = detector.fit([noise(8)]), PaDiM(extract, n_channels=4).fit([noise(8)])
    torch.testing.assert_close(again.cholesky, new.cholesky, rtol=0, atol=0)
    assert len({tuple(PaDiM(extract, 4, seed).fit([noise(5)]).channels.tolist()) for seed in range(5)}) > 1
    assert len(set(new.channels.tolist())) == 4


@pytest.mark.parametrize(("available", "drawn"), [(448, 100), (1792, 550), (9, 9)])
def test_the_papers_number_of_channels_is_drawn_unless_another_is_given(available, drawn):
    assert len(PaDiM(extract)._draw_channels(available)) == drawn


@pytest.mark.parametrize(
    ("settings", "images", "sentence"),
    [
        ({"n_channels": 10}, [noise(4)], "n_channels is 10"),
        ({"n_channels": 3}, [noise(1)], "at least two"),
        ({}, [], "at least two"),
        ({"n_channels": 3, "epsilon": 0}, [noise(2)], "raise epsilon"),
        ({"n_channels": 3}, [noise(4) * torch.nan], "look for NaN"),
    ],
)
def test_mistakes_are_told_in_one_sentence(settings, images, sentence):
    with pytest.raises(VisaError, match=sentence):
        PaDiM(extract, **settings).fit(images)
