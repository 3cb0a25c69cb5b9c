"""Means, spreads and paired differences against numbers worked out by hand; the paper's tables and their files."""

import csv
import math
import re

import pandas as pd
import pytest

from visa.errors import VisaError
from visa.report import tables
from visa.report.tables import COLUMNS, paired_difference, summary_table


def row(pretraining, seed, value, object="fryum", metric="auroc", dataset="VisA", detector="padim", draw=0, defect=""):
    return (dataset, object, "1cls", draw, pretraining, seed, detector, defect, "image", metric, value)


def table(*rows):
    return pd.DataFrame(rows, columns=list(COLUMNS))


def plain(cells):
    return [[str(value).replace("\N{NO-BREAK SPACE}", " ") for value in row] for row in cells.to_numpy().tolist()]


@pytest.fixture
def seeds():
    values = {"simsiam": (0.80, 0.82, 0.84), "simsiam_spd": (0.81, 0.84, 0.87)}
    return table(*(row(name, seed, v) for name, three in values.items() for seed, v in enumerate(three)))


@pytest.fixture
def drawn():
    """Two pre-trainings, two seeds, two draws: differences 0.1 and 0.3 for seed 0, 0.4 and 0.6 for seed 1."""
    base = {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.3, (1, 1): 0.3}
    gain = {(0, 0): 0.1, (0, 1): 0.3, (1, 0): 0.4, (1, 1): 0.6}
    rows = [row("simsiam", s, v, draw=d) for (s, d), v in base.items()]
    return table(*rows, *(row("simsiam+spd", s, v + gain[s, d], draw=d) for (s, d), v in base.items()))


def test_files_are_read_and_what_cannot_be_read_is_named(tmp_path):
    def write(*rows, columns=COLUMNS):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([columns, *rows])
        return file

    short = [v for c, v in zip(COLUMNS, row("random", 0, "0.5"), strict=True) if c not in ("draw", "defect")]
    read = tables.load_metrics([write(short, columns=[c for c in COLUMNS if c not in ("draw", "defect")])])
    pd.testing.assert_frame_equal(read, table(row("random", 0, 0.5)), check_dtype=False)
    refused = {
        re.escape(str(tmp_path / "none.csv")): [tmp_path / "none.csv"],
        "run the notebooks": [],
        "'dataset', .* not in index": [write(("fryum", 1), columns=("object", "value"))],
        "could not convert string to float: 'high'": [write(row("simsiam", 0, "high"))],
        "a metric is given twice": [write(row("simsiam", 0, 0.5), row("simsiam", 0, 0.6))],
        "mix the data sets VisA, mini": [write(row("a", 0, 0.5, dataset=d)) for d in ("VisA", "mini-VisA")],
    }
    for sentence, files in refused.items():
        with pytest.raises(VisaError, match=sentence):
            tables.load_metrics(files)


def test_summary_is_mean_and_sample_deviation_over_seeds_draws_averaged_first(seeds, drawn):
    line = summary_table(seeds).iloc[0]
    assert (line["pretraining"], line["n"]) == ("simsiam", 3)
    assert (line["mean"], line["sd"]) == pytest.approx((0.82, 0.02))
    line = summary_table(drawn).iloc[0]
    assert (line["mean"], line["n"], line["draws"]) == (pytest.approx(0.225), 2, 2)
    assert line["sd"] == pytest.approx((0.3 - 0.15) / math.sqrt(2)), "of the seeds' means, 0.15 and 0.3"
    assert line["sd_draws"] == pytest.approx(math.sqrt((0.1**2 / 2 + 0) / 2)), "root mean square of the seeds' own"


def test_objects_are_averaged_before_seeds_and_must_be_complete():
    rows = [row("a", s, v, object=o) for s, o, v in ((0, "x", 0.2), (0, "y", 0.8), (1, "x", 0.4), (1, "y", 0.8))]
    by = ("pretraining", "level", "metric")
    found = summary_table(table(*rows), by)
    assert (found["mean"][0], found["sd"][0]) == pytest.approx((0.55, 0.1 / math.sqrt(2)))
    with pytest.raises(VisaError, match="do not cover the same"):
        summary_table(table(*rows[:3]), by)


def test_balanced_keeps_what_every_pretraining_has():
    rows = [row("a", seed, 0.5, object=o) for o in ("fryum", "pcb1") for seed in (0, 1)]
    rows += [row("b", 0, 0.6, object="fryum"), row("b", 0, 0.7, object="pcb1"), row("b", 1, 0.7, object="pcb1")]
    kept = tables.balanced(table(*rows, row("a", 0, 0.5, detector="unet")))
    own = kept[kept["detector"] == "padim"]
    assert set(own["object"]) == {"pcb1"} and set(own["seed"]) == {0, 1} and len(own) == 4
    assert len(kept) == 5, "only a was scored with the U-Net"
    assert tables.balanced(table(row("a", 0, 0.5), row("b", 1, 0.5))).empty
    ahead = [row(name, 0, 0.5, object=f"o{i}") for name in ("a", "b") for i in range(12)]
    kept = tables.balanced(table(*ahead, *(row(name, 1, 0.9, object="o0") for name in ("a", "b"))))
    assert kept["object"].nunique() == 12 and set(kept["seed"]) == {0}, "one object is a seed ahead"


def test_differences_are_paired_by_seed_and_draw_with_the_t_interval_over_seeds(seeds, drawn):
    line = paired_difference(seeds, "simsiam_spd", "simsiam").iloc[0]
    half = 4.302653 * 0.01 / math.sqrt(3)  # t(0.975, 2 degrees of freedom), differences 0.01, 0.02, 0.03
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-6)
    line = paired_difference(drawn, "simsiam+spd", "simsiam").iloc[0]
    half = 12.706205 * 0.3 / 2  # t(0.975, 1), the seeds' mean differences 0.2 and 0.5
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((0.35, 0.35 - half, 0.35 + half), abs=1e-5)
    less = drawn[(drawn["pretraining"] == "simsiam") | (drawn["draw"] == 1)]
    line = paired_difference(less, "simsiam+spd", "simsiam").iloc[0]
    assert (line["mean"], line["draws"]) == (pytest.approx((0.3 + 0.6) / 2), 1), "what one side lacks is no pair"


def test_where_seeds_are_one_or_agree_the_interval_is_over_draws_or_absent(drawn):
    one = drawn[drawn["seed"] == 0]
    half = 12.706205 * 0.1  # differences 0.1 and 0.3
    repeated = pd.concat([one.assign(seed=seed) for seed in range(3)])  # as a probe on given weights does
    for metrics, n in ((one, 1), (repeated, 3)):
        line = paired_difference(metrics, "simsiam+spd", "simsiam").iloc[0]
        assert (line["low"], line["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
        assert (line["n"], line["draws"], line["over"]) == (n, 2, "draws")
    single = paired_difference(repeated[repeated["draw"] == 0], "simsiam+spd", "simsiam")
    assert math.isnan(single["low"][0]) and tables.lay_out(single, ["detector"])["image AU-ROC"][0] == "+0.100"
    assert plain(tables.lay_out(summary_table(one), ["pretraining"]))[0] == ["simsiam", "1", "2", "0.150 ± 0.071"]


def test_pairs_need_known_names_and_a_common_seed(seeds):
    assert tables.spd_pairs(["random", "simsiam+spd", "simsiam", "mocov2+spd"]) == {"simsiam+spd": "simsiam"}
    with pytest.raises(VisaError, match="no seed in common"):
        paired_difference(seeds[(seeds["pretraining"] == "simsiam") ^ (seeds["seed"] == 0)], "simsiam_spd", "simsiam")
    with pytest.raises(VisaError, match="simsiam, simsiam_spd"):
        paired_difference(seeds, "simsiam+spd", "simsiam")


def test_rows_keep_their_order_and_what_was_not_measured_is_a_dash():
    pairs = [("random", "patchcore"), ("random", "padim"), ("simsiam", "patchcore"), ("simsiam", "padim")]
    measured = table(*(row(p, 0, 0.5, detector=d) for p, d in pairs), row("simsiam", 0, 0.7, metric="ap"))
    assert tables.to_markdown(tables.lay_out(summary_table(measured), ["detector", "pretraining"])).splitlines() == [
        "| detector | pretraining | seeds | image AU-ROC | image AP |",
        "| --- | --- | ---: | ---: | ---: |",
        "| patchcore | random | 1 | 0.500 | – |",
        "| patchcore | simsiam | 1 | 0.500 | – |",
        "| padim | random | 1 | 0.500 | – |",
        "| padim | simsiam | 1 | 0.500 | 0.700 |",
    ]


def test_names_become_no_markup(seeds):
    text = tables.to_latex(tables.lay_out(summary_table(seeds), ["pretraining"]), "95 % of _ & #.", "tab:fryum")
    assert r"simsiam\_spd" in text and r"0.840~$\pm$~0.030" in text and r"\toprule" in text
    assert r"{95 \% of \_ \& \#.}" in text, "no comment"
    assert tables.to_markdown(pd.DataFrame({"a|b": [1]})).startswith("| a\\|b |")


def test_the_papers_tables_stand_in_its_order_with_objects_down_and_pretrainings_across(metrics):
    made = {made.name: made for made in tables.paper_tables(metrics, "Rendered images.")}
    assert list(made) == [
        *("1cls_classification_au_pr", "1cls_classification_auroc"),
        *("1cls_segmentation_au_pr", "1cls_segmentation_auroc"),
        *("2cls_10shot_classification_au_pr", "2cls_10shot_classification_auroc"),
    ]
    cells = made["1cls_classification_au_pr"].cells
    assert list(cells.columns) == ["detector", "object", "random", "simsiam", "simsiam+spd", "simsiam+spd − simsiam"]
    assert [line[:5] for line in plain(cells)] == [
        ["PaDiM", "fryum", "0.200 ± 0.000", "0.300 ± 0.000", "0.450 ± 0.071"],
        ["PaDiM", "pcb1", "0.400 ± 0.000", "0.500 ± 0.000", "0.650 ± 0.071"],
        ["PaDiM", "mean", "0.300 ± 0.000", "0.400 ± 0.000", "0.550 ± 0.071"],
    ]
    assert plain(cells)[-1][5] == "+0.150 [−0.485, +0.785]"
    caption = made["1cls_segmentation_au_pr"].caption
    assert caption.startswith("mini-VisA, 1-class, segmentation: AU-PR. ") and caption.endswith(" Rendered images.")
    assert plain(made["2cls_10shot_classification_au_pr"].cells)[0][2] == "0.210 ± 0.010", "one seed: over draws"


def test_means_and_differences_are_of_what_both_sides_have(metrics):
    one_class = metrics[metrics["setup"] == "1cls"]
    lacking = one_class[(one_class["object"] == "fryum") | (one_class["pretraining"] != "random")]
    assert [line[:5] for line in plain(tables.paper_tables(lacking)[0].cells)[1:]] == [
        ["PaDiM", "pcb1", "–", "0.500 ± 0.000", "0.650 ± 0.071"],
        ["PaDiM", "mean", "0.200 ± 0.000", "0.300 ± 0.000", "0.450 ± 0.071"],
    ]
    apart = one_class[(one_class["pretraining"] == "simsiam") ^ (one_class["seed"] == 0)]
    for part in (metrics[metrics["pretraining"] != "simsiam"], apart):
        made = tables.paper_tables(part)
        assert made and not [table for table in made if "simsiam+spd − simsiam" in table.cells]


def test_tables_become_csv_and_latex(metrics, tmp_path):
    made = tables.paper_tables(metrics)
    tables.write_tables(tmp_path, made)
    assert len(list(tmp_path.iterdir())) == 2 * len(made)
    read = pd.read_csv(tmp_path / "1cls_segmentation_au_pr.csv")
    assert list(read.columns[:3]) == ["dataset", "detector", "object"] and set(read["dataset"]) == {"mini-VisA"}
    latex = (tmp_path / "1cls_segmentation_au_pr.tex").read_text(encoding="utf-8")
    assert r"\toprule" in latex and r"95 \% t-interval" in latex and r"\caption{mini-VisA" in latex
