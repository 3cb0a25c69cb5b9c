"""The few-shot probe: what its draws hold, and that it separates what can be separated."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from visa.data.splits import Sample
from visa.detect.probe import few_shot_draws, few_shot_scores, fit_probe, pooled_features
from visa.errors import VisaError
from visa.metrics import image_metrics


def rows(train=(30, 12), test=(50, 20), name="fryum"):
    counts = {"train": train, "test": test}
    return [
        Sample(name, split, label, f"{name}/{split}/{label}/{i}.JPG", "")
        for split, numbers in counts.items()
        for label, number in zip(("normal", "anomaly"), numbers, strict=True)
        for i in range(number)
    ]


def separable(samples, seed=0):
    """One of five features tells anomalies, at a scale far below the others'."""
    features = 100 * np.random.default_rng(seed).normal(size=(len(samples), 5)).astype(np.float32)
    features[:, 3] = [0.01 * (s.label == "anomaly") for s in samples]
    return features


def test_draws_hold_k_training_images_of_each_class_and_no_test_image():
    samples = rows()
    draws = few_shot_draws(samples, k=5, draws=4, seed=1)
    assert len(draws) == 4
    for drawn in draws:
        assert {s.split for s in drawn} == {"train"}
        assert [s.label for s in drawn].count("normal") == [s.label for s in drawn].count("anomaly") == 5
        assert len({s.image for s in drawn}) == 10
    assert draws == few_shot_draws(samples, k=5, draws=4, seed=1)
    assert draws[0] != draws[1]
    assert draws != few_shot_draws(samples, k=5, draws=4, seed=2)


def test_probe_finds_the_feature_that_tells_anomalies_whatever_its_scale():
    samples = rows()
    scores = few_shot_scores(separable(samples), samples, k=10, draws=3)
    labels = [s.label == "anomaly" for s in samples if s.split == "test"]
    assert scores.shape == (3, 70)
    assert all(image_metrics(s, labels)["auroc"] > 0.95 for s in scores)


def test_noise_tells_nothing():
    samples = rows(test=(300, 300))
    features = np.random.default_rng(0).normal(size=(len(samples), 20)).astype(np.float32)
    labels = [s.label == "anomaly" for s in samples if s.split == "test"]
    aurocs = [image_metrics(s, labels)["auroc"] for s in few_shot_scores(features, samples, k=10)]
    assert 0.4 < np.mean(aurocs) < 0.6


def test_test_images_do_not_reach_the_probe():
    samples = rows()
    features = separable(samples)
    changed = features.copy()
    changed[np.array([s.split == "test" for s in samples])] *= 3
    first = few_shot_scores(features, samples, k=5)
    again = few_shot_scores(np.vstack([features[:42], changed[42:45], features[45:]]), samples, k=5)
    np.testing.assert_array_equal(first[:, 3:], again[:, 3:])
    assert not np.array_equal(first[:, :3], again[:, :3])


def test_classes_of_unequal_size_are_balanced():
    """Nine normal images for each anomaly move a plain classifier's boundary, not this one's."""
    x = np.r_[np.full(90, -1.0), np.full(10, 1.0)][:, None]
    assert fit_probe(x, x[:, 0] > 0).decision_function([[0.0]]) == pytest.approx(0, abs=0.05)


def test_pooled_features_are_mean_and_maximum_of_every_map():
    images = torch.rand(5, 3, 8, 12)
    pooled = pooled_features(lambda x: [x, avg_pool2d(x, 2)], images.split(2))
    half = avg_pool2d(images, 2)
    expected = [images.mean((2, 3)), half.mean((2, 3)), images.amax((2, 3)), half.amax((2, 3))]
    np.testing.assert_allclose(pooled, torch.cat(expected, dim=1), rtol=1e-6)
    assert pooled.dtype == np.float32


def test_mistakes_are_told_in_one_sentence():
    samples = rows()
    with pytest.raises(VisaError, match="k=13"):
        few_shot_draws(samples, k=13)
    with pytest.raises(VisaError, match="0 anomalous"):
        few_shot_draws(rows(train=(30, 0)), k=5)
    with pytest.raises(VisaError, match="one object"):
        few_shot_draws([*samples, *rows(name="pcb1")], k=5)
    with pytest.raises(VisaError, match="one row each"):
        few_shot_scores(separable(samples)[1:], samples, k=5)
    with pytest.raises(VisaError, match="2-class"):
        fit_probe(np.eye(3), [0, 0, 0])
    with pytest.raises(VisaError, match="no images"):
        pooled_features(lambda x: [x], [])
