"""A run's files as tables: one scope at a time, and provenance from what each file says of itself."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from visa.data.source import open_source
from visa.detect.scores import Scores, load_scores, save_scores
from visa.errors import VisaError
from visa.provenance import write_sidecar, write_text
from visa.report import collect
from visa.report.tables import COLUMNS


def score(run, object, pretraining, scope, value):
    file = run / "scores" / object / pretraining / scope / "seed0" / "metrics.csv"
    file.parent.mkdir(parents=True)
    with file.open("w", newline="") as stream:
        row = ("VisA", object, "1cls", 0, pretraining, 0, "padim", "", "image", "auroc", value)
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


def put_scores(run, pretraining, setup, detector, seed=0, draw=0, object="fryum", scope="fryum"):
    about = {"setup": setup, "object": object, "detector": detector, "draw": draw}
    labels, values = np.array([0, 1], np.uint8), np.array([0.1, 0.2], np.float32)
    scores = Scores(["a.png", "b.png"], labels, values, maps=None, masks=None, known=np.ones(2, bool), **about)
    folder = run / "scores" / object / pretraining / scope / f"seed{seed}" / setup / detector / f"draw{draw}"
    save_scores(folder / "scores.npz", scores)


@pytest.fixture
def scored(tmp_path):
    for pretraining in ("simsiam", "simsiam+spd"):
        put_scores(tmp_path, pretraining, "2cls_10shot", "probe", draw=1)
        put_scores(tmp_path, pretraining, "2cls_10shot", "probe", draw=0)
        put_scores(tmp_path, pretraining, "1cls", "padim", seed=1)
        put_scores(tmp_path, pretraining, "1cls", "dinov9", seed=1)
    put_scores(tmp_path, "simsiam", "1cls", "padim", scope="all")
    put_scores(tmp_path, "imagenet", "1cls", "padim", scope="given", seed=1)
    return tmp_path


def test_scores_are_found_with_what_they_are_of(scored):
    found = collect.run_scores(scored)
    assert len(found) == 9, "those of another scope are left out"
    for row in found.itertuples():
        s = load_scores(row.file)
        assert (s.object, s.setup, s.detector, s.draw) == (row.object, row.setup, row.detector, row.draw)
    assert set(collect.run_scores(scored, "all")["pretraining"]) == {"simsiam", "imagenet"}


def test_a_case_is_chosen_where_none_is_named(scored):
    found = collect.run_scores(scored)
    case = collect.pick_case(found)
    assert set(case["setup"]) == {"1cls"} and set(case["detector"]) == {"padim"}
    assert sorted(case["pretraining"]) == ["imagenet", "simsiam", "simsiam+spd"]
    few_shot = collect.pick_case(found, detector="probe")
    assert set(few_shot["setup"]) == {"2cls_10shot"} and list(few_shot["draw"]) == [0, 0]
    with pytest.raises(VisaError, match="detector with scores 'unet'"):
        collect.pick_case(found, detector="unet")
    assert collect.pick_case(collect.run_scores(scored / "empty")).empty


def test_test_images_are_counted_by_defect_class(mini_root):
    source = open_source(str(mini_root))
    metrics = pd.DataFrame({"object": "fryum", "setup": ["1cls", "2cls_5shot", "1cls"]})
    counts = collect.defect_images(source, metrics)
    assert set(counts) == {("fryum", "1cls"), ("fryum", "2cls_5shot")}
    assert counts["fryum", "1cls"][""] == 12, "all anomalies are tested in 1cls"
    assert counts["fryum", "2cls_5shot"][""] < 12, "some train in the few-shot split"
    named = {name: n for name, n in counts["fryum", "1cls"].items() if name}
    classes = source.defects("fryum").values()
    assert named == {name: sum(name in image for image in classes) for name in named} and sum(named.values()) >= 12
