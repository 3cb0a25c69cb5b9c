"""The one-pass figures: near the exact ones, enclosed by their bounds, the same whatever the order."""

import numpy as np
import pytest

from visa.errors import VisaError
from visa.metrics import PixelMetrics, curves, histogram, pixel_metrics


def read(maps, masks, max_fpr=0.3):
    found = PixelMetrics(max_fpr)
    found.update(maps, masks)
    return found


@pytest.mark.parametrize("offset", [0, -1000, 1e-3])
@pytest.mark.parametrize("seed", range(3))
def test_one_pass_is_near_the_exact_figures(seed, offset, maps_and_masks):
    maps, masks = maps_and_masks(seed, size=(8, 64, 80))
    maps = maps + np.float32(offset)
    got, exact = read(maps, masks).compute(), pixel_metrics(maps, masks)
    assert got == pytest.approx(exact, abs=2e-3)
    assert (got["auroc"], got["au_pro"]) == pytest.approx((exact["auroc"], exact["au_pro"]), abs=5e-5)


@pytest.mark.parametrize("outlier", [None, 1e3, 1e5, 1e9])
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_the_bounds_enclose_the_exact_figures_and_the_estimates(max_fpr, outlier, maps_and_masks):
    """An outlier makes the bins as wide as thousands of scores."""
    for seed in range(5):
        maps, masks = maps_and_masks(seed)
        if outlier is not None:
            maps[-1, 0, 0] = outlier
        found = read(maps, masks, max_fpr)
        estimate, exact = found.compute(), pixel_metrics(maps, masks, max_fpr)
        for name, (low, high) in found.bounds().items():
            assert low - 1e-12 <= exact[name] <= high + 1e-12, name
            assert low - 1e-12 <= estimate[name] <= high + 1e-12, name


def test_the_bounds_hold_for_every_order_inside_the_groups():
    """Orders and ties inside groups drawn at random, the two extreme orders among them; the extremes are nearly met."""
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 6, 7), rng.integers(0, 40, 7)
    positives[2] = 5
    share = rng.random(7) * (positives > 0)
    steps = curves.steps_of_groups(positives, negatives)
    bounds = curves.bounds(steps, share / share.sum(), 0.3)
    values = {name: [] for name in bounds}
    for trial in range(150):
        maps, truth, weights = [], [], []
        for group, (p, n) in enumerate(zip(positives, negatives, strict=True)):
            inside = rng.random(p + n) if trial % 3 else rng.integers(0, 3, p + n) / 3
            if trial < 2:
                inside = np.append(np.linspace(0.9, 0.99, p), np.full(n, 0.5))
                inside = 1 - inside if trial else inside
            maps += list(7 - group + inside * 0.99)
            truth += [1] * p + [0] * n
            weights += [share[group] / max(p, 1)] * p
        maps, truth = np.array(maps), np.array(truth)
        exact = pixel_metrics(maps[None, None], truth[None, None])
        values = {k: [*v, exact[k]] for k, v in values.items() if k != "au_pro"} | {
            "au_pro": [*values["au_pro"], weighted_area(maps, truth, np.array(weights) / share.sum(), 0.3)]
        }
    for name, (low, high) in bounds.items():
        slack = 1e-4 if name == "au_pro" else 1e-12  # of the quadrature in `weighted_area`
        assert low - slack <= min(values[name]) and max(values[name]) <= high + slack, name
        assert max(values[name]) - min(values[name]) > 0.6 * (high - low), name


def weighted_area(maps, truth, weights, max_fpr):
    normal = maps[truth == 0]
    rates = [(np.mean(normal > s), np.mean(normal >= s)) for s in maps[truth == 1]]
    fine = np.linspace(0, max_fpr, 3001)
    found = sum(
        w * (np.clip((fine - a) / (b - a), 0, 1) if b > a else fine >= a)
        for w, (a, b) in zip(weights, rates, strict=True)
    )
    return np.trapezoid(found, fine) / max_fpr


@pytest.mark.parametrize("levels", [1, 4])
def test_few_levels_and_constant_scores_are_exact(levels, maps_and_masks):
    maps, masks = maps_and_masks(0, levels)
    found = read(maps, masks)
    assert found.compute() == pytest.approx(pixel_metrics(maps, masks), abs=1e-12)
    constant = read(np.full_like(maps, -0.1), masks)
    assert constant.compute()["ap"] == pytest.approx(masks.mean())
    assert constant.compute()["auroc"] == pytest.approx(0.5)


def test_the_threshold_reaches_the_f1_that_stands_beside_it(maps_and_masks):
    maps, masks = maps_and_masks(1)
    maps[-1, 0, 0] = 1e5
    got = read(maps, masks).compute()
    called = maps >= got["f1_threshold"]
    assert 2 * (called & (masks == 1)).sum() / (called.sum() + masks.sum()) == pytest.approx(got["f1_max"])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_merging_in_any_order_is_one_pass_to_the_bit(order, maps_and_masks):
    """Parts of very different ranges, so that bins are widened again and again."""
    maps, masks = maps_and_masks(3, size=(8, 16, 20))
    maps *= np.repeat(np.float32([1, 1e-3, 30, 700]), 2)[:, None, None]
    whole = read(maps, masks)
    parts = [read(maps[2 * i : 2 * i + 2], masks[2 * i : 2 * i + 2]) for i in order]
    merged = PixelMetrics()
    for part in parts:
        merged.merge(part)
    for name in ("auroc", "au_pr", "ap", "f1_max", "f1_threshold"):
        assert merged.compute()[name] == whole.compute()[name]
    assert merged.compute()["au_pro"] == pytest.approx(whole.compute()["au_pro"], abs=1e-14)  # sums of fractions
    for name, pair in whole.bounds().items():
        assert merged.bounds()[name] == pytest.approx(pair)


def test_regions_do_not_cross_images(maps_and_masks):
    maps, masks = np.zeros((2, 4, 4)), np.zeros((2, 4, 4), np.uint8)
    masks[:, :2], maps[0, :2], maps[1, :2] = 1, 1, -1
    assert read(maps, masks).compute()["au_pro"] == pytest.approx(0.5)


@pytest.mark.parametrize("pixels", [1000, 10**9])
def test_chunks_do_not_matter(pixels, maps_and_masks, monkeypatch):
    maps, masks = maps_and_masks(1, size=(5, 70, 50))
    expected = read(maps, masks).compute()
    monkeypatch.setattr(histogram, "_CHUNK", pixels)
    assert read(maps.astype(np.float64), masks * 255).compute() == expected


def test_unusable_streams_are_refused(maps_and_masks):
    maps, masks = maps_and_masks(0)
    for bad in (np.nan, np.inf):
        broken = maps.copy()
        broken[0, 0, 0] = bad
        with pytest.raises(VisaError, match="NaN or infinite"):
            read(broken, masks)
    with pytest.raises(VisaError, match="class ids"):
        read(maps, masks * 3)
    with pytest.raises(VisaError, match="1, 255"):
        read(maps, masks).merge(read(maps, masks * 255))
    with pytest.raises(VisaError, match="merge equals"):
        read(maps, masks).merge(PixelMetrics(0.1))
    with pytest.raises(VisaError, match="no anomalous pixels"):
        read(maps[-2:], masks[-2:]).compute()
    with pytest.raises(VisaError, match="shape"):
        read(maps, masks[:, 1:])
    with pytest.raises(VisaError, match="max_fpr"):
        PixelMetrics(0)
