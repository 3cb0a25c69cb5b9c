"""The scripts in benchmarks/ that measure the metrics run, on few made-up images, and write what they print."""

import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from visa.detect.scores import Scores, save_scores
from visa.paths import CHECKOUT

pytestmark = pytest.mark.slow


def run(script, *arguments):
    command = [sys.executable, str(CHECKOUT / "benchmarks" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_parts_agree_and_absent_peers_are_named(tmp_path):
    printed = run("metrics.py", "--images", 6, "--repeats", 1, "--out", tmp_path / "m.json")
    assert "anomalib is not there" in printed and "adeval is not there" in printed
    rows = pd.read_csv(tmp_path / "m.csv").set_index("part")
    assert set(rows.index) == {"exact", "one_pass", "reference", "scikit_learn"}
    assert rows.loc[["one_pass", "scikit_learn"], "auroc"].tolist() == pytest.approx(
        [rows["auroc"]["exact"]] * 2, abs=1e-4
    )
    assert rows["auroc"]["reference"] == pytest.approx(rows["auroc"]["exact"], abs=1e-2)
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["machine"] and next(r for r in record["rows"] if r["part"] == "one_pass")["bounds"]


def test_growth_writes_a_row_a_case(tmp_path):
    run("growth.py", "--most", 150 * 112 * 112, "--out", tmp_path)
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert list(rows) == ["what", "images", "pixels", "cpu_seconds", "peak_bytes"]
    assert rows["what"].value_counts().tolist() == [2, 2, 2]
    assert (rows[["cpu_seconds", "peak_bytes"]] > 0).all(axis=None)
    assert json.loads((tmp_path / "metrics.json").read_text())["machine"]


def test_conventions_are_measured_on_scores_and_full_masks(tmp_path):
    root, n = tmp_path / "VisA", 12
    paths = [f"fryum/Data/Images/{i:03}.JPG" for i in range(n)]
    masks = np.zeros((n, 224, 224), np.uint8)
    masks[::2, 20:60, 30:90] = 1
    table = [{"image": p, "label": "", "mask": f"fryum/{i}.png" if not i % 2 else ""} for i, p in enumerate(paths)]
    (root / "fryum").mkdir(parents=True)
    with (root / "fryum" / "image_anno.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["image", "label", "mask"])
        writer.writeheader()
        writer.writerows(table)
    for i in range(0, n, 2):
        cv2.imwrite(str(root / "fryum" / f"{i}.png"), cv2.resize(masks[i] * 5, (300, 200), interpolation=0))
    maps = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32) + masks
    labels, known = masks.any(axis=(1, 2)).astype(np.uint8), np.ones(n, bool)
    scores = Scores(paths, labels, maps.mean(axis=(1, 2)), maps, masks, known, "1cls", "fryum", "padim")
    save_scores(tmp_path / "s.npz", scores)
    out = tmp_path / "out"
    run("metric_conventions.py", "--root", root, "--scores", f"PaDiM={tmp_path / 's.npz'}", "--out", out)
    rows = pd.read_csv(out / "conventions.csv")
    regions = rows[rows["figure"] == "regions"]["value"]
    assert regions.tolist() == [6, 6, 6, 6]
    assert set(rows["topic"]) >= {"AU-PR", "size", "smoothing", "F1, threshold chosen"}
    assert json.loads((out / "provenance.json").read_text())["inputs"]["PaDiM"]["images"] == n
