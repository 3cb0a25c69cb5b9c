"""The probe separates what can be separated, and sees each image once."""

import numpy as np
import pytest
from torch import nn

from visa.data.setups import Split
from visa.data.splits import Sample, select
from visa.detect.probe import fit_probe, score_split
from visa.detect.shared import Context
from visa.errors import VisaError
from visa.metrics import image_metrics


def test_probe_finds_the_feature_that_tells_anomalies_whatever_its_scale(tmp_path):
    """One of five features tells anomalies, at a scale far below the others'; no image is read."""
    kinds = [("train", "normal")] * 30 + [("train", "anomaly")] * 12 + [("test", "normal"), ("test", "anomaly")] * 30
    samples = [Sample("fryum", *kind, f"fryum/{i}.JPG", "") for i, kind in enumerate(kinds)]
    features = 100 * np.random.default_rng(0).normal(size=(len(samples), 5)).astype(np.float32)
    features[:, 3] = [0.01 * (s.label == "anomaly") for s in samples]
    kept = {"probe": dict(zip((s.image for s in samples), features, strict=True))}
    parts = [tuple(select(samples, split=part)) for part in ("train", "test")]
    scores, maps = score_split(Context(nn.Identity(), tmp_path, kept=kept), Split("2cls_highshot", "fryum", 0, *parts))
    assert maps is None
    assert image_metrics(scores, np.array([s.label == "anomaly" for s in parts[1]]))["auroc"] > 0.95


def test_classes_of_unequal_size_are_balanced():
    """Nine normal images for each anomaly move a plain classifier's boundary, not this one's."""
    x = np.r_[np.full(90, -1.0), np.full(10, 1.0)][:, None]
    assert fit_probe(x, x[:, 0] > 0).decision_function([[0.0]]) == pytest.approx(0, abs=0.05)
    with pytest.raises(VisaError, match="2-class"):
        fit_probe(x[:90], np.zeros(90))
