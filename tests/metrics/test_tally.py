"""Counting among levels against a search through all of them."""

import numpy as np
import pytest

from visa.metrics import tally
from visa.metrics.tally import Tally

LEVELS = {
    "random": np.random.default_rng(0).normal(size=400),
    "one": np.array([0.3]),
    "two": np.array([-1.0, 1.0]),
    "neighbours": np.nextafter(1.0, 2) + np.arange(40) * np.spacing(1.0),
    "geometric": np.geomspace(1e-30, 1e30, 300),
    "crowded": np.append(np.random.default_rng(1).random(300), 1e9),
    "tiny": np.arange(1, 9) * 5e-324,
    "huge": np.array([-1.7e308, 0, 1.7e308]),
    "infinite": np.array([-np.inf, 0, 1, np.inf]),
}


def around(levels):
    """Scores on, right below and right above all levels, between them and beyond."""
    rng = np.random.default_rng(2)
    finite = levels[np.isfinite(levels)]
    between = rng.choice(finite, 9000) * rng.random(9000)
    scores = [levels, np.nextafter(levels, -np.inf), np.nextafter(levels, np.inf), between, [np.inf, -np.inf, 0]]
    return rng.permutation(np.concatenate(scores)).astype(levels.dtype)


def check(found, levels, scores):
    """Every score is where a search puts it."""
    places = np.searchsorted(levels, scores)
    equal = np.append(levels, np.nan)[places] == scores
    np.testing.assert_array_equal(found.equal, np.bincount(places[equal], minlength=levels.size))
    np.testing.assert_array_equal(found.between, np.bincount(places[~equal], minlength=levels.size + 1))
    assert found.total == scores.size


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", LEVELS)
def test_every_score_is_counted_where_a_search_puts_it(name, precision, monkeypatch):
    monkeypatch.setattr(tally, "_CHUNK", 99)
    levels = np.unique(LEVELS[name].astype(precision))
    scores = around(levels)
    found = Tally(levels)
    found.add(scores[:301].reshape(7, 43))
    scores.flags.writeable = False
    found.add(scores[301:])
    check(found, levels, scores)
    drawn, weights = np.random.default_rng(3).choice(levels, 50), np.arange(50.0)
    same = drawn == levels[:, None]
    for got, expected in zip(found.sums(drawn, weights), (same.sum(1), same @ weights), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_levels_are_put_into_cells_unless_they_crowd():
    with np.errstate(over="ignore"):
        cells = {name: Tally(np.unique(levels))._cells for name, levels in LEVELS.items()}
    assert [name for name, found in cells.items() if found is not None] == ["random", "two", "neighbours"]
    assert np.diff(cells["random"].first).max() <= tally._CROWDED


@pytest.mark.parametrize("name", ["random", "two", "crowded"])
@pytest.mark.parametrize("precisions", [(np.float32, np.float64), (np.float64, np.float32)])
def test_levels_and_scores_may_be_of_two_precisions(precisions, name):
    levels = np.unique(LEVELS[name].astype(precisions[0]))
    scores = around(levels.astype(precisions[1]))
    found = Tally(levels)
    found.add(scores)
    check(found, levels.astype(np.float64), scores.astype(np.float64))
