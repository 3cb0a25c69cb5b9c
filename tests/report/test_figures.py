"""What figures draw, read back from their axes."""

import io

import numpy as np
import pandas as pd
import pytest

from visa.detect.scores import Scores
from visa.errors import VisaError
from visa.report import figures
from visa.report.figures import plt


@pytest.fixture(autouse=True)
def readable(style):
    """In the book, 750 px wide, every figure of a test has text of 9 px or more and at most four panels a row."""
    yield
    for figure in map(plt.figure, plt.get_fignums()):
        points = min(t.get_fontsize() for t in figure.findobj(plt.Text) if t.get_text())
        assert points / 72 * min(figure.dpi, 750 / figure.get_figwidth()) >= 9, "px"
        assert max(a.get_subplotspec().get_gridspec().ncols for a in figure.axes) <= 4


def test_curves_draw_what_is_measured_of_each_run_and_give_the_same_svg_every_time():
    steps = pd.DataFrame({"step": range(10), "loss": np.linspace(0, -1, 10), "feature_std": 0.9})
    runs = [steps.assign(pretraining=p, seed=s, scope=o) for p in ("a", "a+spd") for s in (0, 1) for o in ("x", "y")]
    curves = pd.concat(runs, ignore_index=True)
    curves["spd"] = curves["loss"].where(curves["pretraining"] == "a+spd")
    figure = figures.plot_curves(curves)
    lines = {"loss": 8, "SPD term": 4, "feature standard deviation": 8}
    assert {a.get_ylabel(): len(a.lines) for a in figure.axes} == lines
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "a+spd"]
    svg = [io.StringIO(), io.StringIO()]
    for target in svg:
        figures.plot_curves(curves).savefig(target, format="svg", metadata={"Date": None})
    assert "feature standard deviation" in svg[0].getvalue() and svg[0].getvalue() == svg[1].getvalue()


def test_score_histograms_of_unequal_classes_have_equal_area():
    axis = plt.subplots()[1]
    figures.plot_scores(np.r_[np.linspace(0, 1, 90), np.linspace(1, 2, 10)], np.r_[np.zeros(90), np.ones(10)], axis)
    assert [sum(bar.get_height() for bar in bars) for bars in axis.containers] == pytest.approx([1, 1])
    assert axis.get_legend_handles_labels()[1] == ["normal", "anomalous"]


def test_bands_hold_their_curves_and_shrink_with_more_images():
    widths = []
    for n in (20, 2000):
        labels = np.repeat([0, 1], n)
        scores = np.round(np.random.default_rng(0).normal(size=2 * n) + labels, 1)  # with ties
        roc, _ = figures.plot_roc_pr({"a": (scores, labels)}, resamples=200).axes
        band = roc.collections[0].get_paths()[0].vertices
        middle = band[np.isclose(band[:, 0], 0.3), 1]
        assert middle.min() <= np.interp(0.3, *roc.lines[0].get_xydata().T) <= middle.max()
        widths.append(np.ptp(middle))
    assert 0 < widths[1] < widths[0] / 4


@pytest.mark.parametrize("with_maps", [True, False])
def test_cases_come_clearest_first_each_with_its_image_and_its_map_if_there_is_one(with_maps):
    labels, values = np.array([0, 0, 0, 1, 1, 1], np.uint8), np.array([0.1, 0.9, 0.3, 0.8, 0.2, 0.7], np.float32)
    masks = np.zeros((6, 8, 9), np.uint8)
    masks[3:, 2:5, 2:5] = 1
    maps = np.linspace(0, 1, masks.size, dtype=np.float32).reshape(masks.shape)
    given = (maps, masks) if with_maps else (None, None)
    scores = Scores([f"{i}.png" for i in range(6)], labels, values, *given, np.ones(6, bool), "1cls", "fryum", "padim")
    picked = figures.pick_cases(labels, values, n=2)
    found = {kind: list(indices) for kind, indices in picked.items()}
    assert found == {"false alarms": [1, 2], "misses": [4, 5], "highest scores": [3, 5]}
    images = np.zeros((6, 3, 8, 9), np.uint8) + 10 * np.arange(6, dtype=np.uint8)[:, None, None, None]
    axes = figures.show_cases(picked, images, scores).axes
    shown = axes[::2] if with_maps else axes
    assert [int(a.images[0].get_array().max()) for a in shown] == [0, 10, 20, 30, 40, 50], "kind after kind"
    assert [a.get_title() for a in shown][:3] == ["0.9, above 67 %", "0.3, above 33 %", "0.2, above 33 %"]
    assert [a.get_ylabel() for a in shown[::2]] == list(picked)
    if with_maps:
        assert [len(a.images) for a in axes] == [1, 2] * 6
        assert [bool(a.collections) for a in axes] == [False] * 4 + [True] * 8, "outlines of anomalies"


def means(axis):
    """Positions of the markers of each detector or pre-training in an axis."""
    return {c.get_label(): c.lines[0].get_xydata() for c in axis.containers}


def test_the_overview_has_a_row_a_task_and_a_column_a_setup(metrics):
    axes = figures.plot_overview(metrics, "auroc").axes
    assert [a.get_title() for a in axes] == ["2-class 10-shot", "1-class"] * 2
    assert means(axes[1])["PaDiM"][:, 1].tolist() == pytest.approx([0.4, 0.3, 0.55]), "over objects and seeds"
    assert means(axes[0])["probe"][:, 1].tolist() == pytest.approx([0.41, 0.31, 0.51]), "and draws"
    assert not axes[2].containers and "not measured" in [t.get_text() for t in axes[2].texts]
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["simsiam", "random", "simsiam+spd"]
    assert {c.lines[0].get_linestyle() for a in axes for c in a.containers} == {"None"}, "no line joins categories"
    with pytest.raises(VisaError, match="there is no F1-max"):
        figures.plot_overview(metrics, "f1_max")


def test_defect_classes_are_ordered_from_hard_to_easy_and_may_be_called_anything(metrics):
    own = metrics[(metrics["object"] == "fryum") & (metrics["setup"] == "1cls")].copy()
    own.loc[own["defect"] == "other", "value"] -= 0.1
    (axis,) = figures.plot_defects(own, "pixel").axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["other", "burnt"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first on top"
    assert means(axis)["simsiam+spd"][:, 0].tolist() == pytest.approx([0.4, 0.5])
    odd = ["<script>alert(1)</script>", r"$\frac{$", "a|b_c", "%&#\\"]
    others = [own[own["defect"] == "other"].assign(defect=name, value=0.667) for name in odd]  # a mean is rounded
    figure = figures.plot_defects(pd.concat([own, *others]), "pixel")
    figure.savefig(io.BytesIO())
    assert set(odd) < {t.get_text() for t in figure.axes[0].get_yticklabels()}
