"""Scores and anomaly maps come back from disk as they went there, or not at all."""

from dataclasses import replace

import numpy as np
import pytest

from visa.detect.scores import Scores, load_scores, save_scores
from visa.errors import VisaError

PATHS = ["fryum/Data/Images/Normal/000.JPG", "fryum/Data/Images/Anomaly/000.JPG", "fryum/Data/Images/Anomaly/017.JPG"]


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
