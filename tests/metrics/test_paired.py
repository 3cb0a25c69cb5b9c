"""Paired tests: DeLong against its definition, bootstrap differences, runs that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from visa.detect.scores import Scores
from visa.errors import VisaError
from visa.metrics import compare_images, compare_runs, delong, image_metrics, pixel_metrics


def two_scores(seed, rounded=False):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [30, 20])
    shared = rng.normal(size=50)
    first, second = shared + rng.normal(size=50) + labels, shared + rng.normal(size=50) + 1.5 * labels
    return (np.round(first), np.round(second), labels) if rounded else (first, second, labels)


def slow_delong(first, second, labels):
    """Covariances of the placements, pair by pair, as DeLong et al. define them."""
    values, inside, outside = [], [], []
    for s in (first, second):
        x, y = s[labels == 1], s[labels == 0]
        psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
        values.append(psi.mean())
        inside.append(psi.mean(axis=1))
        outside.append(psi.mean(axis=0))
    s = np.cov(inside) / len(inside[0]) + np.cov(outside) / len(outside[0])
    contrast = np.array([-1, 1])
    error = np.sqrt(contrast @ s @ contrast)
    gain = values[1] - values[0]
    return gain, gain - 1.959964 * error, gain + 1.959964 * error, 2 * norm.sf(abs(gain / error))


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_delong_is_its_definition(seed, rounded):
    first, second, labels = two_scores(seed, rounded=rounded)
    assert delong(first, second, labels) == pytest.approx(slow_delong(first, second, labels), abs=1e-6)


def test_delong_of_equal_runs_and_of_too_few_images():
    first, _, labels = two_scores(0)
    assert delong(first, first * 2, labels) == (0, 0, 0, 1)
    assert {d.p for d in compare_images(first, 3 * first, labels, resamples=50).values()} == {1.0}
    with pytest.raises(VisaError, match="two normal and two anomalous"):
        delong([1, 2, 3], [1, 2, 3], [0, 0, 1])


def run_of(maps_and_masks, seed):
    maps, masks = maps_and_masks(seed, size=(12, 16, 20))
    _, masks = maps_and_masks(0, size=(12, 16, 20))
    labels = masks.any(axis=(1, 2)).astype(np.uint8)
    labels[8:10] = 0
    masks[8:10] = 0
    paths, about = [f"{i}.JPG" for i in range(12)], (np.ones(12, bool), "1cls", "fryum", "padim")
    return Scores(paths, labels, maps.max(axis=(1, 2)), maps, masks, *about)


def reordered(run, order):
    arrays = {k: getattr(run, k)[order] for k in ("labels", "image_scores", "maps", "masks", "known")}
    return replace(run, paths=[run.paths[i] for i in order], **arrays)


def test_runs_are_matched_by_path(maps_and_masks):
    first, second = run_of(maps_and_masks, 0), run_of(maps_and_masks, 1)
    straight = compare_runs(first, second, resamples=50)
    assert straight == compare_runs(first, reordered(second, np.arange(12)[::-1]), resamples=50)
    values = [image_metrics(r.image_scores, r.labels)["ap"] for r in (first, second)]
    assert straight["image", "ap"].value == pytest.approx(values[1] - values[0])
    assert straight["pixel", "au_pro"].value == pytest.approx(
        pixel_metrics(second.maps, second.masks)["au_pro"] - pixel_metrics(first.maps, first.masks)["au_pro"]
    )
    assert ("image", "auroc, DeLong") in straight


def test_pixels_of_unknown_truth_and_absent_maps_are_left_out(maps_and_masks):
    first, second = run_of(maps_and_masks, 0), run_of(maps_and_masks, 1)
    known = np.arange(12) != 3
    unknown = replace(first, known=known, masks=np.where(known[:, None, None], first.masks, 0).astype(np.uint8))
    got = compare_runs(unknown, second, resamples=20)["pixel", "auroc"].value
    values = [pixel_metrics(r.maps[known], r.masks[known])["auroc"] for r in (first, second)]
    assert got == pytest.approx(values[1] - values[0])
    mapless = replace(first, maps=None, masks=None)
    assert all(level == "image" for level, _ in compare_runs(mapless, second, resamples=20))


def test_what_too_few_images_or_no_mask_allow_is_compared(maps_and_masks):
    first, second = run_of(maps_and_masks, 0), run_of(maps_and_masks, 1)
    maskless = [replace(run, known=run.labels == 0) for run in (first, second)]
    assert {level for level, _ in compare_runs(*maskless, resamples=20)} == {"image"}
    one = [reordered(run, np.append(np.flatnonzero(run.labels == 0), 0)) for run in (first, second)]
    got = compare_runs(*one, resamples=20)
    assert ("image", "auroc") in got and ("image", "auroc, DeLong") not in got


def test_runs_on_different_images_are_refused_in_one_sentence(maps_and_masks):
    first, second = run_of(maps_and_masks, 0), run_of(maps_and_masks, 1)
    twice = [replace(run, paths=[*run.paths[:-1], "0.JPG"]) for run in (first, second)]
    refused = {
        r"different images, 2 are in one of them only \(such as 11.JPG\)": (
            *(first, replace(second, paths=[*second.paths[:-1], "x.JPG"])),
        ),
        "twice": twice,
        "labels differ": (first, replace(second, labels=1 - second.labels)),
        "masks differ": (first, replace(second, masks=np.roll(second.masks, 1, axis=2))),
    }
    for sentence, pair in refused.items():
        with pytest.raises(VisaError, match=sentence):
            compare_runs(*pair)
