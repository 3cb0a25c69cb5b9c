"""A fitted detector as one file: it scores as before, and a file that was tampered with is refused in one sentence."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from visa.backbone import create_backbone
from visa.detect.files import ImageBatches, image_files
from visa.detect.fitted import conformal_threshold, fit_detector, load_detector, make_detector, save_detector
from visa.errors import VisaError

ARCH, SIZE = "resnet18_half", (32, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("normal")
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 80, 3), np.uint8)).save(root / f"{i:02d}.png")
    return root


def fit(kind, folder, **options):
    backbone = create_backbone(ARCH).eval()
    settings = {"n_channels": 6} if kind == "padim" else {"ratio": 0.1}
    return fit_detector(kind, ARCH, backbone, image_files(folder), SIZE, settings=settings, **options)


@pytest.fixture(scope="module")
def part(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "part.safetensors"
    save_detector(path, fit("patchcore", folder))
    return path


@pytest.mark.parametrize("kind", ["padim", "patchcore"])
def test_the_file_alone_scores_the_same(kind, folder, tmp_path):
    fitted = fit(kind, folder, layers=("layer3", "layer2"))
    save_detector(tmp_path / "part.safetensors", fitted)
    loaded = load_detector(tmp_path / "part.safetensors")
    names = ("kind", "arch", "size", "layers", "threshold", "rule", "heat", "made")
    assert [getattr(loaded, n) for n in names] == [getattr(fitted, n) for n in names]
    assert loaded.layers == ("layer2", "layer3")
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for mine, theirs in zip(fitted.score(images), loaded.score(images), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_threshold_comes_from_images_that_were_not_fitted(folder):
    fitted = fit("patchcore", folder, false_alarms=0.2)
    assert (fitted.made["images"], fitted.made["held_out"]) == (11, 1)
    scores = np.concatenate([fitted.score(b)[0] for b in ImageBatches(image_files(folder), SIZE, fitted.device)])
    assert np.isclose(scores, fitted.threshold, rtol=1e-4).any()
    assert "number 1 of 1" in fitted.rule


def test_conformal_threshold_keeps_the_share_of_false_alarms():
    scores = np.arange(1.0, 100.0, dtype=np.float32)  # 99 of them
    assert conformal_threshold(scores, 0.05)[0] == 95
    assert "5.0%" in conformal_threshold(scores[::-1], 0.05)[1]
    assert conformal_threshold(scores[:4], 0.05)[0] == 4
    assert "20.0%" in conformal_threshold(scores[:4], 0.05)[1]
    rng = np.random.default_rng(0)
    above = [rng.normal(size=50) > conformal_threshold(rng.normal(size=39), 0.1)[0] for _ in range(300)]
    assert np.mean(above) == pytest.approx(0.1, abs=0.015)


def tampered(path, target, about=None, drop=(), **tensors):
    """The file with other metadata and tensors; in names, __ stands for a dot."""
    with safe_open(path, "pt") as file:
        content = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        record = json.loads(file.metadata()["visa_detector"])
    content |= {k.replace("__", "."): v for k, v in tensors.items()}
    content = {k: v for k, v in content.items() if k not in drop}
    target.write_bytes(save(content, {"visa_detector": json.dumps({**record, **(about or {})})}))
    return target


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"about": {"format": "other"}}, "no file of visa fit"),
        ({"about": {"kind": "svm"}}, "unknown detector"),
        ({"about": {"kind": "padim"}}, "holds no PaDiM"),
        ({"about": {"arch": "hf-hub:someone/model"}}, "unknown arch"),
        ({"about": {"arch": "timm/hf-hub:someone/model"}}, "timm knows no model"),
        ({"about": {"arch": "resnet18"}}, "are no resnet18's"),
        ({"about": {"arch": 7}}, "its arch is absent"),
        ({"about": {"size": [32, 10**9]}}, "image size"),
        ({"about": {"size": [32.5, 64]}}, "image size"),
        ({"about": {"layers": ["layer2", "__class__"]}}, "its layers"),
        ({"about": {"layers": ["layer3"]}}, "do not fit together"),
        ({"about": {"threshold": float("nan")}}, "its threshold"),
        ({"about": {"threshold": None}}, "threshold is absent"),
        ({"about": {"heat": [1.0, 1.0]}}, "heat maps"),
        ({"about": {"settings": {}}}, "no settings of PatchCore"),
        ({"drop": ("detector.bank",)}, "holds no PatchCore"),
        ({"drop": ("backbone.conv1.weight",)}, "are no resnet18_half's"),
        ({"detector__bank": torch.zeros(3, 5)}, "shapes do not fit"),
        ({"detector__bank": torch.zeros(3, 5, dtype=torch.float64)}, "bank is torch.float64"),
        ({"detector__picks": torch.zeros(2, dtype=torch.int64)}, "shapes do not fit"),
        ({"detector__bank": torch.full((3, 5), torch.nan)}, "NaN"),
        ({"backbone__bn1__running_var": torch.full((64,), -1.0)}, "NaN or infinite scores"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(part, tmp_path, change, sentence):
    with pytest.raises(VisaError, match=sentence):
        load_detector(tampered(part, tmp_path / "bad.safetensors", **change))


def test_settings_out_of_range_are_refused_in_a_file_and_by_name(part, tmp_path):
    with safe_open(part, "pt") as file:
        settings = json.loads(file.metadata()["visa_detector"])["settings"]
    for name, value in (("neighbors", "9"), ("neighbors", True), ("ratio", 2), ("sigma", float("inf")), ("seed", 0.5)):
        with pytest.raises(VisaError, match=f"{name} is"):
            load_detector(tampered(part, tmp_path / "bad.safetensors", {"settings": {**settings, name: value}}))
        with pytest.raises(VisaError, match=f"{name} is"):
            make_detector("patchcore", create_backbone(ARCH), settings={name: value})


def test_files_of_other_kinds_are_refused(part, tmp_path):
    (tmp_path / "short.safetensors").write_bytes(part.read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("no detector")
    (tmp_path / "weights.safetensors").write_bytes(save({"a": torch.zeros(1)}))
    for name in ("short", "text", "weights", "absent"):
        with pytest.raises(VisaError, match="no fitted detector"):
            load_detector(tmp_path / f"{name}.safetensors")


def test_mistakes_are_told_in_one_sentence(folder):
    files, backbone = image_files(folder), create_backbone(ARCH)
    for arguments, sentence in (
        ((files[:2], SIZE), "too few"),
        ((files, (8, 64)), "image size"),
        ((files, SIZE, ("layer5",)), "unknown layer"),
        ((files, SIZE, ("layer2", "layer2")), "given twice"),
        ((files, SIZE, (), {"depth": 3}), "unknown setting"),
        ((files, SIZE, (), {}, 1.5), "false alarms"),
    ):
        with pytest.raises(VisaError, match=sentence):
            fit_detector("patchcore", ARCH, backbone, *arguments)


def test_padim_draws_the_papers_channels_by_itself():
    assert make_detector("padim", create_backbone("resnet18")).n_channels == 100
    assert make_detector("padim", create_backbone("resnet50")).n_channels == 550
