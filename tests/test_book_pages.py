"""What the book's extension makes of notebooks and files, and what pages and ledger say of the files."""

import csv
import itertools
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("book/_ext", "benchmarks")]

import companion
import comparisons
import findings
import ledger
import package
import pages
import results

from visa.cli import app
from visa.errors import VisaError
from visa.mini.writer import write_mini_visa
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
    assert f"Executed on {dataset} (object fryum, seed 2) in 42 s, 2025-01-02, commit `0123456`." in title["source"]
    assert [c["source"] for c in code] == ["n: int = 1", "n = 2", "n"], "defaults, then those of the run"
    assert code[2]["outputs"] == [PICTURE], "one banner is enough, and progress bars are noise"
    figure = {"image": {"alt": "Two curves"}, "figure": {"caption": "It."}}
    assert code[2]["metadata"]["mystnb"] == figure


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


def test_a_cell_is_the_mean_over_seeds_of_means_over_draws(tmp_path):
    rows = [("padim", "a", 0, 0.5), ("padim", "a", 1, 0.7), ("probe", "a", 0, 0.4), ("probe", "a", 0, 0.6)]
    columns = ["detector", "weights", "seed", "auroc"]
    file = save(tmp_path / "difficulty.csv", columns, [*rows, ("F1, best", "b", 0, 0.12345)])
    layout = {"rows": "weights", "columns": "detector", "value": "auroc", "digits": "4"}
    text = plain(results.table(file, "", layout))
    assert "| weights | PaDiM | probe | F1, best |" in text and "| a | 0.600 ± 0.141 | 0.500 ± 0.141 | – |" in text
    assert results.table(file, "", layout | {"where": "detector=F1, best"}).endswith("| b | 0.1235 |\n")


def test_columns_of_a_json_file_are_shown_as_they_are(tmp_path):
    machine = {"cores": 2, "cpu": "a CPU", "commit": "0123456789"}
    row = {"stage": "a", "kills": {"workers": 1234}, "said": "x\ny", "seconds": 0.01234, "whole": True}
    file = tmp_path / "kills.json"
    file.write_text(
        json.dumps({"rows": [row, {"stage": "b"}], "one": {"files": [1, 2]}, "machine": machine, "load": [5]})
    )
    show = "stage = stage; kills.workers = killed; said = `said`; seconds = s; whole = whole"
    text = results.table(file, "", {"show": show})
    assert "| stage | killed | said | s | whole |" in text
    assert "| a | 1,234 | `x y` | 0.0123 | yes |\n| b |  |  |  |  |" in text
    assert "| 2 |" in results.table(file, "one", {"show": "files = files"}), "a list is its length"
    assert "2 cores of a CPU that other work kept at a load of 5, commit `0123456`" in results.measured_on(file)
    with pytest.raises(VisaError, match=r"kills\.json lacks color"):
        results.table(file, "", {"show": "color = colour"})


def test_every_module_is_in_the_api_and_named_by_the_house():
    named = re.findall(r"\{api\} (.+)", "".join(page.read_text(encoding="utf-8") for page in BOOK.glob("api/*.md")))
    listed = {name for names in named for name in package.modules(names.split())}
    files = [p.relative_to(REPO).with_suffix("") for p in (REPO / "visa").rglob("*.py") if p.stem != "__init__"]
    assert [str(f) for f in files if ".".join(f.parts) not in listed] == []
    house = text_of("architecture")
    assert [f.stem for f in files if "mini" not in f.parts and not re.search(rf"\b{f.stem}\b", house)] == []


def test_what_the_page_on_conventions_says():
    """Every number of the page is in its file; what it says without numbers holds."""
    rows = pd.read_csv(RESULTS / "metric_conventions" / "conventions.csv", dtype={"convention": str})
    known = {f"{value:.{digits}f}" for value in rows["value"] for digits in (3, 4)}
    assert [n for n in re.findall(r"\d\.\d{3,}", text_of("evaluation")) if n not in known] == []
    table = rows.set_index(["topic", "convention", "figure", "detector"])["value"].sort_index()
    for detector in ("PaDiM, ImageNet", "PatchCore, ImageNet"):
        assert table["AU-PR", "constant scores, pixels: trapezoid, 202 thresholds", "au_pr", detector] == 0
        assert table["AU-ROC", "constant scores, pixels: 202 thresholds", "auroc", detector] == 0
        size = {metric: np.ptp(table["size", :, metric, detector]) for metric in ("auroc", "ap", "au_pro")}
        assert size["auroc"] < 1e-3 and size["ap"] < 1e-3 and size["au_pro"] > 0.03
        f1 = table["F1, threshold chosen", :, "f1", detector]
        assert all(f1[f"{of}: on other images"] < f1[f"{of}: on the same images"] for of in ("images", "pixels"))


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


# Results on real VisA: sentences and tables from a folder as benchmarks/protocol.py writes it

AREAS = (0.001, 0.002, 0.01, 0.02, 0.1, 0.3)


def save_protocol(folder, dataset="VisA"):
    """Three seeds, where the SPD classifier gains 10 points or so on 10-shot, and SimSiam with SPD loses 2 or so."""
    folder.mkdir(parents=True)
    metrics, defects, arms = [], [], []
    level = {"given": 0.5, "SimSiam": 0.5, "SimSiam + SPD": 0.48, "SPD classifier": 0.6}
    for arm, seed in [("given", 0), *itertools.product(list(level)[1:], range(3))]:
        value = level[arm] + 0.001 * seed * (arm in ("SPD classifier", "SimSiam"))
        lost = (0.11 + 0.1 * seed) * (arm == "SPD classifier")
        metrics.append((dataset, "fryum", "2cls_10shot", 0, arm, seed, "probe", "", "image", "au_pr", value))
        metrics.append((dataset, "fryum", "1cls", 0, arm, seed, "padim", "", "pixel", "au_pr", value - lost))
        defects += [("fryum", arm, seed, "patchcore", f"{i}.JPG", a, 0.5 + 0.08 * i) for i, a in enumerate(AREAS)]
        arms.append((dataset, "fryum", arm, seed, "" if arm == "given" else float(arm == "SPD classifier"), 100 + seed))
    save(folder / "metrics.csv", COLUMNS, metrics)
    save(folder / "defects.csv", ["object", "pretraining", "seed", "detector", "image", "area", "auroc"], defects)
    save(folder / "arms.csv", ["dataset", "object", "pretraining", "seed", "learned", "seconds"], arms)
    about = {"dataset": dataset, "settings": {"arch": "timm/lite0"}, "commits": ["0123456789"]}
    (folder / "provenance.json").write_text(json.dumps(about), encoding="utf-8")


def shown_findings(book, what):
    (book / "generated").mkdir(parents=True, exist_ok=True)
    env = SimpleNamespace(srcdir=str(book), docname="results")
    return findings.findings(SimpleNamespace(env=env, arguments=[what], file=book.joinpath))


def test_without_results_one_note_says_so_and_rendered_images_are_refused(tmp_path):
    assert "have not been run" in shown_findings(tmp_path, "primary") and not shown_findings(tmp_path, "objects")
    save_protocol(tmp_path / "results" / "protocol" / "lite0", "mini-VisA")
    with pytest.raises(VisaError, match="mini-VisA"):
        shown_findings(tmp_path, "primary")


def test_the_results_page_says_what_the_files_hold(tmp_path):
    save_protocol(tmp_path / "results" / "protocol" / "lite0")
    told = shown_findings(tmp_path, "primary").splitlines()
    assert re.match(r"\| fryum \| lite0 \| SPD classifier − given \| supported \| \+10\.1 \[.*\| 3 of 3 \|", told[2])
    assert re.match(r".* \| SimSiam \+ SPD − SimSiam \| refuted \| −2\..*\| 0 of 3; says nothing of SPD \|", told[3])
    assert "0.4 points (SPD classifier − given, fryum, lite0)" in shown_findings(tmp_path, "power")  # 7.27 sd / √3
    text = shown_findings(tmp_path, "objects")
    assert "| difference | learned | probe, 10-shot | PaDiM, pixel |" in text
    assert comparisons.control_of("SimSiam + SPD, clip=0") == "SimSiam, clip=0", "the control has the same change"
    assert "| 0 of 3; says nothing of SimSiam |" in text and "| 0 of 3; says nothing of SPD |" in text
    line = r"\| SPD classifier − given \| 3 of 3 \| \*\*\+10\.1 \[[^]]+\]\*\* \| −\d+\.\d \[−[^]]+, \+[^]]+\] \|"
    assert re.search(line, text), "an interval is bold where it does not contain 0"
    assert "small up to 0.2 %, middle up to 2 %, large up to 30 %" in plain(text)
    assert "| arm | seconds | cos z, weak view | cos z, blended | small | middle | large |" in text
    assert "| given | 100 | – | – | 0.540 | 0.700 | 0.860 |" in text
    assert "| SimSiam + SPD | 101 | – | – | 0.540 ± 0.000 |" in plain(text) and "commits `0123456`" in text
    assert (tmp_path / "generated" / "results-lite0-fryum.svg").stat().st_size > 5000
    table = shown_findings(tmp_path, "table")
    assert "| object | backbone | weights | probe, 10-shot | PaDiM, pixel |" in table
    assert "| fryum | lite0 | SPD classifier | **60.1** | 39.1 |" in table, "primary: judged in its own table"
    assert "| fryum | lite0 | SimSiam + SPD † | 48.0 | ▼ 48.0 |" in table
    means = pd.read_csv(tmp_path / "generated" / "results.csv").set_index(["pretraining", "outcome"])
    assert means["mean"]["SPD classifier", "probe, 10-shot"] == pytest.approx(0.601)
    assert "the largest loss is −" in (front := shown_findings(tmp_path, "front")) and "fryum, lite0" in front
    assert (tmp_path / "generated" / "defects.svg").stat().st_size > 5000


def test_an_interval_over_seeds_and_draws_has_the_variance_of_both():
    rng, columns = np.random.default_rng(0), ["pretraining", "seed", "draw", "value"]
    control, gain = rng.normal(size=(2, 4, 3)) / 10
    gain += [0, 0.3, 0.6]  # draws that differ
    values = {"SimSiam": control, "SimSiam + SPD": control + gain}
    rows = [(arm, s, d, values[arm][s, d]) for arm in values for s, d in itertools.product(range(4), range(3))]
    table = pd.DataFrame([*rows, *(("given", 0, d, 0.4) for d in range(3))], columns=columns)
    table = table.assign(object="o", setup="2cls_10shot", detector="probe", level="image", metric="au_pr", defect="")
    found = comparisons.differences(table)
    low, high = comparisons.crossed_interval(table, found[found["arm"] == "SimSiam + SPD"].iloc[0])
    mean_squares = 3 * gain.mean(axis=1).var(ddof=1), 4 * gain.mean(axis=0).var(ddof=1)  # of seeds, of draws
    residual = gain - gain.mean(axis=0) - gain.mean(axis=1, keepdims=True) + gain.mean()
    variance = (mean_squares[0] + mean_squares[1] - (residual**2).sum() / 6) / 12
    assert high - low == pytest.approx(2 * 4.302653 * variance**0.5, rel=1e-6)  # t with two degrees of freedom
    assert (low + high) / 2 == pytest.approx(gain.mean())


# The ledger of claims: exclusive statuses that add up, each no more sure than what was seen

CLAIMS = ledger.load_claims(BOOK)
HEADER = "part,claim,paper,published,source,sure,status,seen,run,measure,missing,command,note"
KEY = "2-class high-shot; segmentation, U-Net; SimSiam; AU-PR"
UNET = f'SPD,U-Net,,"{KEY}",abstract,read,asked in a smaller setting,[](results.md),protocol,,ImageNet,,'


def made(book, *claims):
    """The ledger of a book with these claims; `book` may hold results."""
    (book / "reference").mkdir(exist_ok=True)
    for name in ("published", "statuses"):
        shutil.copy(BOOK / "reference" / f"{name}.csv", book / "reference")
    (book / "reference" / "runs.csv").write_text("run,command\nprotocol,make it\n", encoding="utf-8")
    (book / "reference" / "claims.csv").write_text("\n".join([HEADER, *claims]) + "\n", encoding="utf-8")
    return ledger.section(book, ledger.load_claims(book))


def test_defects_are_sized_within_their_object():
    areas = {"object": ["bolt", "nut"] * 3, "area": [0.1, 0.4, 0.2, 0.5, 0.3, 0.6]}
    told = comparisons.sized(pd.DataFrame(areas, index=[0] * 6)).sort_values(["object", "area"])
    assert told["size"].tolist() == [*comparisons.SIZES] * 2


def test_a_claim_of_the_protocol_is_tested_once_there_are_results(tmp_path):
    text = made(tmp_path, UNET)
    assert "| 1 | U-Net, AU-PR | 53.8 → 59.7, +5.9 (read) |  | not tested |" in text
    assert "| 1 | abstract; read | ImageNet | `make it` |  |  |" in text
    folder = tmp_path / "results" / "protocol" / "lite0"
    save_protocol(folder)
    assert "not tested" in made(tmp_path, UNET), "one object of two, and not every arm"
    with (folder / "arms.csv").open("a") as stream:
        stream.write("VisA,macaroni1,supervised + SPD,0,1.0,90\n")
    text = made(tmp_path, UNET)
    assert "| [](results.md) | asked in a smaller setting |" in text
    assert "| 1 | abstract; read |  | `make it` | `protocol` |  |" in text


@pytest.mark.parametrize("wrong", [("asked in a smaller setting", "almost reproduced"), ("U-Net;", "V-Net;")])
def test_a_wrong_status_or_published_value_is_named(tmp_path, wrong):
    with pytest.raises(VisaError, match=wrong[1]):
        made(tmp_path, UNET.replace(*wrong))


def test_the_ledger_is_complete_and_says_no_more_than_was_seen():
    keys = sorted("; ".join(row[:4]) for row in ledger.read(BOOK, "published").itertuples(index=False, name=None))
    assert sorted(filter(None, CLAIMS["published"])) == keys, "each published value once"
    assert (CLAIMS[["claim", "source", "sure", "status"]] != "").all(axis=None)
    assert {run for run in CLAIMS["run"] if not (REPO / run).is_file()} <= {"", *COMMANDS}
    assert re.findall(r"\{ledger\} (.+)", text_of("claims")) == ["statuses", *CLAIMS["part"].unique()], "each part once"
    untested = CLAIMS["status"] == "not tested"
    assert (CLAIMS["here"] == "")[untested].all() and (CLAIMS["missing"] != "")[untested].all()
    assert (CLAIMS["seen"] != "")[~untested].all() and (CLAIMS["run"] != "")[~untested].all()
    counts = CLAIMS[(CLAIMS["paper"] != "") & (CLAIMS["measure"] != "")]
    assert len(counts) == 7 and all(c.here == f"{c.paper}, {c.seen}" for c in counts.itertuples())
    images = json.loads((RESULTS / "data" / "provenance.json").read_text())["verified"]
    assert all(name in CLAIMS[CLAIMS["measure"] == "verified / errors"]["seen"].item() for name in images)


def test_the_commands_name_what_there_is(tmp_path, monkeypatch):
    write_mini_visa(tmp_path / "VisA", ["fryum"], normal=60, anomaly=60, size=64, seed=0, workers=1, progress=False)
    monkeypatch.setenv("VISA_ROOT", str(tmp_path / "VisA"))
    monkeypatch.chdir(tmp_path)
    for command in sorted({*CLAIMS["command"], *COMMANDS.values()} - {""}):
        verb = re.sub(r"^(VISA_TEST_\w+=\S+ )+", "", command)
        script = re.match(r"(?:python|papermill) (benchmarks/\w+\.py|notebooks/\w+\.ipynb)", verb)
        assert (REPO / script[1]).is_file() if script else re.match(r"visa (run|verify|pretrain)\b|make test$", verb)
        if verb.startswith("visa run --objects fryum"):
            result = CliRunner().invoke(app, [*verb.split()[1:], "--dry-run"])
            assert result.exit_code == 0, f"{command}: {result.output}"
    for name, command in COMMANDS.items():
        page = SimpleNamespace(arguments=[name], file=BOOK.joinpath, env=SimpleNamespace(srcdir=BOOK))
        printed = results.run(page).split("```")[1].replace("\\\n", "")
        assert shlex.split(printed)[1:] == shlex.split(command), "printed as the shell reads it"
