"""From images to files: what notebook 3 and `visa pretrain` leave behind, for every method."""

import json

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

from visa import cli
from visa.backbone import load_backbone
from visa.data.objects import SPLIT_TYPES
from visa.data.source import open_source
from visa.errors import VisaError
from visa.pretrain import METHODS
from visa.pretrain.fabric import make_fabric
from visa.pretrain.images import folder_data, training_data
from visa.pretrain.run import is_finished, run_pretraining, run_untrained
from visa.pretrain.settings import configured
from visa.provenance import read_sidecar

SMALL = {"arch": "resnet18_half", "epochs": 1, "batch_size": 8, "image_size": 32, "queue": 16, "base_lr": 0.05}
SMALL |= {"optimizer": "sgd", "warmup_epochs": 0.0}


@pytest.fixture(scope="module")
def data(mini_root):
    return training_data(open_source(str(mini_root)), "fryum", "", 32)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_weights_curves_and_diagnosis(data, mini_root, tmp_path, method):
    settings = configured(method, True, SMALL | {"eta": 0.5})
    assert not is_finished(settings, data, tmp_path)
    run_pretraining(settings, data, tmp_path, make_fabric("cpu"))
    load_backbone("resnet18_half", tmp_path / "backbone.safetensors")
    assert ("fc.weight" in load_file(tmp_path / "backbone.safetensors")) is (method == "supervised")
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert len(curves) == len(data.images) // 8 > 0
    eta = 1.0 if method == "auxiliary" else 0.5
    assert (curves["loss"] - curves["base"] - eta * curves["spd"]).abs().max() < 1e-5
    diagnosis = json.loads((tmp_path / "diagnosis.json").read_text())
    cosines = {"cos_weak", "cos_blend", "triplet"} if method != "auxiliary" else {"spd_accuracy"}
    assert cosines | {"probe_auroc", "probe_accuracy", "term", "learned"} <= set(diagnosis)
    facts = read_sidecar(tmp_path / "backbone.safetensors")
    assert facts["pretraining"] == f"{method}+spd" and facts["synthetic"] and facts["images_per_second"] > 0
    source = open_source(str(mini_root))
    tested = {s.image for t in SPLIT_TYPES for s in source.samples(t, object="fryum", split="test")}
    assert len(facts["clean_images"]) == len(data.images) + len(data.held_out) and not tested & {*facts["clean_images"]}
    assert is_finished(settings, data, tmp_path)
    assert not is_finished(configured(method, True, SMALL | {"seed": 1}), data, tmp_path)


@pytest.mark.slow
def test_the_same_training_writes_the_same_bytes(data, tmp_path):
    settings = configured("simsiam", True, SMALL)
    for name in ("first", "second"):
        run_pretraining(settings, data, tmp_path / name, make_fabric("cpu"))
    first, second = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_the_random_baseline_has_calibrated_statistics(data, tmp_path):
    run_untrained(configured("simsiam", False, SMALL), data, tmp_path)
    weights = load_file(tmp_path / "backbone.safetensors")
    assert weights["bn1.running_mean"].abs().sum() > 0
    assert set(json.loads((tmp_path / "diagnosis.json").read_text())) == {"probe_auroc", "probe_accuracy"}
    assert not (tmp_path / "curves.csv").exists()


@pytest.fixture
def photos(tmp_path):
    """A folder `imagenet/train` of two classes of ten images."""
    for i in range(20):
        file = tmp_path / "imagenet" / "train" / f"class{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (12 * i, 255 - 8 * i, 60)).save(file)
    return tmp_path / "imagenet" / "train"


def test_a_folder_is_named_by_what_it_holds(photos, tmp_path):
    found = folder_data(str(photos), 32, workers=1)
    assert found.scope == found.dataset == "imagenet-train" and not found.synthetic
    assert folder_data(str(photos), 32, dataset="photographs").scope == "photographs"
    with pytest.raises(VisaError, match="nowhere"):
        folder_data("nowhere", 32)
    taken = photos.rename(tmp_path / "pcb1")
    for name in ("", "all", "fryum", "a/b"):
        with pytest.raises(VisaError, match="cannot be called"):
            folder_data(str(taken), 32, dataset=name)


@pytest.mark.slow
def test_pretraining_on_a_folder_opens_no_visa(photos, tmp_path, capsys):
    settings = [f"--set={k}={v}" for k, v in (SMALL | {"epochs": 1}).items()]
    arguments = ["pretrain", "--images", str(photos), "--device", "cpu", "--workers", "1", *settings]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert not ended.value.code and "weights, curves and diagnosis" in capsys.readouterr().out
    run = tmp_path / "runs" / "imagenet-train"
    assert json.loads((run / "run.json").read_text()) == {
        "dataset": "imagenet-train",
        "synthetic": False,
        "format": 2,
    }
    assert (run / "pretrain/simsiam+spd/imagenet-train/seed0/backbone.safetensors").is_file()
    assert not (tmp_path / "data").exists(), "nothing is rendered"


def test_settings_reach_the_method_and_the_spd_term():
    settings = configured("simclr", True, {"eta": 1, "form": "cross-entropy", "epochs": 3, "base_lr": 1})
    assert (settings.epochs, settings.base_lr, settings.spd.eta, settings.spd.form) == (3, 1, 1, "cross-entropy")
    assert settings.optimizer == "lars" and configured("simclr", False, {"eta": 0.5}).spd is None
