"""PatchCore's coreset, neighbours and scores against plain versions, on inputs whose answer is known, and a file."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from visa.detect.padim import PaDiM
from visa.detect.patchcore import PatchCore, greedy_coreset, nearest_patches
from visa.errors import VisaError


def extract(images: Tensor) -> list[Tensor]:
    """Two stages without weights: the colours at strides 4 and 8."""
    return [avg_pool2d(images, 4), avg_pool2d(images, 8)]


def noise(count, seed=0, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def plain_greedy(x, count, start):
    picks, nearest = [start], torch.full((len(x),), torch.inf)
    while len(picks) < count:
        nearest = torch.minimum(nearest, (x - x[picks[-1]]).norm(dim=1))
        picks.append(int(nearest.argmax()))
    return picks


@pytest.mark.parametrize("clustered", [False, True])
def test_coreset_picks_equal_the_plain_greedy_ones(clustered):
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    if clustered:  # where most of the work is skipped
        x = 0.05 * x + 5 * x[torch.arange(3000) % 20]
    assert greedy_coreset(x, 150, start=7).tolist() == plain_greedy(x, 150, start=7)


def test_coreset_covers_every_distinct_patch():
    x = torch.eye(6).repeat(5, 1)
    assert len({tuple(row) for row in x[greedy_coreset(x, 6)].tolist()}) == 6


def test_neighbours_equal_brute_force_and_are_exact_near_zero():
    rng = torch.Generator().manual_seed(0)
    bank, x = torch.randn(200, 16, generator=rng), torch.randn(300, 16, generator=rng)
    distance, index = nearest_patches(x, bank)
    plain = (x[:, None].double() - bank.double()).norm(dim=2).min(1)
    torch.testing.assert_close(distance, plain.values.float())
    assert index.equal(plain.indices)
    far = bank + 1000
    assert nearest_patches(far, far)[0].max() == 0


def test_image_score_follows_equation_7():
    detector = PatchCore(extract, count=40, neighbors=9).fit([noise(4)])
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


def test_training_images_score_zero_where_the_bank_keeps_every_patch():
    detector = PatchCore(extract, ratio=1.0).fit([noise(2)])
    assert len(detector.bank) == 2 * 16 * 16
    scores, maps = detector.score(noise(2))
    assert scores.max() == 0
    assert maps.max() == 0


def test_a_bank_of_one_patch_still_scores():
    scores, _ = PatchCore(extract, count=1).fit([noise(1)]).score(noise(1, seed=2))
    assert scores[0] > 0


def test_ratio_and_seed_decide_the_coreset():
    def fit(seed):
        return PatchCore(extract, ratio=0.05, seed=seed).fit(noise(4).split(3))

    assert len(fit(0).bank) == round(0.05 * 4 * 256)
    assert fit(0).picks.equal(fit(0).picks)
    assert not fit(0).picks.equal(fit(1).picks)


def test_a_saved_detector_scores_the_same(tmp_path):
    detector = PatchCore(extract, count=20, seed=4).fit([noise(3)])
    detector.save(tmp_path / "patchcore.safetensors")
    loaded = PatchCore.load(tmp_path / "patchcore.safetensors", extract)
    assert (loaded.count, loaded.seed, loaded.neighbors) == (20, 4, 9)
    assert loaded.picks.equal(detector.picks)
    assert loaded.projection.equal(detector.projection)
    for mine, theirs in zip(detector.score(noise(2, 9)), loaded.score(noise(2, 9)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(VisaError, match="holds no PaDiM"):
        PaDiM.load(tmp_path / "patchcore.safetensors", extract)


def test_mistakes_are_told_in_one_sentence(tmp_path):
    with pytest.raises(VisaError, match="no training images"):
        PatchCore(extract).fit([])
    for wrong in (PatchCore(extract, count=0), PatchCore(extract, count=257), PatchCore(extract, ratio=1.5)):
        with pytest.raises(VisaError, match="set ratio"):
            wrong.fit([noise(1)])
    with pytest.raises(VisaError, match="fit it"):
        PatchCore(extract).score(noise(1))
    with pytest.raises(VisaError, match="fit the detector first"):
        PatchCore(extract).save(tmp_path / "empty.safetensors")
