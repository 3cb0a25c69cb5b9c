"""What the book's extension makes of notebooks and of result files."""

import csv
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[1] / "book" / "_ext"))

import browser_page
import cluster_pages
import companion
import fragments
import measured
import notebook_pages
import speed_pages

from visa.cli import app
from visa.mini.writer import write_mini_visa
from visa.pretrain import METHODS
from visa.report import tables
from visa.report.tables import COLUMNS

BOOK = Path(fragments.__file__).parents[1]
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


def test_after_a_build_that_was_killed_the_next_begins_anew(tmp_path):
    app = SimpleNamespace(outdir=tmp_path / "html", doctreedir=tmp_path / "doctrees")
    page = app.outdir / "page.html"
    companion.begin(app, None)
    page.write_text("<html>")
    companion.finish(app, None)
    companion.begin(app, None)
    assert page.is_file(), "a finished build is kept"
    companion.finish(app, RuntimeError())
    companion.begin(app, None)
    assert not page.is_file() and app.doctreedir.is_dir()


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


def test_the_browser_of_the_shown_run_is_embedded_and_copied(tmp_path):
    runs, built = tmp_path / "runs", tmp_path / "html"
    assert browser_page.part(runs) == browser_page.NO_RUN
    write(runs, [])
    (runs / "book").mkdir()
    (runs / "03_pretrain.ipynb").rename(runs / "book/04_score.ipynb")
    assert browser_page.part(runs) == browser_page.NO_RUN
    notebook = {"metadata": {"papermill": {"parameters": {"run": "mine"}}}}
    (runs / "book/04_score.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    assert browser_page.part(runs) == browser_page.NO_RUN
    for name in ("index.html", "scored/a/0.js"):
        file = runs / "mine/browser" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name, encoding="utf-8")
    assert 'src="_static/browser/index.html" title="Defect browser of the run mine"' in browser_page.part(runs)
    browser_page.copy(runs, built)
    copied = built / "_static/browser"
    assert (copied / "scored/a/0.js").read_text(encoding="utf-8") == "scored/a/0.js"
    time = (copied / "index.html").stat().st_ctime_ns
    (runs / "mine/browser/scored/a/0.js").unlink()
    browser_page.copy(runs, built)
    assert not (copied / "scored/a/0.js").exists() and (copied / "index.html").stat().st_ctime_ns == time
    (runs / "mine/browser/index.html").unlink()
    browser_page.copy(runs, built)
    assert not (copied / "index.html").exists()


def save(folder, **tables):
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)


def figures_of(values, detectors=(("1cls", "padim"),)):
    """Rows of metrics.csv, one value a seed."""
    return [
        ("VisA", "fryum", setup, 0, name, seed, detector, "", "image", metric, value)
        for name, pair in values.items()
        for setup, detector in detectors
        for metric in ("auroc", "au_pr", "f1_max")
        for seed, value in enumerate(pair)
    ]


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_results_without_files_say_how_to_make_them(tmp_path):
    command = fragments.RESULTS["methods_fryum"]
    made = measured.results("methods_fryum", command, tmp_path)
    assert list(made) == ["results_methods_fryum.md"] and command in made["results_methods_fryum.md"]
    made = measured.ablation("reference", fragments.ABLATION, tmp_path)
    assert list(made) == ["results_ablation.md"] and "--ablation" in made["results_ablation.md"]


@pytest.mark.parametrize("command", [*fragments.RESULTS.values(), fragments.ABLATION])
def test_the_commands_of_the_results_pages_are_accepted(command, tmp_path, monkeypatch):
    monkeypatch.setenv("VISA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VISA_DATA", str(tmp_path / "data"))
    root = tmp_path / "VisA"
    write_mini_visa(root, ["fryum"], normal=12, anomaly=4, size=64, seed=0, workers=1, progress=False)
    monkeypatch.setenv("VISA_ROOT", str(root))
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (tmp_path / "lite0.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    words = command.replace("PHOTOGRAPHS", str(photographs)).split()
    result = CliRunner().invoke(app, [*words[1:], "--dry-run"])
    assert result.exit_code == 0, result.output
    assert ("ablation" in result.output) is ("--ablation" in command)
    assert ("supervised+spd" in result.output) is ("supervised" in command)


def test_results_are_made_from_the_files(tmp_path):
    values = {"random": (0.5, 0.6), "simsiam": (0.7, 0.7), "simsiam+spd": (0.8, 0.9)}
    curves = [("simsiam", 0, step, -step / 10) for step in range(5)]
    stages = [("01_data", "", "", 3.0), ("03_pretrain", "simsiam", 0, 10.0), ("03_pretrain", "simsiam", 1, 20.0)]
    save(
        tmp_path,
        metrics=[COLUMNS, *figures_of(values)],
        curves=[("pretraining", "seed", "step", "loss"), *curves],
        stages=[("notebook", "pretraining", "seed", "seconds"), *stages],
    )
    (tmp_path / "provenance.json").write_text('{"machine": {"cores": 2}, "seeds": [0, 1]}', encoding="utf-8")
    made = measured.results("fryum", "visa run", tmp_path)
    text = plain(made["results_fryum.md"])
    assert "| padim | simsiam+spd | 2 | 0.850 ± 0.071 | 0.850 ± 0.071 | 0.850 ± 0.071 |" in text
    assert "| padim | simsiam+spd − simsiam | 2 | +0.150 [−0.485, +0.785] |" in text
    assert "| 01_data |  | 3.0 | 1 |" in text
    assert "| 03_pretrain | simsiam | 15.0 | 2 |" in text
    assert '{"machine": {"cores": 2}, "seeds": [0, 1]}' in text
    assert "at a glance" not in text, "one pair is read off the tables"
    assert set(made) == {"results_fryum.md", "fryum_image_au_pr.svg", "fryum_curves.svg"}
    assert all(f"generated/{file}" in text and "<svg" in svg for file, svg in made.items() if file.endswith("svg"))


def test_many_methods_have_an_overview_and_short_tables(tmp_path):
    names = ["random", "simsiam", "simsiam+spd", "mocov2", "mocov2+spd", "simclr"]
    values = {name: (0.5 + k / 10, 0.6 + k / 10) for k, name in enumerate(names)}
    values["mocov2+spd"] = (0.7, 0.9)  # of mocov2: .8, .9
    detectors = [("1cls", "padim"), ("1cls", "patchcore"), ("2cls_10shot", "probe")]
    learned = [
        (n, s, 0.1 * k + 0.1 * s * (k % 2), "" if n == "random" else 0.2) for k, n in enumerate(names) for s in (0, 1)
    ]
    curves = [(name, 0, step, -step / 10) for name in names[1:] for step in range(5)]
    save(
        tmp_path,
        metrics=[COLUMNS, *figures_of(values, detectors)],
        diagnosis=[("pretraining", "seed", "probe_auroc", "triplet"), *learned],
        curves=[("pretraining", "seed", "step", "loss"), *curves],
    )
    made = measured.results("methods_fryum", "visa run", tmp_path)
    text = plain(made["results_methods_fryum.md"])
    assert "| SPD minus base | simsiam | mocov2 |" in text
    assert "| triplet | +0.000 | +0.000 |" in text, "seeds that repeat each other make no interval"
    assert "| probe AU-ROC, blended or clean | +0.050 [−0.585, +0.685] | +0.050 [−0.585, +0.685] |" in text
    assert "| PatchCore image AU-PR | +0.100 | −0.050 [−0.685, +0.585] |" in text
    assert "| 10-shot probe AU-PR |" in text
    assert "| pretraining | seeds | padim AU-ROC | padim AU-PR | patchcore AU-ROC | patchcore AU-PR |" in text
    assert "F1-max" not in text and "all are in `metrics.csv`" in text
    svgs = {f"methods_fryum_image_{setup}_au_pr.svg" for setup in ("1cls", "2cls_10shot")}
    svgs |= {f"methods_fryum_{method}_curves.svg" for method in ("simsiam", "mocov2", "simclr")}
    assert set(made) == {"results_methods_fryum.md", *svgs}
    assert all(f"generated/{file}" in text for file in svgs)


def test_the_ablation_is_compared_with_its_reference(tmp_path):
    rows = [
        (variant, seed, measure, value + seed * (0.1 if variant == "hard edge" else 0))
        for variant, value in (("no SPD", 0.2), ("reference", 0.5), ("hard edge", 0.4))
        for seed in (0, 1)
        for measure in ("triplet", "probe_auroc")
        if (variant, measure) != ("no SPD", "triplet")
    ]
    save(tmp_path, ablation=[("variant", "seed", "measure", "value"), *rows])
    (tmp_path / "provenance.json").write_text('{"eta": 0.5}', encoding="utf-8")
    made = measured.ablation("reference", "visa run", tmp_path)
    text = plain(made["results_ablation.md"])
    assert "**On z**\n\n| variant | triplet |\n| --- | --- |\n| reference | 0.500 ± 0.000 |" in text
    assert "**On the backbone**\n\n| variant | probe_auroc |\n| --- | --- |\n| no SPD | 0.200 ± 0.000 |" in text
    assert "| hard edge | −0.050 [−0.685, +0.585] |" in text
    assert '{"eta": 0.5}' in text
    assert set(made) == {"results_ablation.md", "ablation_z.svg", "ablation_backbone.svg"}
    assert all(f"generated/{file}" in text and "<svg" in svg for file, svg in made.items() if file.endswith("svg"))


def test_what_the_results_page_says_of_fryum_is_in_its_files():
    folder = BOOK / "results" / "fryum"
    metrics = tables.load_metrics([folder / "metrics.csv"])
    spd = tables.paired_difference(metrics, "simsiam+spd", "simsiam")
    assert (spd["low"] < 0).all() and (spd["high"] > 0).all() and (spd["n"] == 3).all()
    trained = tables.paired_difference(metrics, "simsiam", "random").set_index(["setup", "detector", "level", "metric"])
    for detector in ("padim", "patchcore"):
        assert trained.loc[("1cls", detector, "pixel", "ap"), "low"] > 0
    assert (trained.loc[["2cls_5shot", "2cls_10shot"], "mean"] < 0).all()
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


@pytest.mark.parametrize("page", sorted(BOOK.glob("results_*.md")), ids=lambda p: p.stem)
def test_the_commit_that_a_results_page_names_made_its_files(page):
    named = re.findall(r"commit `([0-9a-f]{7,40})`", page.read_text(encoding="utf-8"))
    files = BOOK.glob(f"results/{page.stem.removeprefix('results_')}*/provenance.json")
    made = {f: f.read_text(encoding="utf-8") for f in files}
    assert [(f.parent.name, c) for f, text in made.items() for c in named if f'"commit": "{c}' not in text] == []


def test_what_the_methods_page_says_of_z_is_in_its_files():
    folder = BOOK / "results" / "methods_fryum"
    if not (folder / "diagnosis.csv").is_file():
        pytest.skip("the methods' results are not stored")
    text = (BOOK / "results_methods.md").read_text(encoding="utf-8")
    table = pd.read_csv(folder / "diagnosis.csv").set_index(["pretraining", "seed"])
    for measure in ("triplet", "cos_blend"):
        for seed in (0, 1, 2):
            without, spd = (table.loc[(name, seed), measure] for name in ("simsiam", "simsiam+spd"))
            assert f"{without:.3f} to {spd:.3f}" in text, (measure, seed)
    assert table["triplet"].max() == pytest.approx(0.17, abs=1e-6)
    long = table[["triplet", "cos_blend"]].stack().rename("value").rename_axis(["variant", "seed", "measure"])
    left_out = {}
    for method in METHODS:
        moved = tables.differences_to(long.reset_index(), method).set_index(["variant", "measure"])
        moved = moved.loc[f"{method}+spd"]
        left_out |= {(method, m): row["mean"] for m, row in moved.iterrows() if not row["low"] <= 0 <= row["high"]}
    assert list(left_out) == [("mocov2", "triplet")] and f"{left_out['mocov2', 'triplet']:.3f}" == "-0.012"


def test_what_the_methods_page_says_of_detection_is_in_its_files():
    files = [BOOK / "results" / f"methods_{name}" / "metrics.csv" for name in ("fryum", "photographs")]
    if not all(file.is_file() for file in files):
        pytest.skip("the methods' results are not stored")
    text = (BOOK / "results_methods.md").read_text(encoding="utf-8")
    pairs = [
        tables.paired_difference(tables.load_metrics([file]), f"{method}+spd", method).assign(method=method, file=i)
        for i, file in enumerate(files)
        for method in METHODS
    ]
    every = pd.concat(pairs)
    found = every[(every["low"] > 0) | (every["high"] < 0)]
    losses = int((found["mean"] < 0).sum())
    assert f"Of the {len(every)} differences" in text and f"{len(found)} have an interval without 0" in text
    assert f"{losses} of them are losses and {len(found) - losses} are gains" in text
    assert round(0.05 * len(every)) == 10 and "simsiam" not in set(found["method"])
    figure = ["method", "setup", "detector", "level", "metric"]
    assert found.groupby(figure)["file"].nunique().max() == 1, "no method and figure on both data sets"


def test_what_the_ablation_page_says_is_in_its_file():
    file = BOOK / "results" / "ablation" / "ablation.csv"
    if not file.is_file():
        pytest.skip("the ablation's results are not stored")
    text = (BOOK / "results_ablation.md").read_text(encoding="utf-8")
    results = pd.read_csv(file)
    mean = results.groupby(["variant", "measure"])["value"].mean()
    told = [("no SPD", "cos_blend"), ("reference", "cos_blend"), ("large patches", "feature_std")]
    told += [(v, m) for v in ("reference", "large patches") for m in ("triplet", "probe_auroc")]
    told += [("cross-entropy", "probe_auroc")]
    assert [pair for pair in told if f"{mean[pair]:.3f}" not in text] == []
    to_none = tables.differences_to(results, "no SPD").set_index(["variant", "measure"])
    low, high = to_none["low"]["reference"], to_none["high"]["reference"]
    assert high["cos_blend"] < 0 and high["cos_weak"] < 0
    assert all(low[m] < 0 < high[m] for m in ("triplet", "probe_auroc", "probe_accuracy"))
    to_reference = tables.differences_to(results, "reference").set_index(["variant", "measure"])
    assert f"{to_reference['mean']['cross-entropy', 'probe_auroc']:.3f} above" in text
    same = to_reference.loc[(["hard edge", "faint colour", "eta 0.1", "eta 1.0"], ["probe_auroc", "probe_accuracy"]), :]
    assert ((same["low"] < 0) & (same["high"] > 0)).all()


def test_the_page_on_clusters_is_made_from_its_files_or_says_how_to_make_them(tmp_path):
    made = cluster_pages.parts(tmp_path)
    assert set(made) == {"cluster_kills.md", "scheduling.md"}
    assert "python tests/faults/cluster.py --out" in made["cluster_kills.md"]
    about = {"cores": 2, "cpu": "a CPU", "commit": "0123456789"}
    kills = {"stages": 9, "workers": 2, "seconds_between_kills": [6, 16], "kills": {"workers": 5, "notebooks": 3}}
    kills |= {"files_compared": 70, "files_different": ["a.csv"], "ran_again_afterwards": 0, "machine": about}
    times = {"plan_cpu_s": 0.1, "walk_cpu_s": 0.5, "peak_bytes": 2**27}
    alone = [{"stages": n, "workers": 0, "check_cpu_s": n / 1e4, **times} for n in (100, 1000)]
    dask = [{"stages": n, "workers": 2, "workers_cpu_s": 2, "worker_bytes": 2**28, **times} for n in (100, 1000)]
    for name, record in (("kills", kills), ("scheduling", {"rows": alone + dask, "machine": about})):
        (tmp_path / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    made = cluster_pages.parts(tmp_path)
    assert "| workers killed | 5 |" in plain(made["cluster_kills.md"])
    assert "| of these, different | 1 |" in plain(made["cluster_kills.md"])
    assert "| 1,000 | 2 | 0.1 |  | 0.5 | 2 | 128 | 256 |" in plain(made["scheduling.md"])
    assert "<svg" in made["scheduling.svg"] and "generated/scheduling.svg" in made["scheduling.md"]
    grown = [row | {"peak_bytes": row["stages"] * 2**20, "walk_cpu_s": row["stages"] * 0.0036} for row in dask]
    (tmp_path / "scheduling.json").write_text(json.dumps({"rows": alone + grown, "machine": about}), encoding="utf-8")
    text = cluster_pages.parts(tmp_path)["scheduling.md"]
    assert "each takes 1024 KiB" in text and "3.6 ms" in text and "would take 98 GiB and 0.1 hours" in text


def test_what_the_setups_page_says_is_in_its_files():
    folder = BOOK / "results" / "setups_fryum"
    text = (BOOK / "results_setups.md").read_text(encoding="utf-8")
    learned = pd.read_csv(folder / "diagnosis.csv").set_index(["pretraining", "seed"])
    for seed in (0, 1, 2):
        without, spd = (learned.loc[(name, seed)] for name in ("simsiam", "simsiam+spd"))
        assert f"{without['triplet']:.3f} to {spd['triplet']:.3f}" in text
        assert spd["feature_std"] < 0.08 and 0.4 < without["feature_std"] < 0.6
    curves = pd.read_csv(folder / "curves.csv")
    assert curves.loc[curves["pretraining"] == "simsiam+spd", "feature_std"].min() > 0.75
    probe = learned.groupby("pretraining")["probe_auroc"].mean()
    assert f"AU-ROC of {probe['simsiam+spd']:.3f}" in text and f"allows {probe['simsiam']:.3f}" in text
    metrics = tables.load_metrics([folder / "metrics.csv"])
    spd = tables.paired_difference(metrics, "simsiam+spd", "simsiam")
    found = spd[(spd["low"] > 0) | (spd["high"] < 0)]
    assert len(spd) == 69 and len(found) == 4 and (found["mean"] > 0).all() and (spd["n"] == 3).all()
    assert {tuple(row) for row in found[["setup", "detector"]].to_numpy()} == {("2cls_highshot", "probe")}
    assert f"rises by {found.set_index('metric').loc['au_pr', 'mean']:.3f}" in text
    means = tables.summary_table(metrics[metrics["level"] == "image"])
    means = means[means["setup"].isin(["1cls", "2cls_highshot"])]
    best = means.pivot_table(index=["setup", "detector", "metric"], columns="pretraining", values="mean").idxmax(axis=1)
    assert set(best) == {"imagenet"}
    fine_tuned = tables.paired_difference(metrics, "simsiam", "random").set_index(
        ["setup", "detector", "level", "metric"]
    )
    worse = fine_tuned.loc[("2cls_highshot", "unet", "pixel", "au_pr")]
    assert worse["high"] < 0 and f"by {-worse['mean']:.3f}" in text
    seeds = metrics.groupby("pretraining")["seed"].nunique()
    assert seeds.to_dict() == {"imagenet": 3, "random": 3, "simsiam": 3, "simsiam+spd": 3}


SPEEDS = BOOK / "results" / "benchmarks"


@pytest.mark.parametrize(
    "part", [p for p, (name, *_) in speed_pages.TABLES.items() if (SPEEDS / f"{name}.json").exists()]
)
def test_every_column_of_a_speed_table_is_in_its_file(part):
    name, rows, columns = speed_pages.TABLES[part]
    record = json.loads((SPEEDS / f"{name}.json").read_text(encoding="utf-8"))
    found = record[rows] if isinstance(record[rows], list) else [record[rows]]
    assert found and set(columns) <= set().union(*found)
    table = speed_pages.speeds(SPEEDS)[f"speed_{part}.md"]
    assert table.count("\n|") == len(found) + 1 and record["machine"]["commit"][:7] in table


def test_what_the_method_page_says_of_features_is_in_its_file():
    folder = BOOK / "results" / "similarity"
    if not (folder / "similarity.csv").is_file():
        pytest.skip("similarities are not stored")
    rows = pd.read_csv(folder / "similarity.csv")
    small = rows[(rows["change"] == "SmoothBlend") & (rows["area"] <= 0.04)]
    by_area = {name: part.groupby("area")["cosine"].agg(["min", "max"]) for name, part in small.groupby("pretraining")}
    assert (by_area["simsiam"]["min"] > by_area["random"]["max"]).all(), "every seed, at every size"
    assert (by_area["simsiam+spd"]["max"] < by_area["random"]["min"]).all()
    assert (by_area["simsiam+spd"]["max"] < by_area["simsiam"]["min"]).all()
    long = fragments.similarity.result_files.long_table(folder)
    moved = tables.differences_to(long[long["measure"] == "SmoothBlend 0.02"], "simsiam").set_index("variant")
    assert moved.loc["simsiam+spd", "n"] == 3 and moved.loc["simsiam+spd", "high"] > 0, "the interval contains 0"
    weak = rows[rows["change"] == "weak view"].groupby("pretraining")["cosine"].mean()
    assert abs(weak["simsiam+spd"] - weak["simsiam"]) < 0.05
    settings = [
        run["settings"] for run in json.loads((folder / "provenance.json").read_text())["pretrainings"].values()
    ]
    assert {s["epochs"] for s in settings} == {30} and {s["spd"]["eta"] for s in settings if s["spd"]} == {0.5}
    made = fragments.similarity.similarity(folder)
    assert "<svg" in made["similarity.svg"] and "| simsiam+spd |" in made["similarity.md"]


def test_every_figure_of_a_notebook_has_a_text_and_a_caption(tmp_path):
    figures = pd.read_csv(BOOK / "reference" / "notebook_figures.csv", keep_default_na=False)
    sources = {f.stem: json.loads(f.read_text()) for f in (BOOK.parent / "notebooks").glob("*.ipynb")}
    code = {(name, c["id"]): "".join(c["source"]) for name, nb in sources.items() for c in nb["cells"]}
    named = set(zip(figures["notebook"], figures["cell"], strict=True))
    assert named <= set(code) and (figures[["alt", "caption"]] != "").all(axis=None)
    drawing = re.compile(r"plt\.subplots|\bplot_\w+\(|show_maps\(|show_cases\(|^ *show\(", re.M)
    assert {where for where, text in code.items() if drawing.search(text)} == named


def test_a_figure_of_a_run_says_what_made_it(tmp_path):
    picture = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}, "metadata": {}}
    cell = {"cell_type": "code", "id": "abc", "metadata": {}, "source": "plot()", "outputs": [picture]}
    write(tmp_path / "notebooks", [*SOURCE, cell | {"outputs": []}])
    run = {"dataset": "VisA", "commit": "0123456789abcdef"}
    papermill = {"duration": 1, "end_time": "2025-01-02", "parameters": {"object": "fryum", "seed": 2}}
    write(tmp_path / "book", [*SOURCE, cell], visa=run, papermill=papermill)
    texts = tmp_path / "figures.csv"
    texts.write_text("notebook,cell,alt,caption\n03_pretrain,abc,Two curves,What it shows.\n", encoding="utf-8")
    made = notebook_pages.pages(tmp_path / "notebooks", tmp_path / "book", texts)["03_pretrain.ipynb"]["cells"][-1]
    shown = made["metadata"]["mystnb"]
    assert shown["image"]["alt"] == "Two curves"
    assert shown["figure"]["caption"] == (
        "What it shows. *Made by notebook `03_pretrain` on VisA (object fryum, seed 2), commit `0123456`.*"
    )


def parameters_of(notebook: str) -> dict[str, str]:
    cells = json.loads((BOOK.parent / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    cell = next(c for c in cells if "parameters" in c["metadata"].get("tags", []))
    return dict(re.findall(r"^(\w+): \w+ = (\S+)", "".join(cell["source"]), re.M))


def test_numbers_of_the_data_are_those_of_the_code_and_of_the_split_files():
    counts = pd.read_csv(BOOK / "results" / "data" / "counts.csv", index_col="measure")["value"]
    for page in (BOOK / "data.md", BOOK.parent / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert f"{counts['images']:,}" in text
    text = (BOOK / "data.md").read_text(encoding="utf-8")
    assert f"{counts['normal']:,} normal and {counts['anomaly']:,} anomalous" in text
    assert sum(o.normal + o.anomaly for o in fragments.OBJECTS.values()) == counts["images"]
    sizes = pd.read_csv(BOOK / "reference" / "split_sizes.csv", index_col="split file")
    for setup in ("1cls", "2cls_highshot", "2cls_fewshot"):
        parts = [f"{setup} {split} {label}" for split in ("train", "test") for label in ("normal", "anomaly")]
        assert sizes.loc[f"{setup}.csv"].tolist() == [counts.get(part, 0) for part in parts]


def test_what_is_said_of_the_abstract_is_the_published_difference():
    rows = pd.read_csv(BOOK / "reference" / "published.csv")
    read = rows[rows["read in the paper"] != "no"]
    gains = (read["with SPD"] - read["without SPD"]).map("{:.1f}".format).tolist()
    for page in ("published.md", "paper_map.md"):
        text = (BOOK / page).read_text(encoding="utf-8")
        assert all(gain in text for gain in gains), page


def test_settings_of_the_notebooks_that_the_book_names_are_theirs():
    text = (BOOK / "deviations.md").read_text(encoding="utf-8")
    said = re.search(r"raise `base_lr` to ([\d.]+),.*queue of (\d+) keys and a key momentum of ([\d.]+)", text, re.S)
    pretrain = parameters_of("03_pretrain")
    assert said.groups() == (pretrain["base_lr"], pretrain["queue"], pretrain["key_momentum"])
    assert pretrain["optimizer"] == '"sgd"' and pretrain["warmup_epochs"] == "1.0"
    assert f"$\\eta = {parameters_of('06_ablation')['eta']}$" in text
