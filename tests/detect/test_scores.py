"""Scores and anomaly maps come back from disk as they went there, or not at all."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from visa.detect.scores import Scores, load_scores, save_full_maps, save_scores
from visa.errors import VisaError

PATHS = ["fryum/Data/Images/Normal/000.JPG", "fryum/Data/Images/Anomaly/000.JPG", "fryum/Data/Images/Anomaly/017.JPG"]
SIZES = [(40, 60), (40, 60), (33, 21)]


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[1:, 2:4, 5:7] = 1
    maps = rng.normal(size=(3, 8, 8)).astype(np.float32)
    image_scores = maps.max(axis=(1, 2))
    known = np.array([True, True, False])
    labels = np.array([0, 1, 1], np.uint8)
    return Scores(PATHS, labels, image_scores, maps, masks, known, "2cls_5shot", "fryum", "PaDiM", draw=3)


HALF = np.arange(192, dtype=np.float32).reshape(3, 8, 8)  # which half precision holds


@pytest.mark.parametrize("change", [{}, {"maps": HALF}, {"maps": None, "masks": None}])
def test_scores_come_back_equal(tmp_path, scores, change):
    scores = replace(scores, **change)
    save_scores(tmp_path / "new" / "scores.npz", scores)
    back = load_scores(tmp_path / "new" / "scores.npz")
    assert (back.paths, back.setup, back.object, back.detector) == (PATHS, "2cls_5shot", "fryum", "PaDiM")
    assert back.draw == 3
    for name in ("labels", "image_scores", "maps", "masks", "known"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scores, name), strict=scores.maps is not None)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["scores.npz"]


def test_full_maps_come_back_at_their_images_size_on_one_scale(tmp_path, scores):
    def read(path):
        pixels = cv2.imread(str((tmp_path / path).with_suffix(".png")), cv2.IMREAD_UNCHANGED)
        ends = json.loads((tmp_path / "scale.json").read_text())
        return ends["low"] + pixels / 65535 * (ends["high"] - ends["low"])

    flat = np.stack([np.full((8, 8), v, np.float32) for v in (-2, 0.25, 6)])
    save_full_maps(tmp_path, flat, PATHS, SIZES)
    for path, size, value in zip(PATHS, SIZES, (-2, 0.25, 6), strict=True):
        np.testing.assert_allclose(read(path), np.full(size, value), atol=8 / 131070 * 1.01)
    save_full_maps(tmp_path, scores.maps, PATHS, [(8, 8)] * 3)
    np.testing.assert_allclose(read(PATHS[1]), scores.maps[1], atol=np.ptp(scores.maps) / 65535 * 0.51)
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.parametrize(
    "wrong", [{"labels": np.zeros(2, np.uint8)}, {"masks": np.zeros((3, 4, 8), np.uint8)}, {"masks": None}]
)
def test_parts_that_do_not_fit_are_refused(scores, wrong):
    with pytest.raises(VisaError, match="do not fit together"):
        replace(scores, **wrong)


def test_files_that_hold_no_scores_are_refused_and_no_code_is_run(tmp_path, scores):
    file = tmp_path / "scores.npz"
    with pytest.raises(VisaError, match="no scores at"):
        load_scores(file)
    save_scores(file, scores)
    contents = [b"", b"nothing", file.read_bytes()[:-200]]
    np.savez(file, **vars(scores) | {"maps": np.array([print], object)})  # a pickle
    for content in (*contents, file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(VisaError, match="holds no scores"):
            load_scores(file)
