"""What the book's extension makes of notebooks and files, and what pages and ledger say of the files."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[1] / "book" / "_ext"))

import companion
import ledger
import package
import pages
import results

from visa.cli import app
from visa.errors import VisaError
from visa.mini.writer import write_mini_visa
from visa.pretrain import METHODS
from visa.report import tables
from visa.report.tables import COLUMNS

REPO = Path(__file__).resolve().parents[1]
BOOK = REPO / "book"
RESULTS = BOOK / "results"
COMMANDS = results.commands(BOOK / "reference" / "runs.csv")
SOURCE = [
    {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "Text."]},
    {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "n: int = 1", "outputs": []},
]
BANNER = {"output_type": "display_data", "data": {"text/html": '<div class="mini-visa-banner">'}, "metadata": {}}
STDERR = {"output_type": "stream", "name": "stderr", "text": "100%|####|"}
PICTURE = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}, "metadata": {}}
INJECTED = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": "n = 2", "outputs": []}
CODE = {"cell_type": "code", "id": "abc", "metadata": {}, "source": "n", "outputs": [BANNER, STDERR, PICTURE]}


def text_of(page):
    return (BOOK / f"{page}.md").read_text(encoding="utf-8")


def save(file, columns, rows):
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


# Notebooks and the defect browser


@pytest.fixture
def shown(tmp_path):
    """A function: the cells of a page, of a source and, with metadata, of an executed copy."""
    texts = save(tmp_path / "figures.csv", ["notebook", "cell", "alt", "caption"], [("03", "abc", "Two curves", "It.")])

    def cells(executed=None, **metadata):
        for name, content in (("source", SOURCE), ("book", executed)):
            (tmp_path / name).mkdir(exist_ok=True)
            if content:
                notebook = {"cells": content, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
                (tmp_path / name / "03.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        return pages.pages(tmp_path / "source", tmp_path / "book", texts)["03.ipynb"]["cells"]

    return cells


def test_a_notebook_without_a_run_says_how_to_run_it(shown):
    title, parameters = shown()
    assert title["source"].startswith("# Title\n\n:::{note}") and title["source"].endswith("Text.")
    assert "papermill notebooks/03.ipynb out.ipynb" in title["source"]
    assert "hide-input" in parameters["metadata"]["tags"]


@pytest.mark.parametrize(("dataset", "warned"), [("mini-VisA", True), ("VisA", False)])
def test_the_executed_copy_is_shown_with_what_made_its_figures(shown, dataset, warned):
    papermill = {"duration": 41.6, "end_time": "2025-01-02T03", "parameters": {"object": "fryum", "seed": 2}}
    visa = {"dataset": dataset, "commit": "0123456789abcdef"}
    title, *code = shown([*SOURCE, INJECTED, CODE], visa=visa, papermill=papermill)
    assert ("say nothing about VisA" in title["source"]) is warned
    assert "Executed in 42 s, 2025-01-02." in title["source"]
    assert [c["source"] for c in code] == ["n = 2", "n"], "the defaults that were replaced are gone"
    assert code[1]["outputs"] == [PICTURE], "one banner is enough, and progress bars are noise"
    made_by = f"*Made by notebook `03` on {dataset} (object fryum, seed 2), commit `0123456`.*"
    figure = {"image": {"alt": "Two curves"}, "figure": {"caption": f"It. {made_by}"}}
    assert code[1]["metadata"]["mystnb"] == figure


def test_every_figure_of_a_notebook_has_a_text_and_a_caption():
    figures = pd.read_csv(BOOK / "reference" / "notebook_figures.csv", keep_default_na=False)
    sources = {f.stem: json.loads(f.read_text()) for f in (REPO / "notebooks").glob("*.ipynb")}
    code = {(name, c["id"]): "".join(c["source"]) for name, nb in sources.items() for c in nb["cells"]}
    named = set(zip(figures["notebook"], figures["cell"], strict=True))
    assert named <= set(code) and (figures[["alt", "caption"]] != "").all(axis=None)
    drawing = re.compile(r"plt\.subplots|\bplot_\w+\(|show_cases\(|^ *show\(", re.M)
    assert {where for where, text in code.items() if drawing.search(text)} == named


def test_the_browser_of_the_shown_run_is_copied_and_goes_with_it(tmp_path):
    runs, copied = tmp_path / "runs", tmp_path / "html" / "_static" / "browser"
    assert companion.browser_of(runs) is None
    (runs / "book").mkdir(parents=True)
    notebook = {"metadata": {"papermill": {"parameters": {"run": "mine"}}}}
    (runs / "book" / "04_score.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (runs / "mine" / "browser").mkdir(parents=True)
    index = runs / "mine" / "browser" / "index.html"
    for content in ("first", "second one"):
        index.write_text(content, encoding="utf-8")
        companion.copy_browser(companion.browser_of(runs), copied)
        assert (copied / "index.html").read_text(encoding="utf-8") == content
    time = (copied / "index.html").stat().st_ctime_ns
    companion.copy_browser(companion.browser_of(runs), copied)
    assert (copied / "index.html").stat().st_ctime_ns == time, "the same browser is not copied again"
    index.unlink()
    companion.copy_browser(companion.browser_of(runs), copied)
    assert not copied.exists()


def test_after_a_build_that_was_killed_the_next_begins_anew(tmp_path):
    app = SimpleNamespace(outdir=tmp_path / "html", doctreedir=tmp_path / "doctrees")
    page = app.outdir / "page.html"
    companion.begin(app, None)
    page.write_text("<html>")
    (app.outdir / companion.UNFINISHED).unlink()  # as `finish` does
    companion.begin(app, None)
    assert page.is_file(), "a finished build is kept"
    companion.begin(app, None)
    assert not page.is_file() and app.doctreedir.is_dir()


# Tables


@pytest.fixture
def metrics(tmp_path):
    """A metrics.csv of two seeds, and a row of a single defect class, which no table counts."""
    values = {"random": (0.5, 0.6), "simsiam": (0.7, 0.7), "simsiam+spd": (0.8, 0.9)}
    rows = [
        ("VisA", "fryum", setup, draw, name, seed, detector, defect, "image", "au_pr", value)
        for name, pair in values.items()
        for setup, detector, draws in (("1cls", "padim", [0]), ("2cls_5shot", "probe", [0, 1]))
        for draw in draws
        for seed, value in enumerate(pair)
        for defect in ("", "burnt")
    ]
    return save(tmp_path / "metrics.csv", COLUMNS, rows)


def test_a_cell_is_the_mean_over_seeds_or_a_difference_paired_by_seed(metrics):
    layout = {"rows": "setup, pretraining", "columns": "detector, metric", "where": "setup=1cls"}
    text = plain(results.table(metrics, "", layout))
    assert "| setup | pretraining | padim, AU-PR |" in text
    assert "| 1cls | simsiam+spd | 0.850 ± 0.071 |" in text and "5shot" not in text
    text = plain(results.table(metrics, "", layout | {"minus": "spd", "where": ""}))
    assert "| 1cls | simsiam+spd − simsiam | +0.150 [−0.485, +0.785] | – |" in text
    assert "| 2cls_5shot | simsiam+spd − simsiam | – | +0.150 [−0.485, +0.785] |" in text
    text = plain(results.table(metrics, "", layout | {"minus": "random"}))
    assert "| 1cls | simsiam | +0.150 [−0.485, +0.785] |" in text


def test_columns_of_a_json_file_are_shown_as_they_are(tmp_path):
    machine = {"cores": 2, "cpu": "a CPU", "commit": "0123456789"}
    rows = [
        {"stage": "a", "kills": {"workers": 1234}, "said": "x\ny", "seconds": 0.01234, "whole": True},
        {"stage": "b"},
    ]
    file = tmp_path / "kills.json"
    file.write_text(json.dumps({"rows": rows, "one": {"files": [1, 2]}, "machine": machine, "load": [5]}))
    show = "stage = stage; kills.workers = killed; said = `said`; seconds = s; whole = whole"
    text = results.table(file, "", {"show": show})
    assert "| stage | killed | said | s | whole |" in text
    assert "| a | 1,234 | `x y` | 0.0123 | yes |\n| b |  |  |  |  |" in text
    assert "| 2 |" in results.table(file, "one", {"show": "files = files"}), "a list is its length"
    assert "2 cores of a CPU that other work kept at a load of 5, commit `0123456`" in results.measured_on(file)
    conventions = save(
        tmp_path / "c.csv", ["topic", "what", "value"], [("F1, best", "a", 0.12345), ("other", "b", 550)]
    )
    text = results.table(
        conventions, "", {"where": "topic=F1, best", "rows": "what", "columns": "topic", "digits": "4"}
    )
    assert "| a | 0.1235 |" in text and "550" not in text
    with pytest.raises(VisaError, match=r"kills\.json lacks color"):
        results.table(file, "", {"show": "color = colour"})


def test_measures_of_all_files_stand_in_one_table(metrics):
    save(metrics.parent / "diagnosis.csv", ["pretraining", "seed", "triplet"], [("random", 0, ""), ("simsiam", 0, 0.2)])
    columns = ["pretraining", "seed", "change", "area", "cosine"]
    save(metrics.parent / "similarity.csv", columns, [("random", 0, "SmoothBlend", 0.02, 0.9)])
    long = results.long_table(metrics.parent)
    value = long.set_index(["variant", "measure", "seed", "draw"])["value"]
    assert value["simsiam+spd", "2cls_5shot probe image au_pr", 1, 1] == 0.9
    assert value["simsiam", "triplet", 0, 0] == 0.2 and ("random", "triplet", 0, 0) not in value
    assert value["random", "SmoothBlend 0.02", 0, 0] == 0.9
    assert results.long_table(metrics.parent / "nothing").empty


@pytest.mark.parametrize("name", sorted({n for n, c in COMMANDS.items() if c.startswith("visa run")}))
def test_the_commands_of_the_results_pages_are_accepted(name, tmp_path, monkeypatch):
    root, photographs = tmp_path / "VisA", tmp_path / "photographs"
    write_mini_visa(root, ["fryum"], normal=60, anomaly=60, size=64, seed=0, workers=1, progress=False)
    monkeypatch.setenv("VISA_ROOT", str(root))
    photographs.mkdir()
    (tmp_path / "lite0.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    words = COMMANDS[name].replace("PHOTOGRAPHS", str(photographs)).split()
    result = CliRunner().invoke(app, [*words[1:], "--dry-run"])
    assert result.exit_code == 0, result.output
    assert ("ablation" in result.output) is ("--ablation" in words)


def test_every_module_is_in_the_api_and_named_by_the_house():
    page = re.findall(r"\{api\} (.+)", text_of("api"))
    listed = {name for names in page for name in package.modules(names.split())}
    files = [p.relative_to(REPO).with_suffix("") for p in (REPO / "visa").rglob("*.py") if p.stem != "__init__"]
    assert [str(f) for f in files if ".".join(f.parts) not in listed] == []
    house = text_of("architecture")
    assert [f.stem for f in files if "mini" not in f.parts and not re.search(rf"\b{f.stem}\b", house)] == []


# What pages say of their files


@pytest.mark.parametrize("page", sorted(BOOK.glob("results_*.md")), ids=lambda p: p.stem)
def test_the_commit_that_a_results_page_names_made_its_files(page):
    named = re.findall(r"commit `([0-9a-f]{7,40})`", page.read_text(encoding="utf-8"))
    made = {f: f.read_text() for f in RESULTS.glob(f"{page.stem.removeprefix('results_')}*/provenance.json")}
    assert [(f.parent.name, c) for f, text in made.items() for c in named if f'"commit": "{c}' not in text] == []


def spd_differences(name, method="simsiam"):
    metrics = tables.load_metrics([RESULTS / name / "metrics.csv"])
    return tables.paired_difference(metrics, f"{method}+spd", method)


def without_zero(table):
    return table[(table["low"] > 0) | (table["high"] < 0)]


def test_what_the_fryum_page_says():
    spd = spd_differences("fryum")
    assert without_zero(spd).empty and (spd["n"] == 3).all()
    metrics = tables.load_metrics([RESULTS / "fryum" / "metrics.csv"])
    trained = tables.paired_difference(metrics, "simsiam", "random").set_index(["setup", "detector", "level", "metric"])
    assert all(trained.loc[("1cls", detector, "pixel", "ap"), "low"] > 0 for detector in ("padim", "patchcore"))
    assert (trained.loc[["2cls_5shot", "2cls_10shot"], "mean"] < 0).all()
    assert pd.read_csv(RESULTS / "fryum" / "diagnosis.csv")["triplet"].max() < 0.15


def test_what_the_methods_page_says():
    text = text_of("results_methods")
    table = pd.read_csv(RESULTS / "methods_fryum" / "diagnosis.csv").set_index(["pretraining", "seed"])
    for measure in ("triplet", "cos_blend"):
        for seed in (0, 1, 2):
            without, spd = (table.loc[(name, seed), measure] for name in ("simsiam", "simsiam+spd"))
            assert f"{without:.3f} to {spd:.3f}" in text, (measure, seed)
    assert table["triplet"].max() == pytest.approx(0.17, abs=1e-6)
    long = results.long_table(RESULTS / "methods_fryum")
    long, left_out = long[long["measure"].isin(["triplet", "cos_blend"])], {}
    for method in METHODS:
        moved = without_zero(tables.differences_to(long, method))
        left_out |= {
            (method, row["measure"]): row["mean"] for _, row in moved.iterrows() if row["variant"] == f"{method}+spd"
        }
    assert list(left_out) == [("mocov2", "triplet")] and f"{left_out['mocov2', 'triplet']:.3f}" == "-0.012"
    runs = ("methods_fryum", "methods_photographs")
    every = pd.concat([spd_differences(run, m).assign(method=m, run=run) for run in runs for m in METHODS])
    found = without_zero(every)
    losses = int((found["mean"] < 0).sum())
    assert f"Of the {len(every)} differences" in text and f"{len(found)} have an interval without 0" in text
    assert f"{losses} of them are losses and {len(found) - losses} are gains" in text
    assert round(0.05 * len(every)) == 10 and "simsiam" not in set(found["method"])
    assert found.groupby(["method", "setup", "detector", "level", "metric"])["run"].nunique().max() == 1


def test_what_the_setups_page_says():
    text, folder = text_of("results_setups"), RESULTS / "setups_fryum"
    learned = pd.read_csv(folder / "diagnosis.csv").set_index(["pretraining", "seed"])
    for seed in (0, 1, 2):
        without, spd = (learned.loc[(name, seed)] for name in ("simsiam", "simsiam+spd"))
        assert f"{without['triplet']:.3f} to {spd['triplet']:.3f}" in text
        assert spd["feature_std"] < 0.08 and 0.4 < without["feature_std"] < 0.6
    curves = pd.read_csv(folder / "curves.csv")
    assert curves.loc[curves["pretraining"] == "simsiam+spd", "feature_std"].min() > 0.75
    probe = learned.groupby("pretraining")["probe_auroc"].mean()
    assert f"AU-ROC of {probe['simsiam+spd']:.3f}" in text and f"allows {probe['simsiam']:.3f}" in text
    spd = spd_differences("setups_fryum")
    found = without_zero(spd)
    assert len(spd) == 69 and len(found) == 4 and (found["mean"] > 0).all() and (spd["n"] == 3).all()
    assert {tuple(row) for row in found[["setup", "detector"]].to_numpy()} == {("2cls_highshot", "probe")}
    assert f"rises by {found.set_index('metric').loc['au_pr', 'mean']:.3f}" in text
    metrics = tables.load_metrics([folder / "metrics.csv"])
    means = tables.summary_table(metrics[metrics["level"] == "image"])
    means = means[means["setup"].isin(["1cls", "2cls_highshot"])]
    best = means.pivot_table(index=["setup", "detector", "metric"], columns="pretraining", values="mean").idxmax(axis=1)
    assert set(best) == {"imagenet"}
    tuned = tables.paired_difference(metrics, "simsiam", "random").set_index(["setup", "detector", "level", "metric"])
    worse = tuned.loc[("2cls_highshot", "unet", "pixel", "au_pr")]
    assert worse["high"] < 0 and f"by {-worse['mean']:.3f}" in text


def test_what_the_ablation_page_says():
    text, rows = text_of("results_ablation"), pd.read_csv(RESULTS / "ablation" / "ablation.csv")
    mean = rows.groupby(["variant", "measure"])["value"].mean()
    told = [("no SPD", "cos_blend"), ("reference", "cos_blend"), ("large patches", "feature_std")]
    told += [(v, m) for v in ("reference", "large patches") for m in ("triplet", "probe_auroc")]
    told += [("cross-entropy", "probe_auroc")]
    assert [pair for pair in told if f"{mean[pair]:.3f}" not in text] == []
    to_none = tables.differences_to(rows, "no SPD").set_index(["variant", "measure"]).loc["reference"]
    assert (to_none.loc[["cos_blend", "cos_weak"], "high"] < 0).all()
    assert set(without_zero(to_none).index).isdisjoint({"triplet", "probe_auroc", "probe_accuracy"})
    to_reference = tables.differences_to(rows, "reference").set_index(["variant", "measure"])
    assert f"{to_reference['mean']['cross-entropy', 'probe_auroc']:.3f} above" in text
    same = (["hard edge", "faint colour", "eta 0.1", "eta 1.0"], ["probe_auroc", "probe_accuracy"])
    assert without_zero(to_reference.loc[same, :]).empty


def test_what_the_method_page_says_of_features():
    rows = pd.read_csv(RESULTS / "similarity" / "similarity.csv")
    small = rows[(rows["change"] == "SmoothBlend") & (rows["area"] <= 0.04)]
    by_area = {name: part.groupby("area")["cosine"].agg(["min", "max"]) for name, part in small.groupby("pretraining")}
    assert (by_area["simsiam"]["min"] > by_area["random"]["max"]).all(), "every seed, at every size"
    assert (by_area["simsiam+spd"]["max"] < by_area["random"]["min"]).all()
    long = results.long_table(RESULTS / "similarity")
    moved = tables.differences_to(long[long["measure"] == "SmoothBlend 0.02"], "simsiam").set_index("variant")
    assert moved.loc["simsiam+spd", "n"] == 3 and moved.loc["simsiam+spd", "high"] > 0, "the interval contains 0"
    weak = rows[rows["change"] == "weak view"].groupby("pretraining")["cosine"].mean()
    assert abs(weak["simsiam+spd"] - weak["simsiam"]) < 0.05
    assert "epochs 30" in results.origin(RESULTS / "similarity")


def test_every_object_of_mini_visa_is_neither_solved_nor_hopeless():
    rows = pd.read_csv(RESULTS / "mini_visa" / "difficulty.csv")
    means = rows.groupby(["object", "weights", "detector"])["auroc"].mean().unstack()
    best = means.max(axis=1).unstack()
    assert ((best > 0.6) & (best < 0.98)).all(axis=None) and (best["imagenet"] > best["random"]).all()


def test_what_the_page_on_conventions_says():
    """Every number of the page is in its file; what it says without numbers holds."""
    rows = pd.read_csv(RESULTS / "metric_conventions" / "conventions.csv", dtype={"convention": str})
    known = {f"{value:.{digits}f}" for value in rows["value"] for digits in (3, 4)}
    assert [n for n in re.findall(r"\d\.\d{3,}", text_of("metric_conventions")) if n not in known] == []
    table = rows.set_index(["topic", "convention", "figure", "detector"])["value"].sort_index()
    for detector in ("PaDiM, ImageNet", "PatchCore, ImageNet"):
        assert table["AU-PR", "constant scores, pixels: trapezoid, 202 thresholds", "au_pr", detector] == 0
        assert table["AU-ROC", "constant scores, pixels: 202 thresholds", "auroc", detector] == 0
        size = {metric: np.ptp(table["size", :, metric, detector]) for metric in ("auroc", "ap", "au_pro")}
        assert size["auroc"] < 1e-3 and size["ap"] < 1e-3 and size["au_pro"] > 0.03
        f1 = table["F1, threshold chosen", :, "f1", detector]
        assert all(
            f1[f"{level}: on other images"] < f1[f"{level}: on the same images"] for level in ("images", "pixels")
        )


def test_numbers_of_the_data_are_those_of_the_code_and_of_the_split_files():
    counts = pd.read_csv(RESULTS / "data" / "counts.csv", index_col="measure")["value"]
    for text in (text_of("data"), (REPO / "README.md").read_text(encoding="utf-8")):
        assert f"{counts['images']:,}" in text
    assert f"{counts['normal']:,} normal and {counts['anomaly']:,} anomalous" in text_of("data")
    assert sum(o.normal + o.anomaly for o in package.OBJECTS.values()) == counts["images"]
    sizes = pd.read_csv(BOOK / "reference" / "split_sizes.csv", index_col="split file")
    for setup in ("1cls", "2cls_highshot", "2cls_fewshot"):
        parts = [f"{setup} {split} {label}" for split in ("train", "test") for label in ("normal", "anomaly")]
        assert sizes.loc[f"{setup}.csv"].tolist() == [counts.get(part, 0) for part in parts]


# The ledger of claims: computed from result files, complete, and never more sure than its numbers

PUBLISHED = ledger.read(BOOK, "published")
CLAIMS = ledger.load_claims(BOOK)
LONGS = {run: results.long_table(BOOK / "results" / run) for run in CLAIMS["run"].unique() if run in COMMANDS}
HEADER = "part,claim,paper,published,source,checked,status,run,measure,label,with,without,wants,command,note"
KEY = "2-class high-shot; segmentation, U-Net; SimSiam; AU-PR"
UNET = f'SPD,U-Net,,"{KEY}",abstract,read,needs ImageNet,mine,2cls_highshot unet pixel au_pr,points,b,a,+,,'


def made(book, *claims):
    """The ledger of a book with these claims; `book` may hold results."""
    (book / "reference").mkdir(exist_ok=True)
    for name in ("published", "statuses"):
        shutil.copy(BOOK / "reference" / f"{name}.csv", book / "reference")
    (book / "reference" / "runs.csv").write_text("run,command\nmine,visa run --name mine\n", encoding="utf-8")
    (book / "reference" / "claims.csv").write_text("\n".join([HEADER, *claims]) + "\n", encoding="utf-8")
    return ledger.section(book, ledger.load_claims(book)).replace("\N{NO-BREAK SPACE}", " ")


def save_metrics(folder, values):
    of = ("VisA", "fryum", "2cls_highshot", 0)
    pairs = [(name, seed, value) for name, pair in values.items() for seed, value in enumerate(pair)]
    rows = [(*of, name, seed, "unet", "", "pixel", "au_pr", value) for name, seed, value in pairs]
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=list(tables.COLUMNS)).to_csv(folder / "metrics.csv", index=False)
    record = {"machines": [{"commit": "0123456789abcdef0123456789abcdef01234567"}]}
    (folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_claim_without_a_run_has_an_empty_cell_and_the_command(tmp_path):
    text = made(tmp_path, UNET)
    assert "| 1 | U-Net | 53.8 → 59.7, +5.9 |  |  | needs ImageNet |" in text
    assert "| 1 | abstract; read | `visa run --name mine` |  |  |" in text


@pytest.mark.parametrize(
    ("values", "wants", "cell", "holds"),
    [
        ((0.51, 0.53, 0.52), "+", "+2.0 [−0.5, +4.5]", "open"),
        ((0.52, 0.52, 0.521), "+", "+2.0 [+1.9, +2.2]", "yes"),
        ((0.48, 0.48, 0.481), "+", "−2.0 [−2.1, −1.8]", "no"),
        ((0.48, 0.48, 0.481), "-", "−2.0 [−2.1, −1.8]", "yes"),
    ],
)
def test_the_number_its_interval_and_its_run_come_from_the_files(tmp_path, values, wants, cell, holds):
    save_metrics(tmp_path / "results" / "mine", {"a": (0.5, 0.5, 0.5), "b": values})
    text = made(tmp_path, UNET.replace(",+,,", f",{wants},,"))
    assert f"| {cell} points | {holds} |" in text
    assert "| `mine`, commit `0123456`, 3 seeds |" in text


def test_a_count_is_compared_with_the_papers(tmp_path):
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    rows = "VisA,0,images,10821\nVisA,0,normal,9621\n"
    (folder / "counts.csv").write_text(f"variant,seed,measure,value\n{rows}", encoding="utf-8")
    known = "README,all,needs all of VisA,mine,images / normal,images,VisA"
    claim = f'data,images,"10,821 / {{0}}",,{known},,"10,821 / {{0}}",,'
    text = made(tmp_path, claim.format("9,621"), claim.format("9,622"))
    assert "| 10,821 / 9,621 | 10,821 / 9,621 images | yes |" in text
    assert "| 10,821 / 9,622 | 10,821 / 9,621 images | no |" in text


@pytest.mark.parametrize(("right", "wrong"), [("needs ImageNet", "almost reproduced"), ("U-Net;", "V-Net;")])
def test_a_wrong_status_or_published_value_is_named(tmp_path, right, wrong):
    with pytest.raises(VisaError, match=wrong):
        made(tmp_path, UNET.replace(right, wrong))


def test_the_ledger_is_complete_and_every_claim_can_be_measured():
    keys = sorted("; ".join(row[:4]) for row in PUBLISHED.itertuples(index=False, name=None))
    assert sorted(filter(None, CLAIMS["published"])) == keys, "each published value once"
    assert (CLAIMS[["claim", "source", "checked", "status"]] != "").all(axis=None)
    assert {run for run in CLAIMS["run"] if not (REPO / run).is_file()} <= {"", *COMMANDS}
    assert ((CLAIMS["run"] != "") | (CLAIMS["command"] != "")).all()
    page = re.findall(r"\{ledger\} (.+)", (BOOK / "ledger.md").read_text(encoding="utf-8"))
    assert page == ["statuses", *CLAIMS["part"].unique()], "each part once"


def test_no_status_says_more_than_the_numbers():
    for _, claim in CLAIMS.iterrows():
        ours = ledger.measured(claim, LONGS.get(claim["run"], pd.DataFrame(columns=results.LONG)))
        stored = (BOOK / "results" / claim["run"]).is_dir() and claim["run"]
        assert ours.cell or not stored, claim["claim"]
        assert "needs" in claim["status"] or ours.holds == "yes", claim["claim"]
    assert all(results.commits(BOOK / "results" / run) for run in LONGS if (BOOK / "results" / run).is_dir())


def test_the_commands_name_what_there_is():
    for command in {*CLAIMS["command"], *COMMANDS.values()} - {""}:
        verb = re.sub(r"^(VISA_TEST_\w+=\S+ )+", "", command)
        script = re.match(r"python (benchmarks/\w+\.py)", verb)
        assert (REPO / script[1]).is_file() if script else re.match(r"visa (run|verify|pretrain)\b|make test$", verb)
