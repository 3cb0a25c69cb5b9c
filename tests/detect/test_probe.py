"""The probe: that it separates what can be separated, and sees each image once."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from visa.backbone import create_backbone
from visa.data.dataset import load_images
from visa.data.setups import Split
from visa.data.splits import Sample, read_split, select, split_file
from visa.detect import probe
from visa.detect.probe import PooledFeatures, fit_probe, pooled_features, score_probe
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


def split_of(samples, setup="2cls_highshot"):
    return Split(setup, "fryum", 0, *(tuple(select(samples, split=part)) for part in ("train", "test")))


def features_of(samples, features):
    rows = dict(zip((s.image for s in samples), features, strict=True))
    return lambda wanted: np.stack([rows[s.image] for s in wanted])


def test_probe_finds_the_feature_that_tells_anomalies_whatever_its_scale():
    samples = rows()
    scores = score_probe(features_of(samples, separable(samples)), split_of(samples))
    labels = [s.label == "anomaly" for s in samples if s.split == "test"]
    assert scores.shape == (70,)
    assert image_metrics(scores, labels)["auroc"] > 0.95


def test_noise_tells_nothing():
    samples = rows(test=(300, 300))
    features = np.random.default_rng(0).normal(size=(len(samples), 20)).astype(np.float32)
    labels = [s.label == "anomaly" for s in samples if s.split == "test"]
    assert 0.4 < image_metrics(score_probe(features_of(samples, features), split_of(samples)), labels)["auroc"] < 0.6


def test_test_images_do_not_reach_the_probe():
    samples = rows()
    features = separable(samples)
    first = score_probe(features_of(samples, features), split_of(samples))
    changed = np.vstack([features[:42], 3 * features[42:45], features[45:]])
    again = score_probe(features_of(samples, changed), split_of(samples))
    np.testing.assert_array_equal(first[3:], again[3:])
    assert not np.array_equal(first[:3], again[:3])


def test_each_image_passes_the_backbone_once_however_many_splits_hold_it(mini_root, monkeypatch):
    monkeypatch.setattr(probe, "SIZE", (64, 64))
    samples = select(read_split(split_file(mini_root, "2cls_highshot")), object="fryum")
    features = PooledFeatures(create_backbone("resnet18_half").eval(), mini_root)
    seen = []
    monkeypatch.setattr(probe, "load_images", lambda *a, **k: seen.append(len(a[1])) or load_images(*a, **k))
    first = features(samples[:5])
    again = features(samples[6:2:-1])
    assert seen == [5, 2]
    np.testing.assert_array_equal(again[-1], first[3])
    np.testing.assert_allclose(features(samples[5:7])[1], again[0])
    assert first.shape == (5, 2 * (64 + 128 + 256))


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
    with pytest.raises(VisaError, match="2-class"):
        fit_probe(np.eye(3), [0, 0, 0])
    with pytest.raises(VisaError, match="no images"):
        pooled_features(lambda x: [x], [])
