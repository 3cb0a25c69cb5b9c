"""The paper's tables: what stands where, what their captions say, and the files they become."""

import pandas as pd
import pytest

from visa.report.tables import defect_tables, paper_tables, write_tables


def plain(cells):
    return [[str(value).replace("\N{NO-BREAK SPACE}", " ") for value in row] for row in cells.to_numpy().tolist()]


@pytest.fixture
def by_name(metrics):
    return {table.name: table for table in paper_tables(metrics, "Rendered images.")}


def test_there_is_a_table_a_setup_task_and_metric_in_the_papers_order(by_name):
    means = [name for name in by_name if not name.endswith("_difference")]
    assert means == [
        *("1cls_classification_au_pr", "1cls_classification_auroc"),
        *("1cls_segmentation_au_pr", "1cls_segmentation_auroc"),
        *("2cls_10shot_classification_au_pr", "2cls_10shot_classification_auroc"),
    ]


def test_objects_are_rows_and_pretrainings_columns_with_their_mean_last(by_name):
    cells = by_name["1cls_classification_au_pr"].cells
    assert list(cells.columns) == ["detector", "object", "random", "simsiam", "simsiam+spd"]
    assert plain(cells) == [
        ["PaDiM", "fryum", "0.200 ± 0.000", "0.300 ± 0.000", "0.450 ± 0.071"],
        ["PaDiM", "pcb1", "0.400 ± 0.000", "0.500 ± 0.000", "0.650 ± 0.071"],
        ["PaDiM", "mean", "0.300 ± 0.000", "0.400 ± 0.000", "0.550 ± 0.071"],
    ]
    assert plain(by_name["1cls_classification_au_pr_difference"].cells)[-1] == [
        *("PaDiM", "mean", "+0.150 [−0.485, +0.785]")
    ]


def test_captions_name_the_data_set_and_what_the_spread_is_over(by_name):
    assert all(
        table.caption.startswith("mini-VisA, ") and table.caption.endswith("images.") for table in by_name.values()
    )
    assert "over 2 seeds. " in by_name["1cls_segmentation_au_pr"].caption
    few_shot = by_name["2cls_10shot_classification_au_pr"]
    assert "2-class 10-shot, image classification: AU-PR" in few_shot.caption
    assert "over 3 draws where seeds are one or agree" in few_shot.caption
    assert plain(few_shot.cells)[0][2] == "0.210 ± 0.010"


def test_the_mean_is_over_the_objects_that_all_pretrainings_have(metrics):
    lacking = metrics[(metrics["object"] == "fryum") | (metrics["pretraining"] != "random")]
    table = paper_tables(lacking[lacking["setup"] == "1cls"])[0]
    assert plain(table.cells)[1:] == [
        ["PaDiM", "pcb1", "–", "0.500 ± 0.000", "0.650 ± 0.071"],
        ["PaDiM", "mean", "0.200 ± 0.000", "0.300 ± 0.000", "0.450 ± 0.071"],
    ]


@pytest.mark.parametrize("left", [["random"], ["simsiam"], ["random", "simsiam+spd"]])
def test_without_a_pair_there_are_only_means(metrics, left):
    tables = paper_tables(metrics[metrics["pretraining"].isin(left)])
    assert tables and not [t.name for t in tables if t.name.endswith("_difference")]


def test_a_pair_without_a_common_seed_has_no_difference(metrics):
    apart = metrics[(metrics["pretraining"] == "simsiam") ^ (metrics["seed"] == 0)]
    assert not [t.name for t in paper_tables(apart[apart["setup"] == "1cls"]) if t.name.endswith("_difference")]


def test_defect_classes_are_rows_with_their_images_and_all_anomalies_last(metrics):
    images = {("fryum", "1cls"): {"burnt": 7, "": 12}}
    made = {table.name: table for table in defect_tables(metrics, images)}
    assert set(made) == {
        f"{object}_1cls_{task}_au_pr_by_defect{part}"
        for object in ("fryum", "pcb1")
        for task in ("classification", "segmentation")
        for part in ("", "_difference")
    }, "the probe has no figures of single classes"
    table = made["fryum_1cls_classification_au_pr_by_defect"]
    assert "fryum by defect class" in table.caption
    assert [row[:4] for row in plain(table.cells)] == [
        ["PaDiM", "burnt", "7", "0.250 ± 0.000"],
        ["PaDiM", "other", "–", "0.250 ± 0.000"],
        ["PaDiM", "all anomalies", "12", "0.200 ± 0.000"],
    ]
    assert defect_tables(metrics[metrics["defect"] == ""], images) == []


def test_tables_become_csv_latex_and_one_page_that_needs_nothing_else(metrics, tmp_path):
    made = paper_tables(metrics.replace({"object": {"pcb1": "a<b"}}))
    files = write_tables(tmp_path, made, "Results on mini-VisA")
    assert len(files) == 2 * len(made) + 1 == len(list(tmp_path.iterdir()))
    table = pd.read_csv(tmp_path / "1cls_segmentation_au_pr.csv")
    assert list(table.columns[:3]) == ["dataset", "detector", "object"] and set(table["dataset"]) == {"mini-VisA"}
    latex = (tmp_path / "1cls_segmentation_au_pr_difference.tex").read_text(encoding="utf-8")
    assert r"\toprule" in latex and r"95 \% t-interval" in latex and r"\caption{mini-VisA" in latex
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<table") == page.count("<figcaption>mini-VisA") == len(made)
    assert "color-scheme: light dark" in page and "a&lt;b" in page and "http" not in page
