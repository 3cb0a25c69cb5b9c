"""Figures over all setups, and over defect classes."""

import io

import pandas as pd
import pytest

from visa.errors import VisaError
from visa.report import tables
from visa.report.figures import plot_defects, plot_overview


def means(axis):
    """Heights of the markers of each detector or pre-training in an axis."""
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


def test_a_defect_class_may_be_called_anything(metrics):
    own = metrics[(metrics["object"] == "fryum") & (metrics["setup"] == "1cls")].copy()
    odd = ["<script>alert(1)</script>", r"$\frac{$", "a|b_c", "%&#\\"]
    parts = [own[own["defect"] == "other"].assign(defect=name) for name in odd]
    figure = plot_defects(pd.concat([own, *parts]), "pixel")
    figure.savefig(io.BytesIO())
    assert set(odd) < {t.get_text() for axis in figure.axes for t in axis.get_yticklabels()}


def test_names_become_no_markup_in_tables(metrics):
    odd = "<script>alert(1)</script>"
    own = metrics[metrics["object"] == "fryum"]
    made = tables.defect_tables(pd.concat([own, own[own["defect"] == "other"].assign(defect=odd)]), {}, odd)
    text = "".join(map(tables.to_html, made))
    assert made and "<script" not in text and "&lt;script&gt;" in text


def test_defect_classes_are_ordered_from_hard_to_easy(metrics):
    own = metrics[(metrics["object"] == "fryum") & (metrics["setup"] == "1cls")].copy()
    own.loc[own["defect"] == "other", "value"] -= 0.1
    (axis,) = [a for a in plot_defects(own, "pixel").axes if a.containers]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["other", "burnt"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first on top"
    assert means(axis)["simsiam+spd"][:, 0].tolist() == pytest.approx([0.4, 0.5])
    with pytest.raises(VisaError):
        plot_defects(own[own["defect"] == ""], "pixel")


def test_seeds_that_agree_to_the_last_digit_have_no_whiskers(metrics):
    """As a probe's on given weights do; the mean of three of these is rounded to above them."""
    own = metrics[(metrics["object"] == "fryum") & (metrics["setup"] == "1cls")].drop(columns="seed").drop_duplicates()
    own = pd.concat([own.assign(seed=seed, value=0.667) for seed in range(3)])
    (axis,) = [a for a in plot_defects(own, "pixel").axes if a.containers]
    assert means(axis)["simsiam+spd"][:, 0].tolist() == pytest.approx([0.667, 0.667])
