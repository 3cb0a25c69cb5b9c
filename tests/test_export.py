"""Exported weights: the real torchvision, timm and anomalib load them, and the card tells what they are."""

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from visa.backbone import FeatureMaps, create_backbone, load_backbone, normalize
from visa.errors import VisaError
from visa.export import export

FACTS = {"pretraining": "simsiam+spd", "dataset": "VisA", "synthetic": False, "scope": "pcb1", "images": 904}


def pretraining(folder, arch="resnet18", head=None, **changes):
    """What a pre-training leaves behind, with random weights and `head`, its classifier."""
    folder.mkdir(parents=True)
    settings = {"arch": arch, "seed": 3, "epochs": 2, "spd": {"eta": 0.1}, "weights": ""} | changes.pop("settings", {})
    about = {"settings": settings, **FACTS, **changes}
    weights = folder / "backbone.safetensors"
    state = {k: v.contiguous() for k, v in create_backbone(arch, seed=3).state_dict().items()}
    save_file({**state, **(head or {})}, weights, {"visa": json.dumps(about)})
    machine = {"visa": "0.0.7", "commit": "abc123", "cpu": "a processor"}
    sidecar = {**about, "written": "2022-07-28T00:00:00Z", "machine": machine}
    (folder / "backbone.safetensors.json").write_text(json.dumps(sidecar))
    (folder / "diagnosis.json").write_text(json.dumps({"cos_blend": 0.1234, "probe_auroc": 0.8765}))
    return weights


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file exported from ResNet-18, and the weights it was made from."""
    folder = tmp_path_factory.mktemp("export")
    weights = pretraining(folder / "run")
    return export(weights, folder / "out"), weights


def header_and_text(file):
    _, header, text = (file.parent / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), text


def loading_lines(file):
    return re.findall(r"```python\n(.*?)\n```", header_and_text(file)[1], re.DOTALL)


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_the_lines_of_the_card_load_every_weight_of_a_resnet_into_timm_and_torchvision(arch, tmp_path, monkeypatch):
    weights = pretraining(tmp_path / "run", arch)
    file = export(weights, tmp_path / "out")
    monkeypatch.chdir(file.parent)
    *lines, anomalibs = loading_lines(file)
    state, models = load_file(file), []
    for names in ({"timm": timm}, {"torchvision": torchvision, "safetensors": safetensors}):
        exec(lines[len(models)], names)  # noqa: S102
        models.append(names["model"].eval())
        assert all(torch.equal(v, state[k]) for k, v in names["model"].state_dict().items())
    timms, theirs = models
    assert anomalibs.count("local-dir:") == 2
    ours = load_backbone(arch, weights)
    x = normalize(torch.rand(1, 3, 64, 64), ours)
    with torch.no_grad():
        features = ours(x)
        assert not theirs(x).any() and not timms(x).any(), "the untrained classifier is all zeros"
        theirs.fc = nn.Identity()
        assert torch.equal(theirs(x), features)
        assert torch.allclose(timms.forward_head(timms.forward_features(x), pre_logits=True), features, atol=1e-5)


def test_the_folder_is_a_timm_model(exported):
    file, weights = exported
    maps = timm.create_model(f"local-dir:{file.parent}", pretrained=True, features_only=True, out_indices=(1, 2, 3, 4))
    ours = load_backbone("resnet18", weights)
    images = torch.rand(1, 3, 64, 64)
    data = timm.data.resolve_data_config(model=maps)
    mean, std = torch.tensor(data["mean"]), torch.tensor(data["std"])
    x = (images - mean[:, None, None]) / std[:, None, None]
    for theirs, own in zip(maps.eval()(x), FeatureMaps(ours)(images), strict=True):
        assert torch.allclose(theirs, own, atol=1e-5)


def test_padim_and_patchcore_of_anomalib_have_these_weights(exported):
    anomalib = pytest.importorskip("anomalib")
    pytest.importorskip("anomalib.models")
    file, weights = exported
    images = torch.rand(4, 3, 64, 64)
    ours = load_backbone("resnet18", weights)
    lines = loading_lines(file)[2].replace("path/to/folder", str(file.parent)).splitlines()
    for line, layers in zip(lines, (("layer1", "layer2", "layer3"), ("layer2", "layer3")), strict=True):
        features = eval(line, {"anomalib": anomalib}).model.feature_extractor(normalize(images, ours))
        assert tuple(features) == layers
        for layer, own in zip(layers, FeatureMaps(ours, layers)(images), strict=True):
            assert torch.allclose(features[layer], own, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "name", "width", "classes"),
    [("resnet18", "fc", 512, 12), ("timm/tf_efficientnet_lite0", "classifier", 1280, 1000)],
)
def test_a_trained_classifier_is_kept_if_it_is_of_1000_classes(arch, name, width, classes, tmp_path):
    head = {"weight": torch.rand(classes, width), "bias": torch.rand(classes)}
    run = pretraining(tmp_path / "run", arch, {f"fc.{k}": v for k, v in head.items()}, pretraining="supervised")
    file = export(run, tmp_path / "out")
    state, text = load_file(file), header_and_text(file)[1]
    kept = classes == 1000
    for k, v in head.items():
        assert torch.equal(state[f"{name}.{k}"], v) if kept else not state[f"{name}.{k}"].any()
    assert ("trained one" if kept else "all zeros") in text
    if arch.startswith("timm/"):
        loaded, own = timm.create_model("tf_efficientnet_lite0", checkpoint_path=file).state_dict(), load_file(run)
        assert all(torch.equal(loaded[k], v) for k, v in own.items() if k in loaded)
        assert 'create_model("tf_efficientnet_lite0"' in text and "torchvision.models" not in text
    assert "supervised classification (He et al., 2016), without SPD" in text


def test_the_card_tells_method_data_settings_probes_and_licence(exported):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    file, _ = exported
    assert file.name == "resnet18-simsiam-spd-pcb1-seed3.safetensors"
    card = huggingface_hub.ModelCard.load(file.parent / "README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "timm")
    table = ("| Training images | 904 |", "| Commit | abc123 |", "| spd.eta | 0.1 |", "| 0.1234 |", "| 0.8765 |")
    for said in ("SimSiam (Chen & He, 2021), with SPD", *table, "VisA is licensed CC BY 4.0", "all zeros"):
        assert said in card.text
    assert "SYNTHETIC" not in card.text
    (citation,) = re.findall(r"```bibtex\n(.*?)\n```", card.text, re.DOTALL)
    assert citation in (Path(__file__).parent.parent / "book" / "references.bib").read_text()


@pytest.mark.parametrize(
    ("dataset", "licence", "said"),
    [
        ("mini-VisA", "apache-2.0", "TRAINED ON SYNTHETIC IMAGES"),
        ("ImageNet", "other", "non-commercial research"),
        ("photos", "other", "is not known here"),
        ("", "other", "not known here"),
    ],
)
def test_the_card_tells_the_datas_licence_and_whether_they_are_synthetic(tmp_path, dataset, licence, said):
    synthetic = dataset == "mini-VisA"
    file = export(pretraining(tmp_path / "run", dataset=dataset, synthetic=synthetic), tmp_path / "out")
    header, text = header_and_text(file)
    assert header["license"] == licence and said in text
    assert ("-synthetic-" in file.name) == ("synthetic-data" in header["tags"]) == synthetic


def test_a_network_of_torchvision_alone_goes_back_to_torchvision(tmp_path):
    file = export(pretraining(tmp_path / "run", "mobilenet_v2"), tmp_path / "out")
    torchvision.models.mobilenet_v2().load_state_dict(load_file(file), strict=True)
    text = header_and_text(file)[1]
    assert "torchvision.models.mobilenet_v2()" in text and "timm.create_model" not in text and "anomalib" not in text
    assert sorted(f.name for f in file.parent.iterdir()) == sorted(["README.md", file.name])


def test_no_path_of_the_machine_gets_out(tmp_path):
    settings = {"weights": str(tmp_path / "theirs.pth"), "cache": "C:\\Users\\me\\cache"}
    file = export(pretraining(tmp_path / "run", settings=settings, root=str(tmp_path)), tmp_path / "out")
    card = (file.parent / "README.md").read_text()
    assert "started from `theirs.pth`" in card and "| cache | cache |" in card
    for content in (card.encode(), file.read_bytes()):
        assert str(tmp_path).encode() not in content and b"Users" not in content


def test_weights_alone_are_enough_and_names_are_safe(tmp_path):
    weights = pretraining(tmp_path / "run", scope="../été | ?\n" + "x" * 300)
    for name in ("backbone.safetensors.json", "diagnosis.json"):
        (weights.parent / name).unlink()
    file = export(weights, tmp_path / "out")
    text = header_and_text(file)[1]
    assert "No probe was recorded" in text and "| Commit | not recorded |" in text
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,120}", file.name) and ".." not in file.name
    assert file.parent == (tmp_path / "out").resolve() and file.is_file()


def test_the_same_export_is_kept_and_nothing_is_replaced(tmp_path):
    first, second = pretraining(tmp_path / "a"), pretraining(tmp_path / "b", scope="pcb2")
    out = tmp_path / "out"
    before = export(first, out).stat().st_mtime_ns
    assert export(first, out).stat().st_mtime_ns == before, "the same export is no conflict"
    for taken in (out, first.parent):
        with pytest.raises(VisaError, match="delete it, or name a new folder"):
            export(second, taken)
    assert [f.name for f in out.glob("*.safetensors")] == ["resnet18-simsiam-spd-pcb1-seed3.safetensors"]
    assert first.is_file() and sorted(f.name for f in tmp_path.iterdir() if f.name.startswith(".")) == []


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    weights = pretraining(tmp_path / "a")

    def fail(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        export(weights, tmp_path / "new")
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_mistakes_are_told_in_a_sentence(tmp_path):
    weights = pretraining(tmp_path / "run")
    save_file(load_file(weights), tmp_path / "plain.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
    save_file({"a": torch.zeros(1)}, tmp_path / "arch.safetensors", {"visa": '{"settings": {"arch": "resnet19"}}'})
    for name, said in {
        "absent.safetensors": "no weights at",
        "plain.safetensors": "records no pre-training",
        "cut.safetensors": "records no pre-training",
        "arch.safetensors": "unknown arch 'resnet19'",
    }.items():
        with pytest.raises(VisaError, match=said):
            export(tmp_path / name, tmp_path / "out")
    with pytest.raises(VisaError, match="neither torchvision nor timm knows"):
        export(pretraining(tmp_path / "half", "resnet18_half"), tmp_path / "out")
    with pytest.raises(VisaError, match="delete it, or name a new folder"):
        export(weights, tmp_path / "plain.safetensors")
    sidecar = weights.with_name(weights.name + ".json")
    sidecar.write_text(sidecar.read_text().replace('"epochs": 2', '"epochs": 3'))
    with pytest.raises(VisaError, match="different settings"):
        export(weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()
