"""The figures against scikit-learn, closed forms, slow re-derivations and the reference tool's recorded outputs."""

import copy
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.metrics import auc, average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from visa.errors import VisaError
from visa.metrics import (
    ExactPixelMetrics,
    compute_classification_metrics,
    compute_localization_metrics,
    image_metrics,
    pixel_metrics,
    tally,
)


def slow_au_pro(maps, masks, max_fpr):
    """Threshold by threshold, region by region."""
    regions = []
    for n, mask in enumerate(masks):
        labels, count = label(mask, np.ones((3, 3)))
        regions += [maps[n][labels == i] for i in range(1, count + 1)]
    normal = maps[masks == 0]
    points = [(np.mean(normal >= t), np.mean([np.mean(r >= t) for r in regions])) for t in np.unique(maps)[::-1]]
    area = 0.0
    for (f0, p0), (f1, p1) in pairwise([(0.0, 0.0), *points]):
        if f1 > max_fpr:
            p1 = p0 + (p1 - p0) * (max_fpr - f0) / (f1 - f0)
            return (area + (p0 + p1) / 2 * (max_fpr - f0)) / max_fpr
        area += (p0 + p1) / 2 * (f1 - f0)
    return area / max_fpr


@pytest.mark.parametrize("levels", [None, 2, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_image_metrics_agree_with_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 60)
    scores = rng.normal(size=60) + labels
    scores = scores if levels is None else np.round(scores * levels) / levels
    got = image_metrics(scores, labels)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    assert got["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert got["ap"] == pytest.approx(average_precision_score(labels, scores))
    assert got["au_pr"] == pytest.approx(auc(recall, precision))
    assert got["f1_max"] == pytest.approx(max(f1_score(labels, scores >= t) for t in thresholds))
    assert f1_score(labels, scores >= got["f1_threshold"]) == pytest.approx(got["f1_max"])


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_metrics_agree_with_scikit_learn_and_a_slow_au_pro(seed, levels, maps_and_masks):
    maps, masks = maps_and_masks(seed, levels)
    got = pixel_metrics(maps, masks)
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    assert got["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert got["ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))
    assert got["au_pr"] == pytest.approx(auc(recall, precision))
    for max_fpr in (0.05, 0.3, 1.0):
        assert pixel_metrics(maps, masks, max_fpr)["au_pro"] == pytest.approx(slow_au_pro(maps, masks, max_fpr))


@pytest.mark.parametrize("levels", [None, 2])
def test_cells_of_any_size_count_alike(levels, maps_and_masks, monkeypatch):
    maps, masks = maps_and_masks(4, levels, size=(6, 40, 60))
    maps[0, 3, 3], maps[1, 3, 3] = 1e6, -1e6
    expected = pixel_metrics(maps, masks)
    monkeypatch.setattr(tally, "_CHUNK", 999)
    for cells, crowded in (((8, 10), 10**6), ((8, 2**22), 10**6), ((2000, 2**22), 10**6), ((8, 2**22), 0)):
        monkeypatch.setattr(tally, "_CELLS", cells)
        monkeypatch.setattr(tally, "_CROWDED", crowded)
        assert pixel_metrics(maps, masks) == expected
    assert pixel_metrics(np.where(masks == 1, np.inf, maps), masks)["ap"] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_two_passes_in_three_processes_are_one(order, maps_and_masks):
    """Collect in parts, merge, count in parts elsewhere, merge."""
    maps, masks = maps_and_masks(2, 3, size=(6, 16, 20))
    parts = []
    for i in order:
        part = ExactPixelMetrics()
        part.collect(maps[i::3], masks[i::3])
        parts.append(part)
    for part in parts[1:]:
        parts[0].merge(part)
    counting = [copy.deepcopy(parts[0]) for _ in order]
    for i, part in zip(order, counting, strict=True):
        part.count(maps[i::3])
    for part in counting[1:]:
        counting[0].merge(part)
    assert counting[0].compute() == pytest.approx(pixel_metrics(maps, masks), abs=1e-12)


def test_two_passes_that_do_not_fit_are_refused(maps_and_masks):
    maps, masks = maps_and_masks(2)
    first = ExactPixelMetrics()
    first.collect(maps, masks)
    second = copy.deepcopy(first)
    first.count(maps[:-1])
    with pytest.raises(VisaError, match="read the same twice"):
        first.compute()
    with pytest.raises(VisaError, match="has begun"):
        first.collect(maps, masks)
    with pytest.raises(VisaError, match=r"max_fpr is 0\.3 here and 1 there"):
        first.merge(ExactPixelMetrics(max_fpr=1))
    second.collect(maps[:1], masks[:1] + 0)
    second.count(maps)
    other = ExactPixelMetrics()
    other.collect(maps + 1, masks)
    other.count(maps)
    with pytest.raises(VisaError, match="different anomalous pixels"):
        second.merge(other)
    with pytest.raises(VisaError, match="no anomalous pixels"):
        ExactPixelMetrics().compute()


def test_a_process_without_an_image_to_count_is_merged(maps_and_masks):
    maps, masks = maps_and_masks(2)
    busy = ExactPixelMetrics()
    busy.collect(maps, masks)
    idle = copy.deepcopy(busy)
    busy.count(maps)
    for one, other in ((copy.deepcopy(busy), copy.deepcopy(idle)), (idle, busy)):
        one.merge(other)
        assert one.compute() == pixel_metrics(maps, masks)


@pytest.mark.parametrize("end", [np.inf, -np.inf])
def test_infinite_scores_are_the_highest_or_the_lowest(end):
    scores, labels = np.array([1, 2, end, 3, 0, 5.0]), np.array([0, 0, 1, 1, 0, 1])
    finite = np.where(np.isinf(scores), np.sign(end) * 100, scores)
    got, expected = image_metrics(scores, labels), image_metrics(finite, labels)
    assert got.pop("f1_threshold") == scores[finite == expected.pop("f1_threshold")][0]
    assert got == expected


def test_perfect_and_reversed_scores():
    labels = np.array([0, 0, 0, 1])
    perfect = image_metrics([0.1, 0.2, 0.3, 0.9], labels)
    assert perfect == {"auroc": 1, "au_pr": 1, "ap": 1, "f1_max": 1, "f1_threshold": 0.9}
    reverse = image_metrics([0.9, 0.8, 0.7, 0.1], labels)
    assert (reverse["auroc"], reverse["ap"]) == (0, 0.25)
    assert reverse["au_pr"] == pytest.approx(0.125)  # from (0, 0) to (1, 1/4)


def test_constant_scores_say_nothing(maps_and_masks):
    maps, masks = maps_and_masks(0)
    got = pixel_metrics(np.full_like(maps, 3.0), masks)
    share = masks.mean()
    assert got["auroc"] == pytest.approx(0.5)
    assert got["ap"] == pytest.approx(share)
    assert got["au_pr"] == pytest.approx((1 + share) / 2)  # the trapezoid's known optimism
    assert got["f1_max"] == pytest.approx(2 * share / (1 + share))
    assert got["au_pro"] == pytest.approx(0.15)  # the diagonal up to 0.3, over 0.3


def test_au_pro_weighs_regions_not_pixels():
    """One large region found at once, one single pixel never: PRO stays at 1/2, whatever the sizes."""
    maps, masks = np.zeros((1, 20, 20)), np.zeros((1, 20, 20), bool)
    masks[0, :10, :10] = masks[0, 15, 15] = True
    maps[0, :10, :10], maps[0, 15, 15] = 1, -1
    assert pixel_metrics(maps, masks)["au_pro"] == pytest.approx(0.5)


def test_regions_that_touch_at_a_corner_are_one():
    maps, masks = np.zeros((1, 8, 8)), np.zeros((1, 8, 8), bool)
    masks[0, 1, 1] = masks[0, 2, 2] = masks[0, 6, 6] = True
    maps[0, 1, 1] = maps[0, 2, 2] = 1
    maps[0, 6, 6] = -1
    assert pixel_metrics(maps, masks)["au_pro"] == pytest.approx(0.5)  # 2/3 with 4-connectivity


def test_masks_of_255_and_bool_mean_the_same_as_1(maps_and_masks):
    maps, masks = maps_and_masks(1)
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(maps, masks * 255) == pixel_metrics(maps, masks.astype(bool)) == expected
    assert (
        compute_localization_metrics(maps, masks * 255)["pr_auc"] == compute_localization_metrics(maps, masks)["pr_auc"]
    )


@pytest.mark.parametrize("metric", [pixel_metrics, compute_localization_metrics])
def test_unusable_pixels_are_refused_in_one_sentence(metric, maps_and_masks):
    maps, masks = maps_and_masks(2)
    with pytest.raises(VisaError, match="class ids"):
        metric(maps, masks * 7)
    mixed = masks.copy()
    mixed[0, 0, 0] = 255
    with pytest.raises(VisaError, match="1, 255"):
        metric(maps, mixed)
    with pytest.raises(VisaError, match="no anomalous pixels"):
        metric(maps, np.zeros_like(masks))
    with pytest.raises(VisaError, match="no normal pixels"):
        metric(maps, np.ones_like(masks))
    with pytest.raises(VisaError, match="shape"):
        metric(maps[:, :-1], masks)
    with pytest.raises(VisaError, match="NaN"):
        metric(np.where(masks == 1, np.nan, maps), masks)


@pytest.mark.parametrize("metric", [image_metrics, compute_classification_metrics])
def test_unusable_images_are_refused_in_one_sentence(metric):
    with pytest.raises(VisaError, match="no anomalous images"):
        metric([0.1, 0.2], [0, 0])
    with pytest.raises(VisaError, match="NaN"):
        metric([0.1, np.nan], [0, 1])
    with pytest.raises(VisaError, match="shape"):
        metric([0.1, 0.2, 0.3], [0, 1])
    with pytest.raises(VisaError, match="shape"):
        metric([], [[]])


def test_max_fpr_out_of_range_is_refused(maps_and_masks):
    with pytest.raises(VisaError, match="max_fpr"):
        pixel_metrics(*maps_and_masks(0), max_fpr=30)


def test_localization_replacement_follows_the_sweep(maps_and_masks):
    """The reference's curves, threshold by threshold."""
    maps, masks = maps_and_masks(3, levels=4)
    got = compute_localization_metrics(maps, masks)
    inside, outside = maps[masks == 1], maps[masks == 0]
    assert len(got["thresholds"]) == 202
    spaced = [inside.min() + i / 99 * np.ptp(inside) for i in range(100)]
    percentiles = [np.percentile(inside, i / 99 * 100) for i in range(100)]
    expected = np.sort([*spaced, *percentiles, maps.min(), maps.max()])[::-1]
    np.testing.assert_allclose(got["thresholds"], expected, atol=1e-6)
    for i, t in enumerate(got["thresholds"]):
        tp, fp = np.sum(inside > t), np.sum(outside > t)
        precision = tp / (tp + fp) if tp + fp else 1
        recall = tp / inside.size
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
        expected = (recall, fp / outside.size, precision, f1)
        assert [got[k][i] for k in ("tpr", "fpr", "precision", "f1")] == pytest.approx(expected)
    assert got["roc_auc"] == pytest.approx(np.trapezoid(got["tpr"], got["fpr"]), abs=1e-4)


def test_classification_replacement_has_the_threshold_of_the_precision_recall_curve():
    got = compute_classification_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert list(got) == ["auroc", "fpr", "tpr", "threshold", "au_pr"]
    assert got["auroc"] == 0.75
    assert got["threshold"].tolist() == [0.1, 0.35, 0.4, 0.8]
    assert got["au_pr"] == pytest.approx(image_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])["au_pr"])


@pytest.mark.real
@pytest.mark.parametrize("case", "abc")
def test_replacements_return_what_the_reference_tool_returned(case, reference):
    recorded = np.load(reference / "metrics.npz", allow_pickle=False)
    r = {k[2:]: recorded[k] for k in recorded.files if k.startswith(f"{case}_")}
    pixels = compute_localization_metrics(r["scores"], r["masks"])
    assert set(pixels) == {"fpr", "tpr", "precision", "f1", "thresholds", "roc_auc", "pr_auc"}
    images = compute_classification_metrics(r["image_scores"], r["image_labels"])
    assert set(images) == {"auroc", "fpr", "tpr", "threshold", "au_pr"}
    for key, value in pixels.items():
        np.testing.assert_allclose(value, r[key], rtol=0, atol=1e-12, err_msg=key)
    for key, value in images.items():
        np.testing.assert_allclose(value, r[f"image_{key}"], rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("seed", range(20))
def test_regions_that_are_found_before_all_else_are_one_and_not_a_rounding_above_it(seed, maps_and_masks):
    _, masks = maps_and_masks(seed)
    scores = masks + np.random.default_rng(seed).random(masks.shape) / 2
    assert 1 - 1e-12 < pixel_metrics(scores, masks)["au_pro"] <= 1


def test_of_two_thresholds_of_the_greatest_f1_the_higher_is_given():
    figures = image_metrics([4, 3, 2, 1], [1, 0, 0, 1])
    assert (figures["f1_max"], figures["f1_threshold"]) == (pytest.approx(2 / 3), 4)


def test_two_passes_over_different_scores_are_refused(maps_and_masks):
    maps, masks = maps_and_masks(3)
    for other in (maps * (1 + 1e-7), maps.astype(np.float16), maps - masks):
        exact = ExactPixelMetrics(np.float16(0.3))
        exact.collect(maps, masks)
        exact.count(other)
        with pytest.raises(VisaError, match="are not those that were collected: read the same twice"):
            exact.compute()


@pytest.mark.parametrize("positives", range(1, 60))
def test_a_perfect_score_is_one_and_not_a_rounding_above_it(positives):
    labels = np.arange(positives + 50) >= 50
    figures = image_metrics(np.arange(len(labels), dtype=np.float64), labels)
    assert max(figures[name] for name in ("auroc", "au_pr", "ap", "f1_max")) <= 1
    assert min(figures[name] for name in ("auroc", "au_pr", "ap", "f1_max")) == pytest.approx(1)
