"""Bootstrap intervals: each draw is what the metrics of the drawn images are, and intervals cover."""

import numpy as np
import pytest

from visa.errors import VisaError
from visa.metrics import image_intervals, image_metrics, intervals, pixel_intervals, pixel_metrics


def drawn_images(positive, resamples, seed):
    """Each draw as a list of images, from the weights that `resample` passes."""
    seen = []

    def metrics(times):
        seen.extend(times.astype(int))
        return {"n": times.sum(axis=1)}

    intervals.resample(metrics, positive, resamples, seed)
    return [np.repeat(np.arange(positive.size), times) for times in seen]


@pytest.mark.parametrize("levels", [None, 1])
def test_each_draw_of_images_has_the_metrics_of_these_images(levels):
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], [20, 15])
    scores = rng.normal(size=35) + labels
    scores = scores if levels is None else np.round(scores)
    got = intervals.resample(intervals.images_drawn(scores, labels), labels, 40, seed=5)
    for i, chosen in enumerate(drawn_images(labels, 40, seed=5)):
        assert labels[chosen].sum() == 15
        expected = image_metrics(scores[chosen], labels[chosen])
        assert {k: v[i] for k, v in got.items()} == pytest.approx({k: expected[k] for k in got})


def test_each_draw_of_maps_has_the_metrics_of_these_maps(maps_and_masks):
    maps, masks = maps_and_masks(0, size=(8, 16, 20))
    positive = masks.any(axis=(1, 2))
    got = intervals.resample(intervals.pixels_drawn(maps, masks, 0.3), positive, 30, seed=1)
    for i, chosen in enumerate(drawn_images(positive, 30, seed=1)):
        expected = pixel_metrics(maps[chosen], masks[chosen])
        for name, values in got.items():
            assert values[i] == pytest.approx(expected[name], abs=2e-4), name


@pytest.mark.parametrize("outlier", [1e6, np.inf])
def test_one_pixel_far_above_all_others_moves_no_interval(maps_and_masks, outlier):
    maps, masks = maps_and_masks(0, size=(12, 32, 32))
    got = pixel_intervals(maps, masks, resamples=50)
    normal = np.flatnonzero(~masks.any(axis=(1, 2)))[0]
    maps[normal, 0, 0] = outlier
    for name, moved in pixel_intervals(maps, masks, resamples=50).items():
        assert moved == pytest.approx(got[name], abs=0.02), name


def test_an_interval_needs_draws_with_both_kinds_and_a_confidence(maps_and_masks):
    with pytest.raises(VisaError, match="resamples is 0"):
        image_intervals([1, 2], [0, 1], resamples=0)
    with pytest.raises(VisaError, match="confidence 2"):
        pixel_intervals(*maps_and_masks(0), confidence=2)
    masks = np.zeros((2, 6, 6), np.uint8)
    masks[0], masks[1, :3] = 1, 1
    with pytest.raises(VisaError, match="some draws of these images hold no normal pixel"):
        pixel_intervals(np.random.default_rng(0).normal(size=masks.shape), masks, resamples=100)


def test_values_are_exact_and_seeds_repeat(maps_and_masks):
    maps, masks = maps_and_masks(3)
    got, exact = pixel_intervals(maps, masks, resamples=100, seed=4), pixel_metrics(maps, masks)
    assert {name: interval.value for name, interval in got.items()} == {name: exact[name] for name in got}
    assert got == pixel_intervals(maps, masks, resamples=100, seed=4)
    assert got != pixel_intervals(maps, masks, resamples=100, seed=5)
    assert all(i.low <= i.high for i in got.values())
    perfect = image_intervals(np.arange(20), np.arange(20) >= 12, resamples=50)
    assert set(perfect.values()) == {(1.0, 1.0, 1.0)}
