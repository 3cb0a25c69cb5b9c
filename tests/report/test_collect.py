"""A run's files as tables: one scope at a time, and provenance from what each file says of itself."""

import csv
import json

import pytest

from visa.provenance import write_sidecar, write_text
from visa.report import collect
from visa.report.tables import COLUMNS


def score(run, object, pretraining, scope, value):
    file = run / "scores" / object / pretraining / scope / "seed0" / "metrics.csv"
    file.parent.mkdir(parents=True)
    with file.open("w", newline="") as stream:
        row = ("VisA", object, "1cls", pretraining, 0, "padim", "image", "auroc", value)
        csv.writer(stream).writerows([COLUMNS, row])
    write_sidecar(file, "k", {"scope": scope}, weights="w")


@pytest.fixture
def run(tmp_path):
    score(tmp_path, "fryum", "simsiam", "fryum", 0.7)
    score(tmp_path, "fryum", "simsiam", "all", 0.8)
    score(tmp_path, "fryum", "imagenet", "given", 0.9)
    folder = tmp_path / "pretrain/simsiam/fryum/seed0"
    write_text(folder / "diagnosis.json", json.dumps({"probe_auroc": 0.6}))
    write_text(folder / "curves.csv", "step,loss\n0,1.0\n1,0.5\n")
    write_text(folder / "backbone.safetensors", "")
    write_sidecar(folder / "backbone.safetensors", "k", {"epochs": 1}, seconds=2.0)
    write_text(tmp_path / "run.json", json.dumps({"dataset": "VisA", "synthetic": False}))
    parameters = {"method": "simsiam", "spd": True, "object": "fryum", "seed": 0}
    stamp = {"stage": "p", "notebook": "03_pretrain", "parameters": parameters, "seconds": 3.0}
    write_text(tmp_path / "stages/p.json", json.dumps(stamp))
    return tmp_path


@pytest.mark.parametrize(("scope", "value"), [("", 0.7), ("object", 0.7), ("all", 0.8)])
def test_scopes_are_not_mixed_and_given_weights_stand_beside_each(run, scope, value):
    table = collect.run_metrics(run, scope).set_index("pretraining")["value"]
    assert table.to_dict() == {"simsiam": value, "imagenet": 0.9}


def test_curves_diagnoses_and_times_say_whose_they_are(run):
    curves = collect.run_curves(run)
    assert list(curves["loss"]) == [1.0, 0.5] and set(curves["pretraining"]) == {"simsiam"}
    assert collect.run_diagnoses(run).iloc[0].to_dict()["probe_auroc"] == 0.6
    assert collect.run_stages(run).iloc[0][["pretraining", "seconds"]].tolist() == ["simsiam+spd", 3.0]


def test_provenance_is_read_from_the_files_not_from_now(run):
    facts = collect.run_provenance(run)
    assert facts["pretrainings"]["simsiam/fryum/0"]["settings"] == {"epochs": 1}
    assert facts["scores"]["fryum/imagenet/given/seed0"]["weights"] == "w"
    assert len(facts["machines"]) == 1 and facts["machines"][0]["visa"]
