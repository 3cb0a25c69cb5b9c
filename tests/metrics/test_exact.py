"""The metrics against scikit-learn, closed forms, slow re-derivations and the reference tool's recorded outputs."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label
from sklearn.metrics import auc, average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from visa.errors import VisaError
from visa.metrics import compute_classification_metrics, compute_localization_metrics, image_metrics, pixel_metrics


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


SCORES = arrays(np.float32, (2, 3, 4), elements=st.sampled_from([-2, -0.0, 0, 0.5, 0.5 + 2**-24, 3]))


@settings(max_examples=60, deadline=None)
@given(SCORES, arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 1)), st.sampled_from([0.01, 0.3, 1.0]))
def test_any_maps_have_the_metrics_of_a_sweep_over_all_their_scores(maps, masks, max_fpr):
    assume(0 < masks.sum() < masks.size)
    called = [maps >= t for t in np.unique(maps)[::-1]]
    recall, fpr = ([np.mean(c[masks == kind]) for c in called] for kind in (1, 0))
    precision = [np.mean(masks[c]) for c in called]
    f1 = [2 * np.sum(c & (masks == 1)) / (c.sum() + masks.sum()) for c in called]
    expected = {
        "auroc": np.trapezoid([0, *recall], [0, *fpr]),
        "au_pr": np.trapezoid([1, *precision], [0, *recall]),
        "ap": np.sum(precision * np.diff(recall, prepend=0)),
        "f1_max": max(f1),
        "f1_threshold": np.unique(maps)[::-1][np.argmax(f1)],
        "au_pro": slow_au_pro(maps, masks, max_fpr),
    }
    assert pixel_metrics(maps, masks, max_fpr) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("end", [np.inf, -np.inf])
def test_infinite_scores_are_the_highest_or_the_lowest(end):
    scores, labels = np.array([1, 2, end, 3, 0, 5.0]), np.array([0, 0, 1, 1, 0, 1])
    finite = np.where(np.isinf(scores), np.sign(end) * 100, scores)
    got, expected = image_metrics(scores, labels), image_metrics(finite, labels)
    assert got.pop("f1_threshold") == scores[finite == expected.pop("f1_threshold")][0]
    assert got == expected


def test_masks_of_255_and_bool_mean_the_same_as_1(maps_and_masks):
    maps, masks = maps_and_masks(1)
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(maps, masks * 255) == pixel_metrics(maps, masks.astype(bool)) == expected


@pytest.mark.parametrize("metric", [pixel_metrics, compute_localization_metrics])
def test_unusable_pixels_are_refused_in_one_sentence(metric, maps_and_masks):
    maps, masks = maps_and_masks(2)
    mixed = masks.copy()
    mixed[0, 0, 0] = 255
    refused = {
        "class ids": (maps, masks * 7),
        "1, 255": (maps, mixed),
        "no anomalous pixels": (maps, np.zeros_like(masks)),
        "no normal pixels": (maps, np.ones_like(masks)),
        "shape": (maps[:, :-1], masks),
        "NaN": (np.where(masks == 1, np.nan, maps), masks),
    }
    for sentence, given_pixels in refused.items():
        with pytest.raises(VisaError, match=sentence):
            metric(*given_pixels)
    with pytest.raises(VisaError, match="max_fpr"):
        pixel_metrics(maps, masks, max_fpr=30)


@pytest.mark.parametrize("metric", [image_metrics, compute_classification_metrics])
def test_unusable_images_are_refused_in_one_sentence(metric):
    refused = {"no anomalous images": ([0.1, 0.2], [0, 0]), "NaN": ([0.1, np.nan], [0, 1]), "shape": ([], [[]])}
    for sentence, images in refused.items():
        with pytest.raises(VisaError, match=sentence):
            metric(*images)


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


def test_perfect_metrics_are_one_and_not_a_rounding_above_it(maps_and_masks):
    for positives in range(1, 60):
        labels = np.arange(positives + 50) >= 50
        metrics = image_metrics(np.arange(len(labels), dtype=np.float64), labels)
        assert all(1 - 1e-12 < metrics[name] <= 1 for name in ("auroc", "au_pr", "ap", "f1_max"))
    for seed in range(20):
        _, masks = maps_and_masks(seed)
        scores = masks + np.random.default_rng(seed).random(masks.shape) / 2
        assert 1 - 1e-12 < pixel_metrics(scores, masks)["au_pro"] <= 1
