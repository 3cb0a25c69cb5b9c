"""What book/metric_conventions.md says is in its file, and its tables are made from it."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "book" / "_ext"))

import metric_pages

BOOK = Path(metric_pages.__file__).parents[1]
PADIM, PATCHCORE = "PaDiM, ImageNet", "PatchCore, ImageNet"
TOLD = [  # topic, convention, figure, detector, decimals
    ("AU-PR", "detector, pixels: trapezoid, exact", "au_pr", PATCHCORE, 4),
    ("AU-PR", "detector, pixels: step (AP), exact", "au_pr", PATCHCORE, 4),
    ("AU-PR", "constant scores, pixels: step (AP), exact", "au_pr", PATCHCORE, 4),
    ("AU-PR", "constant scores, pixels: trapezoid, exact", "au_pr", PATCHCORE, 4),
    ("AU-ROC", "detector, pixels: 202 thresholds", "auroc", PADIM, 4),
    ("AU-ROC", "detector, pixels: exact", "auroc", PADIM, 4),
    *(("stored scores", c, "ap", PADIM, 4) for c in ("as scored", "8 bit, one scale")),
    ("stored scores", "8 bit, one scale", "au_pr", PADIM, 4),
    ("stored scores", "8 bit, each image on its own scale", "ap", PADIM, 4),
    ("images", "all images together", "au_pro", PATCHCORE, 4),
    ("images", "anomalous images together", "au_pro", PATCHCORE, 4),
    ("images", "mean of each anomalous image's own", "au_pro", PATCHCORE, 4),
    *(("size", s, "au_pro", d, 4) for s in ("1000 x 1500", "224 x 224", "112 x 112") for d in (PADIM, PATCHCORE)),
    *(("size", s, "regions", PADIM, 0) for s in ("1000 x 1500", "224 x 224", "112 x 112")),
    *(("AU-PRO up to", limit, "au_pro", PATCHCORE, 4) for limit in ("0.05", "1")),
    *(("smoothing", s, f, PADIM, 4) for s in ("sigma 0 px", "sigma 8 px") for f in ("ap", "au_pro")),
    *(("F1, threshold chosen", f"images: on {w}", "f1", PADIM, 3) for w in ("the same images", "other images")),
]


@pytest.fixture(scope="module")
def rows():
    return pd.read_csv(BOOK / "results" / "metric_conventions" / "conventions.csv", dtype={"convention": str})


@pytest.fixture(scope="module")
def page():
    return (BOOK / "metric_conventions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("told", TOLD, ids=lambda t: ": ".join(map(str, t[:4])))
def test_a_told_number_is_in_the_file(told, rows, page):
    *keys, decimals = told
    value = rows.set_index(["topic", "convention", "figure", "detector"])["value"][tuple(keys)]
    assert f"{value:.{decimals}f}" in page


def test_every_number_with_decimals_is_checked(rows, page):
    table = rows.set_index(["topic", "convention", "figure", "detector"])["value"]
    checked = {f"{table[tuple(keys)]:.{decimals}f}" for *keys, decimals in TOLD}
    assert set(re.findall(r"\d\.\d{3,}", page)) <= checked


def test_what_is_said_without_numbers_holds(rows):
    table = rows.set_index(["topic", "convention", "figure", "detector"])["value"]
    for detector in (PADIM, PATCHCORE):
        sweep = "constant scores, pixels"
        assert table["AU-PR", f"{sweep}: trapezoid, 202 thresholds", "au_pr", detector] == 0
        assert table["AU-ROC", f"{sweep}: 202 thresholds", "auroc", detector] == 0
        for figure in ("auroc", "ap"):
            assert table["size", :, figure, detector].max() - table["size", :, figure, detector].min() < 1e-3
        assert table["size", :, "au_pro", detector].max() - table["size", :, "au_pro", detector].min() > 0.03
        for level in ("images", "pixels"):
            own, other = (
                table["F1, threshold chosen", f"{level}: on {w} images", "f1", detector] for w in ("the same", "other")
            )
            assert other < own


def test_tables_are_made_from_the_files_and_say_where_there_are_none(page, tmp_path):
    made = metric_pages.conventions(BOOK / "results" / "metric_conventions")
    made |= metric_pages.speed(BOOK / "results" / "benchmarks" / "metrics.csv")
    made |= metric_pages.growth(BOOK / "results" / "growth")
    assert "| trapezoid" not in made["conventions_au_pr.md"] and "0.5115" in made["conventions_au_pr.md"]
    included = set(re.findall(r"include\} generated/(\S+)", page))
    assert included <= set(made)
    empty = metric_pages.conventions(tmp_path) | metric_pages.speed(tmp_path / "x") | metric_pages.growth(tmp_path)
    assert included == set(empty) and all("python benchmarks/" in text for text in empty.values())


def test_growth_is_drawn_from_every_file_of_the_folder(tmp_path):
    header = "what,images,pixels,cpu_seconds,peak_bytes\n"
    (tmp_path / "metrics.csv").write_text(header + "one pass,1,100,0.1,2000\none pass,2,200,0.2,2000\n")
    (tmp_path / "padim.csv").write_text(header + "PaDiM fit,1,100,1,9000\n")
    made = metric_pages.growth(tmp_path)
    assert "one pass" in made["growth.svg"] and "PaDiM fit" in made["growth.svg"]
