"""What the book's extension makes of notebooks and of result files."""

import csv
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "book" / "_ext"))

import fragments
import notebook_pages

from visa.report import tables
from visa.report.tables import COLUMNS

SOURCE = [
    {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "Text."]},
    {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "n: int = 1", "outputs": []},
]
BANNER = {"output_type": "display_data", "data": {"text/html": '<div class="mini-visa-banner">'}, "metadata": {}}
STDERR = {"output_type": "stream", "name": "stderr", "text": "100%|####|"}
RESULT = {"output_type": "stream", "name": "stdout", "text": "42"}
INJECTED = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": "n = 2", "outputs": []}
CODE = {"cell_type": "code", "metadata": {"papermill": {}}, "source": "n", "outputs": [BANNER, STDERR, RESULT]}


def write(folder, cells, **metadata):
    folder.mkdir(exist_ok=True)
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (folder / "03_pretrain.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture
def folders(tmp_path):
    write(tmp_path / "notebooks", SOURCE)
    return tmp_path / "notebooks", tmp_path / "runs" / "book"


def page(folders):
    return notebook_pages.pages(*folders)["03_pretrain.ipynb"]["cells"]


def test_a_notebook_without_a_run_says_how_to_run_it(folders):
    title, parameters = page(folders)
    assert title["source"].startswith("# Title\n\n:::{note}")
    assert "papermill notebooks/03_pretrain.ipynb out.ipynb" in title["source"]
    assert title["source"].endswith("Text.")
    assert "hide-input" in parameters["metadata"]["tags"]


@pytest.mark.parametrize(("dataset", "warned"), [("mini-VisA", True), ("VisA", False)])
def test_the_executed_copy_is_shown_and_synthetic_data_are_named(folders, dataset, warned):
    folders[1].parent.mkdir()
    times = {"duration": 41.6, "end_time": "2025-01-02T03:04:05"}
    write(folders[1], [*SOURCE, INJECTED, CODE], visa={"dataset": dataset}, papermill=times)
    title, *code = page(folders)
    assert ("say nothing about VisA" in title["source"]) is warned
    assert "Executed in 42 s, 2025-01-02" in title["source"]
    assert [c["source"] for c in code] == ["n = 2", "n"], "the defaults that were replaced are gone"
    assert code[1]["outputs"] == [RESULT], "one banner is enough, and progress bars are noise"


def test_results_without_files_say_how_to_make_them(tmp_path):
    assert "visa run --objects fryum" in fragments.results("fryum", tmp_path)["results_fryum.md"]


def test_results_are_made_from_the_files(tmp_path):
    values = {"random": (0.5, 0.6), "simsiam": (0.7, 0.7), "simsiam+spd": (0.8, 0.9)}
    rows = [
        ("VisA", "fryum", "1cls", name, seed, "padim", "image", "au_pr", value)
        for name, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    curves = [("simsiam", 0, step, -step / 10) for step in range(5)]
    stages = [("01_data", "", "", 3.0), ("03_pretrain", "simsiam", 0, 10.0), ("03_pretrain", "simsiam", 1, 20.0)]
    for name, table in {
        "metrics": [COLUMNS, *rows],
        "curves": [("pretraining", "seed", "step", "loss"), *curves],
        "stages": [("notebook", "pretraining", "seed", "seconds"), *stages],
    }.items():
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(table)
    (tmp_path / "provenance.json").write_text('{"machine": {"cores": 2}, "seeds": [0, 1]}', encoding="utf-8")
    made = fragments.results("fryum", tmp_path)
    text = made["results_fryum.md"].replace("\N{NO-BREAK SPACE}", " ")
    assert "| padim | simsiam+spd | 2 | 0.850 ± 0.071 |" in text
    assert "| padim | 2 | +0.150 [−0.485, +0.785] |" in text
    assert "| 01_data |  | 3.0 | 1 |" in text
    assert "| 03_pretrain | simsiam | 15.0 | 2 |" in text
    assert '{"machine": {"cores": 2}, "seeds": [0, 1]}' in text
    assert set(made) == {"results_fryum.md", "fryum_image_au_pr.svg", "fryum_curves.svg"}
    assert all(f"generated/{file}" in text and "<svg" in svg for file, svg in made.items() if file.endswith("svg"))


def test_what_the_results_page_says_of_fryum_is_in_its_files():
    folder = Path(fragments.__file__).parents[1] / "results" / "fryum"
    metrics = tables.load_metrics([folder / "metrics.csv"])
    spd = tables.paired_difference(metrics, "simsiam+spd", "simsiam")
    assert (spd["low"] < 0).all() and (spd["high"] > 0).all() and (spd["n"] == 3).all()
    trained = tables.paired_difference(metrics, "simsiam", "random").set_index(["detector", "level", "metric"])
    for detector in ("padim", "patchcore"):
        assert trained.loc[(detector, "pixel", "ap"), "low"] > 0
    assert (trained.loc[["probe-5", "probe-10"], "mean"] < 0).all()
    assert pd.read_csv(folder / "diagnosis.csv")["triplet"].max() < 0.15
    ours = metrics[metrics["pretraining"] == "imagenet"].groupby(["detector", "level", "metric"])["value"].mean()
    peers = pd.read_csv(folder.parents[1] / "reference" / "peers_fryum.csv", index_col="detector")
    for detector, row in peers.iterrows():
        for name, metric in (("image AU-ROC", "auroc"), ("pixel AU-ROC", "auroc"), ("pixel AP", "ap")):
            assert abs(ours[(detector, name.split()[0], metric)] - row[name]) < 0.015


def test_every_module_is_in_the_api():
    package = Path(fragments.visa.__file__).parent
    modules = [p.relative_to(package.parent).with_suffix("") for p in package.rglob("*.py") if p.stem != "__init__"]
    text = fragments.api()
    assert [str(m) for m in modules if f"automodule:: {'.'.join(m.parts)}\n" not in text] == []
