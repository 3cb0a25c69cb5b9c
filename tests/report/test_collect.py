"""A run's files as tables: one scope at a time, and provenance from what each file says of itself."""

import json

import numpy as np
import pandas as pd
import pytest

from visa.detect.scores import Scores, load_scores, save_scores
from visa.errors import VisaError
from visa.provenance import write_sidecar, write_text
from visa.report import collect
from visa.report.tables import COLUMNS


def test_what_a_run_left_says_whose_it_is_and_scopes_are_not_mixed(tmp_path):
    for pretraining, scope, value in (("simsiam", "fryum", 0.7), ("simsiam", "all", 0.8), ("imagenet", "given", 0.9)):
        file = tmp_path / "scores/fryum" / pretraining / scope / "seed0/metrics.csv"
        row = ("VisA", "fryum", "1cls", 0, pretraining, 0, "padim", "", "image", "auroc", value)
        write_text(file, pd.DataFrame([row], columns=list(COLUMNS)).to_csv(index=False))
        write_sidecar(file, "k", {"scope": scope}, weights="w")
    folder = tmp_path / "pretrain/simsiam/fryum/seed0"
    write_text(folder / "diagnosis.json", json.dumps({"probe_auroc": 0.6}))
    write_text(folder / "backbone.safetensors", "")
    write_sidecar(folder / "backbone.safetensors", "k", {"epochs": 1}, seconds=2.0)
    write_text(tmp_path / "run.json", json.dumps({"dataset": "VisA", "synthetic": False}))
    for scope, value in (("", 0.7), ("object", 0.7), ("all", 0.8)):
        table = collect.run_metrics(tmp_path, scope).set_index("pretraining")["value"]
        assert table.to_dict() == {"simsiam": value, "imagenet": 0.9}, "given weights stand beside each scope"
    facts = collect.run_provenance(tmp_path)
    assert facts["pretrainings"]["simsiam/fryum/0"]["settings"] == {"epochs": 1}
    assert facts["scores"]["fryum/imagenet/given/seed0"]["weights"] == "w"
    assert len(facts["machines"]) == 1 and facts["machines"][0]["visa"]


def test_scores_are_found_with_what_they_are_of_and_a_case_is_chosen_where_none_is_named(tmp_path):
    models = [(pretraining, "fryum") for pretraining in ("simsiam", "simsiam+spd")]
    cases = [(*m, *c) for m in models for c in (("2cls_10shot", "probe", 0, 1), ("2cls_10shot", "probe", 0, 0))]
    cases += [(*m, "1cls", detector, 1, 0) for m in models for detector in ("padim", "dinov9")]
    cases += [("simsiam", "all", "1cls", "padim", 0, 0), ("imagenet", "given", "1cls", "padim", 1, 0)]
    for pretraining, scope, setup, detector, seed, draw in cases:
        labels, values = np.array([0, 1], np.uint8), np.array([0.1, 0.2], np.float32)
        about = (np.ones(2, bool), setup, "fryum", detector, draw)
        folder = tmp_path / "scores/fryum" / pretraining / scope / f"seed{seed}" / setup / detector / f"draw{draw}"
        save_scores(folder / "scores.npz", Scores(["a.png", "b.png"], labels, values, None, None, *about))
    found = collect.run_scores(tmp_path)
    assert len(found) == 9, "those of another scope are left out"
    for row in found.itertuples():
        s = load_scores(row.file)
        assert (s.object, s.setup, s.detector, s.draw) == (row.object, row.setup, row.detector, row.draw)
    assert set(collect.run_scores(tmp_path, "all")["pretraining"]) == {"simsiam", "imagenet"}
    case = collect.pick_case(found)
    assert set(case["setup"]) == {"1cls"} and set(case["detector"]) == {"padim"}
    assert sorted(case["pretraining"]) == ["imagenet", "simsiam", "simsiam+spd"]
    few_shot = collect.pick_case(found, detector="probe")
    assert set(few_shot["setup"]) == {"2cls_10shot"} and list(few_shot["draw"]) == [0, 0]
    with pytest.raises(VisaError, match="detector with scores 'unet'"):
        collect.pick_case(found, detector="unet")
    assert collect.pick_case(collect.run_scores(tmp_path / "empty")).empty
