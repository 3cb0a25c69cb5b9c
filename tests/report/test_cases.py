"""Which images are shown, and what is drawn over them."""

import numpy as np
import pytest

from visa.detect.scores import Scores
from visa.report.figures import pick_cases, show_cases

LABELS = [0, 0, 0, 1, 1, 1]
VALUES = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7]


def scores(with_maps):
    masks = np.zeros((6, 8, 9), np.uint8)
    masks[3:, 2:5, 2:5] = 1
    maps = np.linspace(0, 1, masks.size, dtype=np.float32).reshape(masks.shape)
    return Scores(
        paths=[f"{i}.png" for i in range(6)],
        labels=np.array(LABELS, np.uint8),
        image_scores=np.array(VALUES, np.float32),
        maps=maps if with_maps else None,
        masks=masks if with_maps else None,
        known=np.ones(6, bool),
        setup="1cls",
        object="fryum",
        detector="padim",
    )


def test_false_alarms_misses_and_finds_come_clearest_first():
    picked = pick_cases(LABELS, VALUES, n=2)
    assert {kind: list(which) for kind, which in picked.items()} == {
        "false alarms": [1, 2],
        "misses": [4, 5],
        "found": [3, 5],
    }
    assert [len(which) for which in pick_cases([0, 1], [0.1, 0.2], n=3).values()] == [1, 1, 1], "as many as there are"


@pytest.mark.parametrize("with_maps", [True, False])
def test_each_case_shows_its_image_and_its_map_if_there_is_one(with_maps):
    s = scores(with_maps)
    picked = pick_cases(s.labels, s.image_scores, n=2)
    images = np.zeros((6, 3, 8, 9), np.uint8) + 10 * np.arange(6, dtype=np.uint8)[:, None, None, None]
    axes = show_cases(picked, images, s).axes
    shown = axes[::2] if with_maps else axes
    assert [int(a.images[0].get_array().max()) for a in shown] == [0, 10, 20, 30, 40, 50], "kind after kind"
    assert [a.get_title() for a in shown][:3] == ["0.9, above 67 %", "0.3, above 33 %", "0.2, above 33 %"]
    assert [a.get_ylabel() for a in shown[::2]] == ["false alarms", "misses", "found"]
    if with_maps:
        assert [len(a.images) for a in axes] == [1, 2] * 6
        assert [bool(a.collections) for a in axes] == [False] * 4 + [True] * 8, "outlines of anomalies"
        assert axes[1].images[1].get_array().max() <= 1 and np.all(axes[1].images[1].get_alpha() <= 1)
