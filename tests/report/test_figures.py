import io

import numpy as np
import pandas as pd
import pytest

from visa.errors import VisaError
from visa.report.figures import (
    plot_curves,
    plot_differences,
    plot_metric_by_pretraining,
    plot_roc_pr,
    plot_scores,
    show_maps,
)


@pytest.fixture
def curves():
    steps = pd.DataFrame({"step": range(10), "loss": np.linspace(0, -1, 10), "feature_std": 0.9})
    runs = [steps.assign(pretraining=p, seed=s) for p in ("simsiam", "simsiam_spd") for s in (0, 1)]
    table = pd.concat(runs, ignore_index=True)
    return table.assign(spd=table["loss"].where(table["pretraining"] == "simsiam_spd"))


def test_curves_draw_each_run_and_leave_out_what_is_not_measured(curves):
    figure = plot_curves(curves)
    by_label = {axis.get_ylabel(): len(axis.lines) for axis in figure.axes}
    assert by_label == {"loss": 4, "SPD term": 2, "feature standard deviation": 4}
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["simsiam", "simsiam_spd"]
    with pytest.raises(VisaError, match="none of nothing"):
        plot_curves(curves, terms=("nothing",))


def test_runs_of_one_seed_on_several_objects_are_lines_of_their_own(curves):
    both = pd.concat([curves.assign(scope=o) for o in ("fryum", "pcb1")])
    assert len(plot_curves(both, terms=("loss",)).axes[0].lines) == 8


def test_score_histograms_of_unequal_classes_have_equal_area():
    axis = plot_scores(np.r_[np.linspace(0, 1, 90), np.linspace(1, 2, 10)], np.r_[np.zeros(90), np.ones(10)]).axes[0]
    assert [sum(bar.get_height() for bar in bars) for bars in axis.containers] == pytest.approx([1, 1])
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["normal (90)", "anomalous (10)"]


def test_roc_and_pr_of_a_perfect_detector_reach_the_corner():
    roc, pr = plot_roc_pr({"perfect": ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])}).axes
    assert [0.0, 1.0] in roc.lines[0].get_xydata().tolist()
    assert [1.0, 1.0] in pr.lines[0].get_xydata().tolist()


def test_the_bands_of_a_perfect_detector_lie_at_1():
    """Also where the images with the highest scores are not drawn: nothing is found, and nothing wrong."""
    _, pr = plot_roc_pr({"perfect": (np.arange(40.0), np.repeat([0, 1], 20))}, resamples=50).axes
    band = pr.collections[0].get_paths()[0].vertices
    assert band[band[:, 0] < 1, 1].tolist() == [1.0] * np.count_nonzero(band[:, 0] < 1)


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

    few, many = widths(20), widths(2000)
    assert all(0 < b < a / 4 for a, b in zip(few, many, strict=True))
    assert not plot_roc_pr({"a": ([0.1, 0.2], [0, 1])}).axes[0].collections, "no band unless asked for"


@pytest.mark.parametrize("channels_first", [True, False])
def test_maps_share_one_scale_and_outline_only_anomalies(channels_first):
    images = np.zeros((2, 3, 8, 9) if channels_first else (2, 8, 9, 3), np.uint8)
    maps = np.stack([np.zeros((8, 9)), np.full((8, 9), 4.0)])
    masks = np.zeros((2, 8, 9), bool)
    masks[1, 2:5, 2:5] = True
    axes = show_maps(images, maps, masks, [0.0, 4.0]).axes
    assert axes[0].images[0].get_array().shape == (8, 9, 3)
    assert [a.images[0].get_clim() for a in axes[2:]] == [(2.0, 4.0)] * 2
    assert [bool(a.collections) for a in axes[:2]] == [False, True]


def test_metric_by_pretraining_joins_the_values_of_a_seed():
    metrics = pd.DataFrame(
        [
            ("1cls", "p", n, s, "image", "ap", v)
            for n, s, v in (("random", 0, 0.5), ("random", 1, 0.6), ("simsiam", 0, 0.7))
        ],
        columns=["setup", "detector", "pretraining", "seed", "level", "metric", "value"],
    )
    figure = plot_metric_by_pretraining(metrics, "image", "ap")
    np.testing.assert_equal([line.get_ydata().tolist() for line in figure.axes[0].lines], [[0.5, 0.7], [0.6, np.nan]])
    assert figure.axes[0].get_ylabel() == "image AP"
    twice = pd.concat([metrics, metrics.assign(setup="2cls_5shot", draw=1, defect="", value=0.1)]).fillna(
        {"defect": ""}
    )
    ignored = metrics.assign(defect="burnt", value=0.9)
    figure = plot_metric_by_pretraining(pd.concat([twice, ignored]), "image", "ap")
    assert [a.get_title() for a in figure.axes] == ["1cls\np", "2cls_5shot\np"], "a detector is not mixed over setups"
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.5, 0.7], "single defect classes stay out"
    with pytest.raises(VisaError, match="no pixel AP"):
        plot_metric_by_pretraining(metrics, "pixel", "ap")


def test_a_seed_that_lacks_an_object_is_not_drawn_as_if_it_had_all():
    rows = [(o, n, s, v) for o, v in (("pcb1", 0.5), ("candle", 0.9)) for n in ("random", "simsiam") for s in (0, 1)]
    metrics = pd.DataFrame(rows, columns=["object", "pretraining", "seed", "value"])
    metrics = metrics.assign(setup="1cls", detector="p", level="image", metric="ap")
    drawn = plot_metric_by_pretraining(metrics.drop(index=7), "image", "ap").axes[0].lines
    assert [line.get_ydata().tolist() for line in drawn] == [[0.5, 0.5]] * 2
    with pytest.raises(VisaError, match="no object in common"):
        plot_metric_by_pretraining(metrics.drop(index=[2, 7]), "image", "ap")


def test_an_svg_keeps_its_text_and_is_the_same_every_time(curves):
    def svg():
        target = io.StringIO()
        plot_curves(curves).savefig(target, format="svg", metadata={"Date": None})
        return target.getvalue()

    assert "feature standard deviation" in svg()
    assert svg() == svg()


def test_differences_show_each_variant_once_and_its_interval():
    rows = [("b", "triplet", 0.2, 0.1, 0.3), ("a", "triplet", -0.1, float("nan"), float("nan"))]
    table = pd.DataFrame(rows, columns=["variant", "measure", "mean", "low", "high"])
    (axis,) = plot_differences(table, ["triplet", "absent"]).axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["b", "a"] and axis.get_ylim()[0] > axis.get_ylim()[1]
    (bars,) = axis.containers[0].lines[2]
    left, right = bars.get_segments()[0][:, 0]
    assert (left, right) == pytest.approx((0.1, 0.3))
    with pytest.raises(VisaError, match="absent"):
        plot_differences(table, ["absent"])
