"""The whole way through papermill on mini-VisA and on folders of one's own: run, and skipped when up to date."""

import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from visa.data.source import open_source
from visa.provenance import read_sidecar, write_sidecar

pytestmark = pytest.mark.slow

ARGUMENTS = ["--objects", "fryum", "--pretrainings", "random,simsiam+spd"]
ARGUMENTS += ["--pretrain", "epochs=1", "--pretrain", "batch_size=8", "--pretrain", "image_size=32"]
ARGUMENTS += ["--pretrain", "arch=resnet18_half"]


def visa(folder, mini_root, *arguments, **options):
    environment = {**os.environ, "VISA_ROOT": str(mini_root), "VISA_RUNS": str(folder), "VISA_DATA": f"{folder}/data"}
    command = [sys.executable, "-c", "import visa_spd; visa_spd.main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, **options)


def papermill(notebook, out, **parameters):
    given = [text for name, value in parameters.items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", str(notebook), str(out), *given]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="session")
def mini_runs(mini_root, tmp_path_factory):
    """A finished `visa run` on mini-VisA: the folder of runs."""
    folder = tmp_path_factory.mktemp("runs")
    done = visa(folder, mini_root, "run", *ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class TestFinishedRun:
    def test_every_stage_left_its_files(self, mini_runs):
        run = mini_runs / "mini-visa"
        for pretraining in ("random", "simsiam+spd"):
            weights = run / "pretrain" / pretraining / "fryum/seed0/backbone.safetensors"
            assert weights.is_file() and read_sidecar(weights)["dataset"] == "mini-VisA"
            scores = run / "scores/fryum" / pretraining / "fryum/seed0"
            for detector in ("padim", "patchcore"):
                assert (scores / "1cls" / detector / "draw0/scores.npz").is_file()
            assert {p.name for p in scores.glob("*/probe/draw*")} == {f"draw{i}" for i in range(5)}
        assert len(list((run / "browser/scored").iterdir())) == 2 * 4, "the browser has every detector of both"
        names = {p.name for p in (run / "results").iterdir()}
        assert names >= {"metrics.csv", "summary.csv", "summary.tex", "provenance.json"}

    def test_metrics_cover_detectors_and_levels(self, mini_runs):
        table = pd.read_csv(mini_runs / "mini-visa/results/metrics.csv")
        assert set(table["detector"]) == {"padim", "patchcore", "probe"}
        assert set(table["setup"]) == {"1cls", "2cls_highshot", "2cls_5shot"}, "6 anomalies are too few for 10 shots"
        assert set(table["pretraining"]) == {"random", "simsiam+spd"} and set(table["dataset"]) == {"mini-VisA"}
        assert set(table.loc[table["level"] == "pixel", "metric"]) == {"auroc", "au_pr", "ap", "f1_max", "au_pro"}

    def test_the_book_gets_labelled_copies_with_a_banner(self, mini_runs):
        pages = {p.stem: nbformat.read(p, 4) for p in (mini_runs / "book").glob("*.ipynb")}
        assert set(pages) == {"01_data", "02_prepare", "03_pretrain", "04_score", "05_results"}
        for page in pages.values():
            assert page.metadata["visa"].items() >= {"dataset": "mini-VisA", "synthetic": True}.items()
            assert "commit" in page.metadata["visa"]
            assert "Synthetic data" in nbformat.writes(page)
        injected = [c.source for c in pages["03_pretrain"].cells if "injected-parameters" in c.metadata.get("tags", [])]
        assert 'method = "simsiam"' in injected[0] and "spd = True" in injected[0]

    def test_a_second_run_does_nothing_and_a_replaced_file_is_made_anew(self, mini_runs, mini_root):
        weights = mini_runs / "mini-visa/pretrain/random/fryum/seed0/backbone.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-4] + b"\0\0\0\1")
        for ran in (1, 0):
            again = visa(mini_runs, mini_root, "run", *ARGUMENTS)
            assert f"{ran} of 7 stages ran" in again.stdout, again.stdout + again.stderr
            assert weights.read_bytes() == content


def test_a_wrong_parameter_ends_papermill_with_a_sentence(mini_root, tmp_path, monkeypatch):
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    notebook = Path(__file__).parent.parent / "notebooks/01_data.ipynb"
    done = papermill(notebook, tmp_path / "out.ipynb", workers=0)
    assert done.returncode == 1 and "workers is 0: give a whole number from 1 to 256" in done.stderr
    ran = [c for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code" and c.execution_count]
    assert len(ran) <= 3, "it fails before anything is computed"


def test_weights_that_saw_a_test_image_are_refused_and_unknown_ones_are_not_called_clean(
    mini_runs, mini_root, tmp_path, monkeypatch
):
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    book = nbformat.read(Path(__file__).parent.parent / "notebooks/04_score.ipynb", 4)
    book.cells = book.cells[:3]  # up to the cell that checks the parameters
    nbformat.write(book, tmp_path / "checks.ipynb")
    weights = mini_runs / "mini-visa/pretrain/simsiam+spd/fryum/seed0/backbone.safetensors"
    tested = next(s.image for s in open_source().samples("2cls_fewshot", object="fryum", split="test"))
    clean = read_sidecar(weights)["clean_images"]
    said = {
        f"pre-training saw {len(clean)} images of the data set, none of the": clean,
        f"saw {tested} in pre-training, which a setup tests": [*clean, tested],
        "these weights list no images of the data set": [],
    }
    for sentence, seen in said.items():
        shutil.copy(weights, tmp_path / "w.safetensors")
        write_sidecar(tmp_path / "w.safetensors", "", {}, clean_images=seen)
        done = papermill(
            tmp_path / "checks.ipynb", tmp_path / "out.ipynb", object="fryum", weights=tmp_path / "w.safetensors"
        )
        outputs = [o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in cell.get("outputs", ())]
        printed = "".join(output.get("text", "") for output in outputs)
        assert done.returncode == (tested in seen) and sentence in done.stderr + printed


def own_parts(root):
    """Plain folders of two objects: `bolt` with masks for half of its anomalies, `washer` with none."""
    rng = np.random.default_rng(0)
    for folder in ("bolt/good", "bolt/bad", "bolt/masks", "washer/good", "washer/bad"):
        (root / folder).mkdir(parents=True)
    for name, i in product(("bolt", "washer"), range(28)):
        pixels, mask = rng.integers(100, 130, (64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
        if i < 12:
            mask[8 + i : 24 + i, 20:50] = 255
            pixels[mask > 0] = 250
        Image.fromarray(pixels).save(root / name / ("bad" if i < 12 else "good") / f"{i:03}.png")
        if name == "bolt" and i < 6:
            Image.fromarray(mask).save(root / name / "masks" / f"{i:03}.png")
    return root


def test_own_folders_go_through_all_notebooks_and_missing_masks_only_cost_pixel_figures(tmp_path):
    parts = own_parts(tmp_path / "my parts")
    arguments = ["run", "--scope", "all", "--pretrainings", "random", "--detectors", "padim", "--setups", "1cls"]
    small = ["--pretrain", "image_size=32", "--pretrain", "arch=resnet18_half"]
    done = visa(tmp_path / "runs", parts, *arguments, *small)
    assert done.returncode == 0 and "6 of 6 stages ran on my parts" in done.stdout, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "runs/my parts/results/metrics.csv")
    assert set(table["dataset"]) == {"my parts"} and set(table["object"]) == {"bolt", "washer"}
    assert set(table.loc[table["level"] == "pixel", "object"]) == {"bolt"}
    found = table[(table["object"] == "bolt") & (table["detector"] == "padim") & (table["level"] == "image")]
    assert found.loc[found["metric"] == "auroc", "value"].item() > 0.9, "these defects are glaring"
    left = {str(file.relative_to(parts)).split("/")[1] for file in parts.rglob("*") if file.is_file()}
    assert left == {"good", "bad", "masks"}, "nothing is written into the user's folders"
