"""PaDiM against NumPy, on inputs whose answer is known, and through a file."""

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from visa.detect import shared
from visa.detect.padim import PaDiM
from visa.errors import VisaError


def extract(images: Tensor) -> list[Tensor]:
    """Three stages without weights: the colours at strides 1, 2 and 4."""
    return [images, avg_pool2d(images, 2), avg_pool2d(images, 4)]


def noise(count, seed=0, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_distances_equal_numpys_mahalanobis():
    train, test = noise(40), noise(3, seed=1)
    detector = PaDiM(extract, n_channels=5, seed=3).fit(train.split(7))

    def features(images):
        maps = [
            m.repeat_interleave(s, 2).repeat_interleave(s, 3) for m, s in zip(extract(images), (1, 2, 4), strict=True)
        ]
        return torch.cat(maps, dim=1)[:, detector.channels].double().numpy()

    a, b = features(train), features(test)
    got = detector._distances(test)
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


def test_memory_does_not_grow_with_the_number_of_images():
    """Images are taken from the batches in groups of at most 128, each given up before the next is made."""
    held = []

    def remembered(images):
        held.append(weakref.ref(images))
        return extract(images)

    def batches():
        for i in range(40):
            assert sum(images() is not None for images in held) <= 2
            yield noise(16, seed=i)

    groups = [(x.shape[1], x.data_ptr()) for x in PaDiM(remembered, n_channels=4)._groups(batches())]
    assert [images for images, _ in groups] == [128] * 5
    assert len({memory for _, memory in groups}) == 1


def test_layers_sigma_and_a_size_that_is_not_square():
    def two(images):
        return extract(images)[:2]

    train, test = torch.rand(10, 3, 16, 24), torch.rand(2, 3, 16, 24)
    detector = PaDiM(two, n_channels=6, sigma=0).fit([train])
    scores, maps = detector.score(test)
    assert maps.shape == (2, 16, 24)
    np.testing.assert_allclose(maps, detector._distances(test), rtol=1e-6)
    assert (PaDiM(two, 6, sigma=2).fit([train]).score(test)[0] < scores).all()
    with pytest.raises(VisaError, match="16 x 24 positions, not 24 x 16"):
        detector.score(test.mT)
    with pytest.raises(VisaError, match="several sizes"):
        PaDiM(two, 6).fit([train, train.mT])


def test_gaussians_that_exceed_the_memory_are_told_in_one_sentence(monkeypatch):
    monkeypatch.setattr(shared, "_memory", lambda device: 25_000.0)
    PaDiM(extract, n_channels=4).fit([noise(2)])
    with pytest.raises(VisaError, match=r"16 x 16 covariances of 5 channels need 0.0 GB"):
        PaDiM(extract, n_channels=5).fit([noise(2)])


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


def test_the_seed_decides_the_channels():
    def fit(seed):
        return PaDiM(extract, n_channels=4, seed=seed).fit([noise(5)])

    torch.testing.assert_close(fit(0).cholesky, fit(0).cholesky, rtol=0, atol=0)
    assert len({tuple(fit(s).channels.tolist()) for s in range(5)}) > 1
    assert len(set(fit(0).channels.tolist())) == 4


def test_fitting_again_forgets_the_first_fit():
    detector = PaDiM(extract, n_channels=4).fit([noise(8, seed=1)])
    again = detector.fit([noise(8)]).mean
    torch.testing.assert_close(again, PaDiM(extract, n_channels=4).fit([noise(8)]).mean, rtol=0, atol=0)
    with pytest.raises(VisaError, match="at least two"):
        detector.fit([noise(1)])
    with pytest.raises(VisaError, match="fit it"):
        detector.score(noise(1))


def test_a_saved_detector_scores_the_same(tmp_path):
    detector = PaDiM(extract, n_channels=4, seed=2).fit([noise(6)])
    detector.save(tmp_path / "padim.safetensors")
    loaded = PaDiM.load(tmp_path / "padim.safetensors", extract)
    assert (loaded.n_channels, loaded.seed) == (4, 2)
    for mine, theirs in zip(detector.score(noise(2, 9)), loaded.score(noise(2, 9)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [p.name for p in tmp_path.iterdir()] == ["padim.safetensors"]


def test_mistakes_are_told_in_one_sentence(tmp_path):
    with pytest.raises(VisaError, match="n_channels is 10"):
        PaDiM(extract, n_channels=10).fit([noise(4)])
    with pytest.raises(VisaError, match="at least two"):
        PaDiM(extract, n_channels=3).fit([noise(1)])
    with pytest.raises(VisaError, match="at least two"):
        PaDiM(extract).fit([])
    with pytest.raises(VisaError, match="raise epsilon"):
        PaDiM(extract, n_channels=3, epsilon=0).fit([noise(2)])
    with pytest.raises(VisaError, match="look for NaN"):
        PaDiM(extract, n_channels=3).fit([noise(4) * torch.nan])
    with pytest.raises(VisaError, match="fit it"):
        PaDiM(extract).score(noise(1))
    with pytest.raises(VisaError, match="fit the detector first"):
        PaDiM(extract).save(tmp_path / "empty.safetensors")
    with pytest.raises(VisaError, match="keep one image size"):
        PaDiM(extract, n_channels=3).fit([noise(4)]).score(noise(1, size=32))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(VisaError, match="no fitted detector"):
        PaDiM.load(tmp_path / "broken.safetensors", extract)
    with pytest.raises(VisaError, match="no fitted detector"):
        PaDiM.load(tmp_path / "absent.safetensors", extract)
