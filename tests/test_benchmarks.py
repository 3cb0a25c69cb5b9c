import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from visa.paths import CHECKOUT

pytestmark = pytest.mark.slow


def run(script, *arguments):
    command = [sys.executable, str(CHECKOUT / "benchmarks" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_step_reports_each_method_with_and_without_spd(tmp_path):
    out = tmp_path / "step.json"
    tiny = ("--arch", "resnet18_half", "--image-size", 32, "--batch", 4, "--repeats", 1, "--threads", 1)
    run("step.py", *tiny, "--methods", "simclr", "supervised", "--out", out)
    record = json.loads(out.read_text())
    rows = {row["pretraining"]: row for row in record["rows"]}
    assert list(rows) == ["simclr", "simclr+spd", "supervised", "supervised+spd"]
    assert all(row["images_per_second"] > 0 for row in rows.values())
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["bare_ms"] / row["step_ms"]), "the optimizer is in the step alone"
    assert record["trials"] and record["machine"]["libraries"]["torch"]


def test_gpu_benchmark_runs_on_a_cpu_and_says_what_it_left_out(tmp_path):
    run("pretrain_gpu.py", "--device", "cpu", "--smoke", "--methods", "mocov2", "--out", tmp_path)
    table = pd.read_csv(tmp_path / "pretrain_gpu.csv")
    resident = table[table.input == "resident"].set_index("pretraining")
    assert set(resident.index) == {"mocov2", "mocov2+spd"}
    assert (resident[["of_network", "of_peak", "ratio"]] > 0).all(axis=None)
    assert {"cpu", "device"} <= set(table.input)
    assert "aten::" in (tmp_path / "profile_mocov2+spd.txt").read_text()
    assert json.loads((tmp_path / "pretrain_gpu.json").read_text())["left_out"] == []


def test_gpu_benchmark_keeps_its_budget(tmp_path):
    run("pretrain_gpu.py", "--device", "cpu", "--smoke", "--budget", 0, "--out", tmp_path)
    record = json.loads((tmp_path / "pretrain_gpu.json").read_text())
    assert record["rows"] == [] and any("simsiam+spd" in left for left in record["left_out"])


@pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium on the PATH")
def test_browser_times_every_input_in_a_real_page(tmp_path):
    run("browser.py", "--images", 12, "--repeats", 1, "--out", tmp_path / "browser.json")
    record = json.loads((tmp_path / "browser.json").read_text())
    rows = {row["input"]: row for row in record["rows"]}
    assert record["images"] == 12 and {"sort", "image threshold", "side by side on, off"} <= set(rows)
    assert all(row["cpu_ms"] > 0 and 0 < row["first_ms"] <= row["longest_ms"] for row in rows.values())
