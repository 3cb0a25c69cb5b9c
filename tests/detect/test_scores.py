"""Scores and anomaly maps come back from disk as they went there, or not at all."""

from dataclasses import replace

import numpy as np
import pytest

from visa.detect.scores import Scores, load_full_map, load_scores, save_full_maps, save_scores
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


@pytest.mark.parametrize("without", [{}, {"maps": None, "masks": None}])
def test_scores_come_back_equal(tmp_path, scores, without):
    scores = replace(scores, **without)
    save_scores(tmp_path / "new" / "scores.npz", scores)
    back = load_scores(tmp_path / "new" / "scores.npz")
    assert (back.paths, back.setup, back.object, back.detector) == (PATHS, "2cls_5shot", "fryum", "PaDiM")
    assert back.draw == 3
    for name in ("labels", "image_scores", "maps", "masks", "known"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scores, name), strict=name not in without)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["scores.npz"]


def test_maps_that_half_precision_holds_take_half_the_room(tmp_path, scores):
    rng = np.random.default_rng(0)
    maps = rng.random((3, 80, 81), np.float32)
    wide = replace(scores, maps=maps, masks=(maps > 0.9).astype(np.uint8))
    rounded = replace(wide, maps=maps.astype(np.float16).astype(np.float32))
    sizes = []
    for s in (wide, rounded):
        save_scores(tmp_path / "scores.npz", s)
        np.testing.assert_array_equal(load_scores(tmp_path / "scores.npz").maps, s.maps, strict=True)
        np.testing.assert_array_equal(load_scores(tmp_path / "scores.npz").masks, s.masks, strict=True)
        sizes.append((tmp_path / "scores.npz").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]


def test_a_failed_write_leaves_the_old_file(tmp_path, scores, monkeypatch):
    file = tmp_path / "scores.npz"
    save_scores(file, scores)

    def fail(stream, **arrays):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_scores(file, replace(scores, detector="PatchCore"))
    assert load_scores(file).detector == "PaDiM"
    assert list(tmp_path.iterdir()) == [file]


def test_full_maps_come_back_at_their_images_size_on_one_scale(tmp_path, scores):
    flat = np.stack([np.full((8, 8), v, np.float32) for v in (-2, 0.25, 6)])
    save_full_maps(tmp_path, flat, PATHS, SIZES)
    for path, size, value in zip(PATHS, SIZES, (-2, 0.25, 6), strict=True):
        full = load_full_map(tmp_path, path)
        assert full.shape == size
        assert full.dtype == np.float32
        np.testing.assert_allclose(full, value, atol=8 / 131070 * 1.01)
    assert (tmp_path / "fryum/Data/Images/Anomaly/017.png").is_file()
    save_full_maps(tmp_path, scores.maps, PATHS, [(8, 8)] * 3)
    step = np.ptp(scores.maps) / 65535
    np.testing.assert_allclose(load_full_map(tmp_path, PATHS[1]), scores.maps[1], atol=step * 0.51)
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {"labels": s.labels[:2]}, "do not fit together"),
        (lambda s: {"masks": s.masks[:, :4]}, "do not fit together"),
        (lambda s: {"known": s.known[:2]}, "2 known"),
        (lambda s: {"masks": None}, "masks None"),
    ],
)
def test_parts_that_do_not_fit_are_refused(scores, change, sentence):
    with pytest.raises(VisaError, match=sentence):
        replace(scores, **change(scores))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: b"", "holds no scores"),
        (lambda content: b"nothing", "holds no scores"),
        (lambda content: content[:-200], "holds no scores"),
        (lambda content: None, "no scores at"),
    ],
)
def test_files_that_hold_no_scores_are_refused(tmp_path, scores, change, sentence):
    file = tmp_path / "scores.npz"
    save_scores(file, scores)
    content = change(file.read_bytes())
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(VisaError, match=sentence):
        load_scores(file)


def test_a_pickle_which_could_run_code_is_refused(tmp_path, scores):
    np.savez(tmp_path / "scores.npz", **vars(scores) | {"maps": np.array([print], object)})
    with pytest.raises(VisaError, match="holds no scores"):
        load_scores(tmp_path / "scores.npz")


@pytest.mark.parametrize(
    ("factor", "paths", "sentence"),
    [
        (1, PATHS[:2], "one each"),
        (1, [PATHS[0], *PATHS[:2]], "one each"),
        (1, ["../out.JPG", *PATHS[1:]], "leaves the folder"),
        (np.nan, PATHS, "NaN"),
    ],
)
def test_unusable_full_maps_are_refused(tmp_path, scores, factor, paths, sentence):
    with pytest.raises(VisaError, match=sentence):
        save_full_maps(tmp_path, scores.maps * np.float32(factor), paths, SIZES)
    with pytest.raises(VisaError, match=r"no scale\.json"):
        load_full_map(tmp_path, PATHS[0])
