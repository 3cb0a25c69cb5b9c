"""The whole way through papermill: planned, run, skipped when up to date, and safe to interrupt."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from visa.cli import main
from visa.data.source import open_source
from visa.errors import VisaError
from visa.plan import METHODS, GivenWeights, Matrix, plan
from visa.pretrain import METHODS as TRAINABLE
from visa.provenance import read_sidecar
from visa.runner import check_parameters, make_jobs
from visa.runs import Run

ARGUMENTS = ["--objects", "fryum", "--pretrainings", "random,simsiam+spd"]
ARGUMENTS += ["--pretrain", "epochs=1", "--pretrain", "batch_size=8", "--pretrain", "image_size=32"]


def visa(folder, mini_root, *arguments, **options):
    environment = {**os.environ, "VISA_ROOT": str(mini_root), "VISA_RUNS": str(folder), "VISA_DATA": f"{folder}/data"}
    command = [sys.executable, "-c", "import visa_spd; visa_spd.main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, **options)


@pytest.fixture(scope="session")
def mini_runs(mini_root, tmp_path_factory):
    """A finished `visa run` on mini-VisA: the folder of runs."""
    folder = tmp_path_factory.mktemp("runs")
    done = visa(folder, mini_root, "run", *ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
class TestFinishedRun:
    def test_every_stage_left_its_files(self, mini_runs):
        run = mini_runs / "mini-visa"
        for pretraining in ("random", "simsiam+spd"):
            weights = run / "pretrain" / pretraining / "fryum/seed0/backbone.safetensors"
            assert weights.is_file() and read_sidecar(weights)["dataset"] == "mini-VisA"
            scores = run / "scores/fryum" / pretraining / "fryum/seed0"
            for detector in ("padim", "patchcore"):
                assert (scores / "1cls" / detector / "draw0/scores.npz").is_file()
                assert (scores / "1cls" / detector / "maps/scale.json").is_file()
            assert {p.name for p in scores.glob("*/probe/draw*")} == {f"draw{i}" for i in range(5)}
        assert len(list((run / "browser/scored").iterdir())) == 2 * 4, "the browser has every detector of both"
        names = {p.name for p in (run / "results").iterdir()}
        assert names >= {"metrics.csv", "summary.csv", "summary.tex", "curves.csv", "stages.csv", "provenance.json"}

    def test_metrics_cover_detectors_and_levels(self, mini_runs):
        table = pd.read_csv(mini_runs / "mini-visa/results/metrics.csv")
        assert set(table["detector"]) == {"padim", "patchcore", "probe"}
        assert set(table["setup"]) == {"1cls", "2cls_highshot", "2cls_5shot"}, "6 anomalies are too few for 10 shots"
        assert set(table["pretraining"]) == {"random", "simsiam+spd"} and set(table["dataset"]) == {"mini-VisA"}
        assert set(table.loc[table["level"] == "pixel", "metric"]) == {"auroc", "au_pr", "ap", "f1_max", "au_pro"}

    def test_provenance_says_what_made_it(self, mini_runs):
        facts = json.loads((mini_runs / "mini-visa/results/provenance.json").read_text())
        assert facts["synthetic"] and facts["machines"][0]["libraries"]["torch"]
        assert facts["pretrainings"]["simsiam+spd/fryum/0"]["settings"]["spd"]["eta"] == 0.1

    def test_the_book_gets_labelled_copies_with_a_banner(self, mini_runs):
        pages = {p.stem: nbformat.read(p, 4) for p in (mini_runs / "book").glob("*.ipynb")}
        assert set(pages) == {"00_start", "01_data", "02_prepare", "03_pretrain", "04_score", "05_results"}
        for page in pages.values():
            assert page.metadata["visa"].items() >= {"dataset": "mini-VisA", "synthetic": True}.items()
            assert "commit" in page.metadata["visa"]
            assert "Synthetic data" in nbformat.writes(page)
        injected = [c.source for c in pages["03_pretrain"].cells if "injected-parameters" in c.metadata.get("tags", [])]
        assert 'method = "simsiam"' in injected[0] and "spd = True" in injected[0]

    def test_a_second_run_does_nothing_and_a_new_setting_only_what_it_changes(self, mini_runs, mini_root):
        again = visa(mini_runs, mini_root, "run", *ARGUMENTS)
        assert "0 of 8 stages ran" in again.stdout, again.stdout + again.stderr
        source = open_source(str(mini_root))
        run, keys = Run(mini_runs / "mini-visa"), []
        for score in ({}, {"coreset_ratio": 0.5}):
            stages = plan(source, run, Matrix(["fryum"], ["random"], score=score))
            keys.append({job.stage.name: job.key for job in make_jobs(stages, source, run)})
        changed = {name for name in keys[0] if keys[0][name] != keys[1][name]}
        assert changed == {"score-fryum-random-fryum-seed0", "results", "start"}

    def test_a_file_that_was_replaced_by_hand_is_made_anew(self, mini_runs, mini_root):
        weights = mini_runs / "mini-visa/pretrain/random/fryum/seed0/backbone.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-4] + b"\0\0\0\1")
        again = visa(mini_runs, mini_root, "run", *ARGUMENTS)
        assert "1 of 8 stages ran" in again.stdout, again.stdout + again.stderr
        assert weights.read_bytes() == content

    def test_mini_visa_and_visa_do_not_mix(self, mini_runs, mini_root, tmp_path):
        import shutil

        real = shutil.copytree(mini_root, tmp_path / "VisA")
        (real / "dataset.json").unlink()
        done = visa(mini_runs, real, "run", "--name", "mini-visa", *ARGUMENTS)
        assert done.returncode == 2 and "holds results of mini-VisA, not of VisA" in done.stderr


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_goes_on(mini_root, tmp_path):
    environment = {**os.environ, "VISA_ROOT": str(mini_root), "VISA_RUNS": str(tmp_path), "VISA_DATA": f"{tmp_path}/d"}
    command = [sys.executable, "-c", "import visa_spd; visa_spd.main()", "run", "--detectors", "probe", *ARGUMENTS]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stamp = tmp_path / "mini-visa/stages/data.json"
    while not stamp.is_file() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    assert not list((tmp_path / "mini-visa").rglob(".*partial*"))
    stamped = len(list((tmp_path / "mini-visa/stages").iterdir()))
    done = visa(tmp_path, mini_root, "run", "--detectors", "probe", *ARGUMENTS)
    assert done.returncode == 0 and f"{8 - stamped} of 8 stages ran" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameter", "value", "told"),
    [
        ("03_pretrain", "objekt", "pcb1", "no parameter 'objekt'"),
        ("01_data", "globals", "1", "no parameter 'globals'"),
        ("01_data", "workers", "0", "workers is 0: give a whole number from 1 to 256"),
        ("06_ablation", "seeds", "0,a", "seeds are '0,a': give whole numbers"),
        ("04_score", "pretraining", "../../x", "'../../x' is the name of no object, pre-training or data set"),
    ],
)
def test_a_wrong_parameter_ends_papermill_with_a_sentence(
    mini_root, tmp_path, monkeypatch, name, parameter, value, told
):
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    notebook = Path(__file__).parent.parent / "notebooks" / f"{name}.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), "-p", parameter, value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and told in done.stderr
    ran = [c for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code" and c.execution_count]
    assert len(ran) <= 3, "it fails before anything is computed"


def test_the_plan_pairs_pretrainings_by_seed_and_shares_what_serves_all(mini_root, tmp_path):
    source, run = open_source(str(mini_root)), Run(tmp_path)
    own = plan(source, run, Matrix(["pcb1", "fryum"], seeds=[0, 1]))
    assert sum(s.notebook == "03_pretrain" for s in own) == 12 and sum(s.notebook == "04_score" for s in own) == 12
    shared = plan(source, run, Matrix(["pcb1", "fryum"], seeds=[0, 1], scope="all"))
    assert sum(s.notebook == "03_pretrain" for s in shared) == 6 and sum(s.notebook == "04_score" for s in shared) == 12
    for stages in (own, shared):
        names = [s.name for s in stages]
        assert len(set(names)) == len(names)
        for i, stage in enumerate(stages):
            assert set(stage.reads) <= set(names[:i]), "each stage comes after what it reads"
        assert sorted(s.notebook for s in stages if s.page) == sorted({s.notebook for s in stages})


def test_a_setting_that_no_notebook_has_is_refused_before_anything_runs(mini_root, tmp_path):
    stages = plan(open_source(str(mini_root)), Run(tmp_path), Matrix(["fryum"], pretrain={"epoch": 3}))
    with pytest.raises(VisaError, match="03_pretrain has no parameter 'epoch'"):
        check_parameters(stages)


@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": []},
        {"seeds": [0, 0]},
        {"score": {"weights": "w.pth"}},
        {"pretrain": {"seed": 7}},
        {"score": {"run": "x"}},
        {"pretrain": {"weights": "/absent.pth"}},
        {"pretrain": {"pretrain_root": "/absent"}},
    ],
)
def test_a_matrix_that_would_mislead_is_refused(settings):
    with pytest.raises(VisaError):
        Matrix(["fryum"], **settings)


def test_a_folder_of_images_serves_all_objects(mini_root, tmp_path):
    (tmp_path / "photos").mkdir()
    matrix = Matrix(["pcb1", "fryum"], ["simsiam"], pretrain={"pretrain_root": str(tmp_path / "photos")})
    stages = plan(open_source(str(mini_root)), Run(tmp_path / "run"), matrix)
    (pretrained,) = (s for s in stages if s.notebook == "03_pretrain")
    assert pretrained.outputs[0].parent == tmp_path / "run/pretrain/simsiam/photos/seed0"
    scored = [s for s in stages if s.notebook == "04_score"]
    assert len(scored) == 2 and all(s.parameters["scope"] == "photos" for s in scored)


@pytest.mark.parametrize(
    "text",
    ["simsiam=resnet18:pyproject.toml", "lite0", "lite0=resnet18", "a/b=resnet18:w.pth", "x=resnet18:/absent.pth"],
)
def test_given_weights_need_name_arch_and_file(text):
    with pytest.raises(VisaError, match="weights"):
        GivenWeights.parse(text)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--objects", "pcb9"], "unknown object 'pcb9'"),
        (["run", "--detectors", "padin"], "Did you mean 'padim'"),
        (["run", "--seeds", "a"], "seed 'a' is no whole number"),
        (["run", "--seeds", ""], "seeds are none"),
        (["run", "--scope", ""], "unknown scope ''"),
        (["run", "--scope", "object,all"], "unknown scope"),
        (["run", "--objects", ","], "no object is given"),
        (["run", "--seeds", "-1"], "seeds are -1"),
        (["run", "--weights", "..=resnet18:w.pth"], "NAME=ARCH:FILE"),
        (["run", "--pretrain", "epochs_=3"], "no parameter 'epochs_'"),
        (["synth", "/proc/none/x", "--objects", "fryum"], "Check the path"),
        (["run", "--name", "a/b"], "no plain folder name"),
        (["run", "--pretrain", "epochs"], "NAME=VALUE"),
        (["prepare", "--split-type", "3cls"], "unknown split type '3cls'"),
        (["run", "--setups", "2cls"], "unknown setup '2cls'"),
        (["verify", "/nowhere"], "no split file"),
        (["synth", "x", "--objects", "pcb9"], "pcb9"),
    ],
)
def test_the_command_line_ends_a_mistake_in_one_sentence(arguments, sentence, mini_root, tmp_path):
    done = visa(tmp_path, mini_root, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("run.json")), "no run is made"


def test_a_plan_that_is_only_shown_makes_no_run(mini_root, tmp_path):
    done = visa(tmp_path, mini_root, "run", "--dry-run")
    assert done.returncode == 0 and "pretrain-simsiam+spd-pcb1-seed0" in done.stdout.splitlines()
    assert not list(tmp_path.rglob("run.json"))


def test_every_command_says_that_it_was_interrupted(monkeypatch, capsys, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("visa.detect.deploy.image_files", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["fit", str(tmp_path), "--weights", "w.pth", "--out", str(tmp_path / "part.safetensors")])
    assert end.value.code == 130 and capsys.readouterr().err == "visa: interrupted; give the same command again.\n"


def test_the_command_line_verifies_and_prepares(mini_root, tmp_path):
    done = visa(tmp_path, mini_root, "verify", str(mini_root))
    assert done.returncode == 0 and "fryum" in done.stdout and "24 normal" in done.stdout
    (tmp_path / "root").mkdir()
    for part in ("split_csv", "dataset.json", "fryum"):
        (tmp_path / "root" / part).symlink_to(mini_root / part)
    done = visa(tmp_path, mini_root, "verify", str(tmp_path / "root"))
    assert done.returncode == 0 and "pcb1: absent" in done.stdout
    data = ["--data-folder", str(tmp_path / "root"), "--save-folder", str(tmp_path / "tree")]
    done = visa(tmp_path, mini_root, "prepare", *data)
    assert done.returncode == 0 and "absent: pcb1" in done.stdout
    assert len(list((tmp_path / "tree/1cls/fryum/train/good").iterdir())) == 16


def test_the_plan_knows_every_method():
    assert tuple(METHODS) == tuple(TRAINABLE)  # the plan must not import torch to know them


def own_parts(root):
    """Plain folders of two objects: `bolt` with masks for half of its anomalies, `washer` with none."""
    rng = np.random.default_rng(0)
    for name, masked in (("bolt", 6), ("washer", 0)):
        for label, count in (("good", 16), ("bad", 12)):
            for i in range(count):
                pixels = rng.integers(100, 130, (64, 96, 3), np.uint8)
                mask = np.zeros((64, 96), np.uint8)
                if label == "bad":
                    mask[8 + i : 24 + i, 20:50] = 255
                    pixels[mask > 0] = 250
                for folder, array in ((label, pixels), *([("masks", mask)] if label == "bad" and i < masked else [])):
                    file = root / name / folder / f"{i:03}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(file)
    return root


@pytest.mark.slow
def test_own_folders_go_through_all_notebooks_and_missing_masks_only_cost_pixel_figures(tmp_path):
    parts = own_parts(tmp_path / "my parts")
    arguments = ["run", "--pretrainings", "random", "--detectors", "padim,probe", "--setups", "1cls,2cls_5shot"]
    done = visa(tmp_path / "runs", parts, *arguments, "--pretrain", "image_size=32", "--score", "draws=2")
    assert done.returncode == 0 and "8 of 8 stages ran on my parts" in done.stdout, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "runs/my parts/results/metrics.csv")
    assert set(table["dataset"]) == {"my parts"} and set(table["object"]) == {"bolt", "washer"}
    assert set(table.loc[table["level"] == "pixel", "object"]) == {"bolt"}
    found = table[(table["object"] == "bolt") & (table["detector"] == "padim") & (table["level"] == "image")]
    assert found.loc[found["metric"] == "auroc", "value"].item() > 0.9, "these defects are glaring"
    left = {str(file.relative_to(parts)).split("/")[1] for file in parts.rglob("*") if file.is_file()}
    assert left == {"good", "bad", "masks"}, "nothing is written into the user's folders"
