"""What figures draw, read back from their axes."""

import io

import numpy as np
import pandas as pd
import pytest

from visa.detect.scores import Scores
from visa.errors import VisaError
from visa.report.figures import (
    pick_cases,
    plot_curves,
    plot_defects,
    plot_differences,
    plot_metric_by_pretraining,
    plot_overview,
    plot_roc_pr,
    plot_scores,
    plt,
    show_cases,
)


@pytest.fixture
def curves():
    steps = pd.DataFrame({"step": range(10), "loss": np.linspace(0, -1, 10), "feature_std": 0.9})
    runs = [steps.assign(pretraining=p, seed=s) for p in ("simsiam", "simsiam_spd") for s in (0, 1)]
    table = pd.concat(runs, ignore_index=True)
    return table.assign(spd=table["loss"].where(table["pretraining"] == "simsiam_spd"))


def test_curves_draw_each_run_and_leave_out_what_is_not_measured(curves):
    figure = plot_curves(curves)
    assert {a.get_ylabel(): len(a.lines) for a in figure.axes} == {
        **{"loss": 4, "SPD term": 2, "feature standard deviation": 4}
    }
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["simsiam", "simsiam_spd"]
    both = pd.concat([curves.assign(scope=o) for o in ("fryum", "pcb1")])
    assert len(plot_curves(both, terms=("loss",)).axes[0].lines) == 8, "runs of one seed on two objects"
    with pytest.raises(VisaError, match="none of nothing"):
        plot_curves(curves, terms=("nothing",))


def test_an_svg_keeps_its_text_and_is_the_same_every_time(curves):
    def svg():
        target = io.StringIO()
        plot_curves(curves).savefig(target, format="svg", metadata={"Date": None})
        return target.getvalue()

    assert "feature standard deviation" in svg()
    assert svg() == svg()


def test_score_histograms_of_unequal_classes_have_equal_area():
    axis = plt.subplots()[1]
    plot_scores(np.r_[np.linspace(0, 1, 90), np.linspace(1, 2, 10)], np.r_[np.zeros(90), np.ones(10)], axis)
    assert [sum(bar.get_height() for bar in bars) for bars in axis.containers] == pytest.approx([1, 1])
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["normal (90)", "anomalous (10)"]


def test_curves_and_bands_of_a_perfect_detector_lie_at_1():
    """Also where the images with the highest scores are not drawn: nothing is found, and nothing wrong."""
    roc, pr = plot_roc_pr({"perfect": (np.arange(40.0), np.repeat([0, 1], 20))}, resamples=50).axes
    assert [0.0, 1.0] in roc.lines[0].get_xydata().tolist()
    assert [1.0, 1.0] in pr.lines[0].get_xydata().tolist()
    band = pr.collections[0].get_paths()[0].vertices
    assert band[band[:, 0] < 1, 1].tolist() == [1.0] * np.count_nonzero(band[:, 0] < 1)
    assert not plot_roc_pr({"a": ([0.1, 0.2], [0, 1])}).axes[0].collections, "no band unless asked for"


def test_bands_hold_their_curves_and_shrink_with_more_images():
    def widths(n):
        rng = np.random.default_rng(0)
        labels = np.repeat([0, 1], n)
        scores = np.round(rng.normal(size=2 * n) + labels, 1)  # with ties
        roc, pr = plot_roc_pr({"a": (scores, labels)}, resamples=200).axes
        bands = [axis.collections[0].get_paths()[0].vertices for axis in (roc, pr)]
        middle = [band[np.isclose(band[:, 0], 0.3), 1] for band in bands]
        (line,) = [line.get_xydata() for line in roc.lines if line.get_label() == "a"]
        assert middle[0].min() <= np.interp(0.3, *line.T) <= middle[0].max()
        return [float(m.max() - m.min()) for m in middle]

    assert all(0 < b < a / 4 for a, b in zip(widths(20), widths(2000), strict=True))


@pytest.mark.parametrize("with_maps", [True, False])
def test_cases_come_clearest_first_each_with_its_image_and_its_map_if_there_is_one(with_maps):
    labels, values = np.array([0, 0, 0, 1, 1, 1], np.uint8), np.array([0.1, 0.9, 0.3, 0.8, 0.2, 0.7], np.float32)
    masks = np.zeros((6, 8, 9), np.uint8)
    masks[3:, 2:5, 2:5] = 1
    maps = np.linspace(0, 1, masks.size, dtype=np.float32).reshape(masks.shape)
    given = (maps, masks) if with_maps else (None, None)
    scores = Scores([f"{i}.png" for i in range(6)], labels, values, *given, np.ones(6, bool), "1cls", "fryum", "padim")
    picked = pick_cases(labels, values, n=2)
    assert {kind: list(i) for kind, i in picked.items()} == {"false alarms": [1, 2], "misses": [4, 5], "found": [3, 5]}
    assert [len(which) for which in pick_cases([0, 1], [0.1, 0.2]).values()] == [1, 1, 1], "as many as there are"
    images = np.zeros((6, 3, 8, 9), np.uint8) + 10 * np.arange(6, dtype=np.uint8)[:, None, None, None]
    axes = show_cases(picked, images, scores).axes
    shown = axes[::2] if with_maps else axes
    assert [int(a.images[0].get_array().max()) for a in shown] == [0, 10, 20, 30, 40, 50], "kind after kind"
    assert [a.get_title() for a in shown][:3] == ["0.9, above 67 %", "0.3, above 33 %", "0.2, above 33 %"]
    assert [a.get_ylabel() for a in shown[::2]] == list(picked)
    if with_maps:
        assert [len(a.images) for a in axes] == [1, 2] * 6
        assert [bool(a.collections) for a in axes] == [False] * 4 + [True] * 8, "outlines of anomalies"
        assert axes[1].images[1].get_array().max() <= 1 and np.all(axes[1].images[1].get_alpha() <= 1)


def test_metric_by_pretraining_joins_the_values_of_a_seed_over_the_objects_that_all_have(metrics):
    own = metrics[(metrics["setup"] == "1cls") & (metrics["level"] == "image")]
    (axis,) = plot_metric_by_pretraining(own, "image", "ap").axes
    drawn = [line.get_ydata().tolist() for line in axis.lines]
    np.testing.assert_allclose(drawn, [[0.4, 0.3, 0.5], [0.4, 0.3, 0.6]], err_msg="simsiam, random, simsiam+spd")
    assert (axis.get_ylabel(), axis.get_title()) == ("image AP", "1cls\npadim")
    lacking = own[~((own["pretraining"] == "random") & (own["object"] == "fryum"))]
    drawn = plot_metric_by_pretraining(lacking, "image", "ap").axes[0].lines
    np.testing.assert_allclose(drawn[1].get_ydata(), [0.5, 0.4, 0.7], err_msg="pcb1 alone")
    with pytest.raises(VisaError, match="there is no pixel F1-max"):
        plot_metric_by_pretraining(metrics, "pixel", "f1_max")


def test_differences_show_each_variant_once_and_its_interval():
    rows = [("b", "triplet", 0.2, 0.1, 0.3), ("a", "triplet", -0.1, float("nan"), float("nan"))]
    table = pd.DataFrame(rows, columns=["variant", "measure", "mean", "low", "high"])
    (axis,) = plot_differences(table, ["triplet", "absent"]).axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["b", "a"] and axis.get_ylim()[0] > axis.get_ylim()[1]
    (bars,) = axis.containers[0].lines[2]
    assert bars.get_segments()[0][:, 0] == pytest.approx((0.1, 0.3))
    with pytest.raises(VisaError, match="absent"):
        plot_differences(table, ["absent"])


def means(axis):
    """Positions of the markers of each detector or pre-training in an axis."""
    return {c.get_label(): c.lines[0].get_xydata() for c in axis.containers}


def test_the_overview_has_a_row_a_task_and_a_column_a_setup(metrics):
    axes = plot_overview(metrics, "auroc").axes
    assert [a.get_title() for a in axes] == ["2-class 10-shot", "1-class"] * 2
    assert means(axes[1])["PaDiM"][:, 1].tolist() == pytest.approx([0.4, 0.3, 0.55]), "over objects and seeds"
    assert means(axes[0])["probe"][:, 1].tolist() == pytest.approx([0.41, 0.31, 0.51]), "and draws"
    assert not axes[2].containers and "not measured" in [t.get_text() for t in axes[2].texts]
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["simsiam", "random", "simsiam+spd"]
    with pytest.raises(VisaError, match="there is no AU-PRO"):
        plot_overview(metrics, "au_pro")


def test_defect_classes_are_ordered_from_hard_to_easy_and_may_be_called_anything(metrics):
    own = metrics[(metrics["object"] == "fryum") & (metrics["setup"] == "1cls")].copy()
    own.loc[own["defect"] == "other", "value"] -= 0.1
    (axis,) = [a for a in plot_defects(own, "pixel").axes if a.containers]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["other", "burnt"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first on top"
    assert means(axis)["simsiam+spd"][:, 0].tolist() == pytest.approx([0.4, 0.5])
    odd = ["<script>alert(1)</script>", r"$\frac{$", "a|b_c", "%&#\\"]
    figure = plot_defects(
        pd.concat([own, *(own[own["defect"] == "other"].assign(defect=name) for name in odd)]), "pixel"
    )
    figure.savefig(io.BytesIO())
    assert set(odd) < {t.get_text() for axis in figure.axes for t in axis.get_yticklabels()}
    agreeing = pd.concat([own[own["seed"] == 0].assign(seed=seed, value=0.667) for seed in range(3)])
    (axis,) = [a for a in plot_defects(agreeing, "pixel").axes if a.containers]
    assert means(axis)["random"][:, 0].tolist() == pytest.approx([0.667, 0.667]), "a mean is rounded to above all"
    with pytest.raises(VisaError):
        plot_defects(own[own["defect"] == ""], "pixel")
