import csv
import math
import re

import pandas as pd
import pytest

from visa.errors import VisaError
from visa.report.tables import (
    COLUMNS,
    balanced,
    differences_to,
    intervals,
    load_metrics,
    overall,
    paired_difference,
    spd_pairs,
    spread,
    summary_table,
    to_latex,
    to_markdown,
)


def row(pretraining, seed, value, object="fryum", metric="auroc", dataset="VisA", detector="padim", draw=0, defect=""):
    return (dataset, object, "1cls", draw, pretraining, seed, detector, defect, "image", metric, value)


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return path


@pytest.fixture
def metrics(tmp_path):
    values = {"simsiam": (0.80, 0.82, 0.84), "simsiam_spd": (0.81, 0.84, 0.87)}
    rows = [row(name, seed, v) for name, three in values.items() for seed, v in enumerate(three)]
    return load_metrics([write(tmp_path / "metrics.csv", rows)])


@pytest.fixture
def drawn(tmp_path):
    """Two pre-trainings, two seeds, two draws: differences 0.1 and 0.3 for seed 0, 0.4 and 0.6 for seed 1."""
    base = {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.3, (1, 1): 0.3}
    gain = {(0, 0): 0.1, (0, 1): 0.3, (1, 0): 0.4, (1, 1): 0.6}
    rows = [row("simsiam", s, v, draw=d) for (s, d), v in base.items()]
    rows += [row("simsiam+spd", s, v + gain[s, d], draw=d) for (s, d), v in base.items()]
    return load_metrics([write(tmp_path / "drawn.csv", rows)])


def test_a_file_without_draws_and_defects_is_of_one_draw_and_all_anomalies(tmp_path):
    columns = [c for c in COLUMNS if c not in ("draw", "defect")]
    short = ["VisA", "fryum", "1cls", "random", "0", "padim", "image", "auroc", "0.5"]
    (tmp_path / "metrics.csv").write_text(f"{','.join(columns)}\n{','.join(short)}\n", encoding="utf-8")
    line = load_metrics([tmp_path / "metrics.csv"]).iloc[0]
    assert (line["draw"], line["defect"], line["value"]) == (0, "", 0.5)


def test_draws_are_averaged_before_seeds(drawn):
    line = summary_table(drawn).iloc[0]
    assert (line["mean"], line["n"], line["draws"]) == (pytest.approx(0.225), 2, 2)
    assert line["sd"] == pytest.approx((0.3 - 0.15) / math.sqrt(2)), "of the seeds' means, 0.15 and 0.3"
    assert line["sd_draws"] == pytest.approx(math.sqrt((0.1**2 / 2 + 0) / 2)), "root mean square of the seeds' own"


def test_differences_pair_seed_and_draw_and_then_average_each_seed(drawn):
    line = paired_difference(drawn, "simsiam+spd", "simsiam").iloc[0]
    half = 12.706205 * 0.3 / 2  # t(0.975, 1), the seeds' mean differences 0.2 and 0.5
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((0.35, 0.35 - half, 0.35 + half), abs=1e-5)
    assert (line["n"], line["draws"], line["over"]) == (2, 2, "seeds")


def test_draws_that_only_one_side_has_are_no_pairs(drawn):
    less = drawn[(drawn["pretraining"] == "simsiam") | (drawn["draw"] == 1)]
    line = paired_difference(less, "simsiam+spd", "simsiam").iloc[0]
    assert (line["mean"], line["draws"]) == (pytest.approx((0.3 + 0.6) / 2), 1)


def test_of_one_seed_the_interval_is_over_draws_and_says_so(drawn):
    one = drawn[drawn["seed"] == 0]
    table = paired_difference(one, "simsiam+spd", "simsiam")
    half = 12.706205 * 0.1  # differences 0.1 and 0.3
    assert (table["low"][0], table["high"][0]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert (table["n"][0], table["draws"][0], table["over"][0]) == (1, 2, "draws")
    cells = spread(summary_table(one), ["pretraining"])
    assert cells.iloc[0].tolist() == ["simsiam", 1, 2, "0.150\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.071"]


def test_single_defect_classes_stay_out_of_the_main_figures(tmp_path):
    rows = [row(p, 0, 0.5 + k / 10) for k, p in enumerate(("a", "a+spd"))]
    rows += [row(p, 0, 0.1 + k / 2, defect="burnt") for k, p in enumerate(("a", "a+spd"))]
    metrics = load_metrics([write(tmp_path / "m.csv", rows)])
    assert list(overall(metrics)["value"]) == [0.5, 0.6] and list(summary_table(metrics)["mean"]) == [0.5, 0.6]
    assert paired_difference(metrics, "a+spd", "a")["mean"].tolist() == pytest.approx([0.1])
    by_class = summary_table(metrics, ["pretraining", "defect"]).set_index(["pretraining", "defect"])["mean"]
    assert by_class["a", "burnt"] == 0.1 and by_class["a", ""] == 0.5


def test_pairs_are_found_among_the_names():
    assert spd_pairs(["random", "simsiam+spd", "simsiam", "mocov2+spd"]) == {"simsiam+spd": "simsiam"}


def test_the_mean_difference_over_objects_averages_them_first(tmp_path):
    values = {("a", "x"): 0.2, ("a+spd", "x"): 0.3, ("a", "y"): 0.6, ("a+spd", "y"): 0.9}
    rows = [row(p, 0, v, object=o) for (p, o), v in values.items()]
    metrics = load_metrics([write(tmp_path / "m.csv", rows)])
    assert paired_difference(metrics, "a+spd", "a", ["metric"])["mean"].tolist() == pytest.approx([0.2])


def test_summary_is_mean_and_sample_deviation_over_seeds(metrics):
    first = summary_table(metrics).iloc[0]
    assert (first["pretraining"], first["n"]) == ("simsiam", 3)
    assert first["mean"] == pytest.approx(0.82)
    assert first["sd"] == pytest.approx(0.02)


def test_one_seed_has_no_spread(metrics):
    table = summary_table(metrics[metrics["seed"] == 0])
    assert math.isnan(table["sd"][0])
    assert list(spread(table, ["pretraining"])["image AU-ROC"]) == ["0.800", "0.810"]


def test_leaving_out_the_object_averages_objects_before_seeds(tmp_path):
    rows = [
        row("simsiam", seed, v, object=o) for seed, o, v in ((0, "a", 0.2), (0, "b", 0.8), (1, "a", 0.4), (1, "b", 0.8))
    ]
    table = summary_table(load_metrics([write(tmp_path / "m.csv", rows)]), by=("pretraining", "level", "metric"))
    assert table["mean"][0] == pytest.approx(0.55)
    assert table["sd"][0] == pytest.approx(0.1 / math.sqrt(2))


def test_an_object_that_one_seed_lacks_is_refused(tmp_path):
    rows = [row("simsiam", 0, 0.2, object="a"), row("simsiam", 0, 0.8, object="b"), row("simsiam", 1, 0.4, object="a")]
    with pytest.raises(VisaError, match="do not cover the same"):
        summary_table(load_metrics([write(tmp_path / "m.csv", rows)]), by=("pretraining", "level", "metric"))


def test_balanced_keeps_all_objects_while_one_of_them_is_a_seed_ahead(tmp_path):
    rows = [row(name, 0, 0.5, object=f"o{i}") for name in ("a", "b") for i in range(12)]
    rows += [row(name, 1, 0.9, object="o0") for name in ("a", "b")]
    kept = balanced(load_metrics([write(tmp_path / "m.csv", rows)]))
    assert kept["object"].nunique() == 12 and set(kept["seed"]) == {0}


def test_balanced_keeps_what_every_pretraining_has(tmp_path):
    rows = [row("a", seed, 0.5, object=o) for o in ("fryum", "pcb1") for seed in (0, 1)]
    rows += [row("b", 0, 0.6, object="fryum"), row("b", 0, 0.7, object="pcb1"), row("b", 1, 0.7, object="pcb1")]
    kept = balanced(load_metrics([write(tmp_path / "m.csv", rows)]))
    assert set(kept["object"]) == {"pcb1"} and set(kept["seed"]) == {0, 1} and len(kept) == 4
    summary_table(kept, ["pretraining", "metric"])
    other = [row("a", 0, 0.5, object="fryum", detector="unet")]
    both = balanced(load_metrics([write(tmp_path / "o.csv", [*rows, *other])]))
    assert set(both.loc[both["detector"] == "unet", "object"]) == {"fryum"}, "only a was scored with it"
    assert balanced(load_metrics([write(tmp_path / "n.csv", [row("a", 0, 0.5), row("b", 1, 0.5)])])).empty


def test_paired_difference_uses_the_t_interval_of_the_pairs(metrics):
    line = paired_difference(metrics, "simsiam_spd", "simsiam").iloc[0]
    half = 4.302653 * 0.01 / math.sqrt(3)  # t(0.975, 2 degrees of freedom), differences 0.01, 0.02, 0.03
    assert (line["mean"], line["low"], line["high"]) == pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-6)


def test_seeds_that_repeat_each_other_make_no_interval(drawn):
    """As those of a probe on given weights do, whatever the number of seeds."""
    one = drawn[drawn["seed"] == 0]
    repeated = pd.concat([one.assign(seed=seed) for seed in range(3)])
    line, alone = (paired_difference(t, "simsiam+spd", "simsiam").iloc[0] for t in (repeated, one))
    assert (line["n"], line["over"]) == (3, "draws")
    assert (line["low"], line["high"]) == pytest.approx((alone["low"], alone["high"]))
    single = repeated[repeated["draw"] == 0]
    assert math.isnan(paired_difference(single, "simsiam+spd", "simsiam")["low"].iloc[0])


def test_pairs_need_a_common_seed(metrics):
    apart = metrics[(metrics["pretraining"] == "simsiam") ^ (metrics["seed"] == 0)]
    one = metrics[~((metrics["pretraining"] == "simsiam") & (metrics["seed"] > 0))]
    line = paired_difference(one, "simsiam_spd", "simsiam").iloc[0]
    assert line["n"] == 1
    assert math.isnan(line["low"])
    assert intervals(paired_difference(one, "simsiam_spd", "simsiam"), ["detector"])["image AU-ROC"][0] == "+0.010"
    with pytest.raises(VisaError, match="no seed in common"):
        paired_difference(apart, "simsiam_spd", "simsiam")


def test_an_unknown_pretraining_lists_the_known(metrics):
    with pytest.raises(VisaError, match="simsiam, simsiam_spd"):
        paired_difference(metrics, "simsiam+spd", "simsiam")


def test_data_sets_are_not_mixed(tmp_path):
    files = [write(tmp_path / f"{d}.csv", [row("simsiam", 0, 0.5, dataset=d)]) for d in ("VisA", "mini-VisA")]
    with pytest.raises(VisaError, match="mix the data sets VisA, mini-VisA"):
        load_metrics(files)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("simsiam", 0, "high")], "line 2: the value is no number"),
        ([row("simsiam", 0, 0.5), row("simsiam", 0, 0.6)], "given twice"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, rows, message):
    with pytest.raises(VisaError, match=message):
        load_metrics([write(tmp_path / "metrics.csv", rows)])


def test_an_absent_file_or_column_is_named(tmp_path):
    with pytest.raises(VisaError, match=re.escape(str(tmp_path / "none.csv"))):
        load_metrics([tmp_path / "none.csv"])
    (tmp_path / "short.csv").write_text("object,value\nfryum,1\n", encoding="utf-8")
    with pytest.raises(VisaError, match="lacks the columns dataset"):
        load_metrics([tmp_path / "short.csv"])
    with pytest.raises(VisaError, match="run the notebooks"):
        load_metrics([])


def test_a_figure_that_was_not_measured_shows_as_a_dash(tmp_path):
    rows = [row("random", 0, 0.5), row("simsiam", 0, 0.6), row("simsiam", 0, 0.7, metric="ap")]
    table = spread(summary_table(load_metrics([write(tmp_path / "m.csv", rows)])), ["pretraining", "detector"])
    assert to_markdown(table).splitlines() == [
        "| pretraining | detector | seeds | image AU-ROC | image AP |",
        "| --- | --- | --- | --- | --- |",
        "| random | padim | 1 | 0.500 | – |",
        "| simsiam | padim | 1 | 0.600 | 0.700 |",
    ]


def test_rows_are_grouped_in_the_order_of_their_first_appearance(tmp_path):
    pairs = [("random", "patchcore"), ("random", "padim"), ("simsiam", "patchcore"), ("simsiam", "padim")]
    rows = [row(p, 0, 0.5, detector=d) for p, d in pairs]
    table = spread(summary_table(load_metrics([write(tmp_path / "m.csv", rows)])), ["detector", "pretraining"])
    assert list(table["detector"]) == ["patchcore", "patchcore", "padim", "padim"]
    assert list(table["pretraining"]) == ["random", "simsiam"] * 2


def test_latex_escapes_names_and_keeps_the_sign(metrics):
    text = to_latex(spread(summary_table(metrics), ["pretraining"]), "Fryum, 1-class.", "tab:fryum")
    assert r"simsiam\_spd" in text
    assert r"0.840~$\pm$~0.030" in text
    assert r"\toprule" in text
    assert r"{95 \% of \_ \& \#.}" in to_latex(pd.DataFrame({"a": [1]}), "95 % of _ & #.", "tab:a"), "no comment"


def test_markdown_survives_a_bar_in_a_name():
    assert to_markdown(pd.DataFrame({"a|b": [1]})).startswith("| a\\|b |")


def test_differences_to_a_reference_pair_the_seeds():
    values = {("reference", 0): 0.1, ("reference", 1): 0.3, ("b", 0): 0.2, ("b", 1): 0.6, ("a", 1): 0.5}
    rows = [{"variant": v, "seed": s, "measure": "triplet", "value": value} for (v, s), value in values.items()]
    table = differences_to(pd.DataFrame(rows), "reference")
    assert list(table["variant"]) == ["b", "a"] and list(table["n"]) == [2, 1]
    half = 12.706205 * 0.1 * math.sqrt(2) / math.sqrt(2)  # t(0.975, 1), differences 0.1 and 0.3
    assert tuple(table.loc[0, ["mean", "low", "high"]]) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-5)
    assert table.loc[1, "mean"] == pytest.approx(0.2) and math.isnan(table.loc[1, "low"])
    with pytest.raises(VisaError, match="reference"):
        differences_to(pd.DataFrame(rows), "refrence")
    drawn = [r | {"draw": d, "value": r["value"] + (d if r["variant"] == "b" else 0)} for r in rows for d in (0, 1)]
    assert differences_to(pd.DataFrame(drawn), "reference")["mean"][0] == pytest.approx(0.7)
