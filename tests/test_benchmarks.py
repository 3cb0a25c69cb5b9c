"""The scripts in benchmarks/ run on tiny inputs; those that need other packages or data say what they take."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from visa.backbone import create_backbone, save_weights
from visa.data.dataset import load_masks
from visa.data.source import open_source
from visa.detect.scores import Scores, save_scores
from visa.mini.writer import write_mini_visa
from visa.paths import CHECKOUT

pytestmark = pytest.mark.slow


def run(script, *arguments):
    command = [sys.executable, str(CHECKOUT / "benchmarks" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_script_that_needs_real_data_says_what_it_takes():
    assert "--out" in run("end_to_end.py", "--help")


def test_metrics_agree_with_sweep_and_scikit_learn(tmp_path):
    run("metrics.py", "--images", 6, "--repeats", 1, "--out", tmp_path / "m.json")
    rows = pd.read_csv(tmp_path / "m.csv").set_index("part")
    assert {"exact", "reference", "scikit_learn"} <= set(rows.index)
    assert rows["auroc"]["scikit_learn"] == pytest.approx(rows["auroc"]["exact"])
    assert rows["auroc"]["reference"] == pytest.approx(rows["auroc"]["exact"], abs=1e-2)
    assert json.loads((tmp_path / "m.json").read_text())["machine"]["libraries"]["numpy"]


def test_the_protocol_ends_in_tables_and_a_sentence_that_says_what_was_not_measured(mini_root, monkeypatch, tmp_path):
    monkeypatch.setenv("VISA_RUNS", str(tmp_path / "runs"))
    save_weights(create_backbone("resnet18_half"), weights := tmp_path / "w.safetensors", {})
    small = ("--smaller", '{"steps": 2, "batch_size": 8, "image_size": 32}', "--draws", 1, "--threads", 1)
    given = ("--root", mini_root, "--objects", "fryum", "--arch", "resnet18_half", "--weights", weights)
    arms = ("--arms", "given", "SPD classifier", "hard edge")
    told = run("protocol.py", *given, *small, *arms, "--seeds", 2, "--out", tmp_path / "out")
    assert "points of AU-PR (probe, 5-shot" not in told, "no primary comparison"
    assert "fryum: not measured. SPD classifier − given (probe, 10-shot): too few images" in told
    assert "| object | pretraining | small | middle | large |" in told, "what PatchCore's maps see of defects"
    assert told.endswith(run("protocol.py", *given, *small, "--report")), "it is all there"
    table = pd.read_csv(tmp_path / "out/arms.csv")
    assert table["pretraining"].value_counts().to_dict() == {"SPD classifier": 2, "hard edge": 2, "given": 1}
    folder = next((tmp_path / "runs").glob("*/pretrain"))
    files = sorted(folder.glob("*/seed1/backbone.safetensors.json"))  # SPD classifier, hard edge
    blends = [json.loads(file.read_text())["settings"]["spd"]["blend"] for file in files]
    assert blends[0]["sigma"] == [0.01, 0.03] and blends[1] == blends[0] | {"sigma": [0.0, 0.0]}
    two_class = ("--detectors", "classifier", "--setups", "2cls_highshot", "--name", "two-class", "--set", "height=64")
    two_class += (*arms[:3], "--seeds", 1, "--vary", "image_size=48")
    run("protocol.py", *given, *small, *two_class, "--out", tmp_path / "two")
    trainings = pd.read_csv(tmp_path / "two/trainings.csv")
    assert trainings["pretraining"].tolist() == ["SPD classifier", "SPD classifier, image_size=48", "given"]
    assert all(len(losses.split()) == 8 for losses in trainings["losses"]) and trainings["ap"].between(0, 1).all()
    means, differences = (pd.read_csv(tmp_path / f"two/{name}.csv") for name in ("au_pr", "differences"))
    assert means["weights"].tolist() == ["given", *trainings["pretraining"][:2]] and "classifier, high-shot" in means
    told = dict(zip(differences["difference"], differences["classifier, high-shot"], strict=True))
    assert list(told) == ["SPD classifier − given", "SPD classifier, image_size=48 − given"]
    made = sorted((tmp_path / "runs").glob("*two-class*/pretrain/*/seed0/back*.json"))
    assert [json.loads(file.read_text())["settings"]["image_size"] for file in made] == [32, 48]
    scored = next((tmp_path / "runs").glob("*two-class*/arms/given/seed0/scores/*/classifier/draw0/scores.npz.json"))
    made_by = json.loads((tmp_path / "two/provenance.json").read_text())
    for record in (json.loads(scored.read_text())["settings"], made_by["detector_settings"]["two_class"]):
        assert record["size"][0] == 64


def test_the_protocol_reaches_a_verdict_on_a_plain_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VISA_RUNS", str(tmp_path / "runs"))
    write_mini_visa(tmp_path / "made", ("fryum",), normal=40, anomaly=20, size=64, workers=1)
    for made, mine in (("Images/Normal", "good"), ("Images/Anomaly", "bad"), ("Masks/Anomaly", "masks")):
        shutil.copytree(tmp_path / "made/fryum/Data" / made, tmp_path / "parts/bolt" / mine)
    save_weights(create_backbone("resnet18_half"), tmp_path / "w.safetensors", {})
    given = ("--root", tmp_path / "parts", "--objects", "bolt", "--arch", "resnet18_half")
    given += ("--weights", tmp_path / "w.safetensors", "--detectors", "probe", "--setups", "2cls_10shot")
    small = ("--smaller", '{"steps": 2, "batch_size": 8, "image_size": 32}')
    told = run("protocol.py", *given, *small, "--seeds", 2, "--draws", 2, "--threads", 1).splitlines()
    assert sum(line.startswith(("| bolt | SPD classifier − given | ", "At the spread ")) for line in told) == 3
    for line, arms in zip(told[-2:], ("SPD classifier − given", "SimSiam + SPD − SimSiam"), strict=True):
        verdict = rf"bolt: (supported|refuted|not decided)\. {re.escape(arms)}: [+−].* points of AU-PR"
        assert re.match(verdict, line), line
        assert line.endswith("says nothing of SPD."), "two steps teach nothing"


def test_steps_are_measured_with_and_without_spd(tmp_path):
    tiny = ("--arch", "resnet18_half", "--image-size", 32, "--batch", 4, "--repeats", 1, "--threads", 1)
    run("step.py", *tiny, "--methods", "simclr", "supervised", "--out", tmp_path / "step.json")
    rows = {row["pretraining"]: row for row in json.loads((tmp_path / "step.json").read_text())["rows"]}
    assert list(rows) == ["simclr", "simclr+spd", "supervised", "supervised+spd"]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["bare_ms"] / row["step_ms"])


def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path):
    run("pretrain_gpu.py", "--device", "cpu", "--smoke", "--methods", "mocov2", "--out", tmp_path / "gpu.json")
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["left_out"] == []
    assert [row["pretraining"] for row in record["rows"]] == ["mocov2+spd", "mocov2"]
    assert all(row[share] > 0 for row in record["rows"] for share in ("images_per_second", "ratio"))


def test_recipes_squash_or_crop_the_same_images(mini_root, tmp_path):
    save_weights(create_backbone("resnet18_half"), tmp_path / "w.safetensors", {})
    given = (
        "--root",
        mini_root,
        "--objects",
        "fryum",
        "--arch",
        "resnet18_half",
        "--weights",
        tmp_path / "w.safetensors",
    )
    run("recipes.py", *given, "--threads", 1, "--out", tmp_path / "r.json")
    found = pd.read_csv(tmp_path / "r.csv").query("level == 'image' and metric == 'auroc'")
    assert found["recipe"].tolist() == ["224, squashed", "256, centre 224", "336, squashed"] * 2
    assert found["value"].nunique() > 3


def test_counts_are_those_of_the_split_files_and_of_what_was_verified(mini_root, tmp_path):
    run("count_visa.py", "--root", mini_root, "--objects", "fryum", "--out", tmp_path)
    value = pd.read_csv(tmp_path / "counts.csv", index_col="measure")["value"]
    assert value[["objects", "images", "normal", "anomaly"]].tolist() == [2, 104, 80, 24]
    assert value[["verified", "errors"]].tolist() == [52, 0]


def test_conventions_are_measured_on_scores_and_full_masks(mini_root, tmp_path):
    samples = open_source(str(mini_root)).samples("1cls", object="fryum", split="test")
    masks, known = (np.asarray(part) for part in load_masks(mini_root, samples, (224, 224)))
    maps, labels = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32) + masks, masks.any(axis=(1, 2))
    paths, about = [s.image for s in samples], (known, "1cls", "fryum", "padim")
    save_scores(tmp_path / "s.npz", Scores(paths, labels.astype(np.uint8), maps.mean(axis=(1, 2)), maps, masks, *about))
    run("metric_conventions.py", "--root", mini_root, "--scores", f"PaDiM={tmp_path / 's.npz'}", "--out", tmp_path)
    rows = pd.read_csv(tmp_path / "conventions.csv")
    assert (rows[rows["figure"] == "regions"]["value"] >= labels.sum()).all()
    assert json.loads((tmp_path / "provenance.json").read_text())["inputs"]["PaDiM"]["images"] == len(paths)
