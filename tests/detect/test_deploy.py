"""From a folder of normal images to one file, and with it to a table and heat maps; a file that was tampered with."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save
from typer.testing import CliRunner

from visa import cli
from visa.backbone import create_backbone, save_weights
from visa.detect.deploy import (
    conformal_threshold,
    fit_detector,
    image_batches,
    image_files,
    load_detector,
    save_detector,
    score_files,
)
from visa.errors import VisaError
from visa.pretrain.settings import ADAPTATION

ARCH, SIZE = "resnet18_half", (32, 64)
app = typer.Typer()
app.command()(cli.fit)
app.command()(cli.score)


def picture(rng, defect=False):
    pixels = rng.integers(100, 130, (48, 80, 3), np.uint8)
    if defect:
        pixels[10:30, 50:70] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Normal images, new images and a backbone's weights."""
    root, rng = tmp_path_factory.mktemp("line"), np.random.default_rng(0)
    (root / "good").mkdir()
    (root / "new" / "later").mkdir(parents=True)
    for i in range(20):
        picture(rng).save(root / "good" / f"{i:02d}.png")
    shutil.copy(root / "good" / "00.png", root / "new" / "a.png")
    picture(rng, defect=True).save(root / "new" / "a.bmp")
    picture(rng, defect=True).save(root / "new" / "later" / "Größe.JPG")
    save_weights(create_backbone(ARCH), root / "backbone.safetensors", {"settings": {"arch": ARCH}})
    return root


def fit(kind, place, **options):
    settings = {"n_channels": 6} if kind == "padim" else {"ratio": 1}
    backbone = create_backbone(ARCH).eval()
    return fit_detector(kind, ARCH, backbone, image_files(place / "good"), SIZE, settings=settings, **options)


@pytest.fixture(scope="module")
def fitted(place):
    return fit("patchcore", place, false_alarms=0.3)


@pytest.fixture(scope="module")
def part(fitted, place):
    save_detector(place / "part.safetensors", fitted)
    return place / "part.safetensors"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, VisaError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def table(out):
    with (out / "scores.csv").open(encoding="utf-8") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def test_the_commands_fit_a_detector_and_find_new_images_that_are_defective(place, tmp_path):
    file = tmp_path / "part.safetensors"
    run("fit", place / "good", "--weights", place / "backbone.safetensors", "--size", "32x64", "--device", "cpu",
        "--set", "ratio=1", "--out", file, "--false-alarms", 0.3)  # fmt: skip
    output = run("score", place / "new", "--detector", file, "--out", tmp_path / "out", "--device", "cpu")
    assert "3 images scored, 2 of them anomalous" in output and "are expected above it (95% interval" in output
    rows = table(tmp_path / "out")
    verdicts = {"a.png": "normal", "a.bmp": "anomalous", "later/Größe.JPG": "anomalous"}
    assert {path: row["verdict"] for path, row in rows.items()} == verdicts
    loaded = load_detector(file)
    (images,) = image_batches(image_files(place / "new"), loaded.size, loaded.device)
    assert [float(row["score"]) for row in rows.values()] == loaded.score(images)[0].tolist()
    for path, row in rows.items():
        assert (float(row["score"]) > float(row["threshold"])) == (row["verdict"] == "anomalous")
        assert Image.open(tmp_path / "out" / "heat" / f"{path}.png").size == (80, 48)
    heat = np.array(Image.open(tmp_path / "out" / "heat" / "a.bmp.png")).astype(int)
    assert heat[20, 60, 0] > heat[20, 60, 2] and heat[:, :10].max() < 140, "red where the defect is, and there alone"


def test_weights_are_adapted_to_the_images_that_are_fitted(place, tmp_path, monkeypatch):
    for name, value in {"steps": 3, "epochs": 3, "batch_size": 4, "image_size": 32}.items():
        monkeypatch.setitem(ADAPTATION, name, value)
    given, part = place / "backbone.safetensors", tmp_path / "part.safetensors"
    common = ("--weights", given, "--size", "32x64", "--device", "cpu", "--set", "ratio=1", "--out", part, "--adapt")
    output = run("fit", place / "good", *common)
    assert "adapted on 10 images" in output and "was not learned" in output, "the threshold's 2 are left out"
    adapted = load_file(tmp_path / "part-adapted" / "backbone.safetensors")
    fitted = load_detector(part)
    assert not adapted["conv1.weight"].equal(load_file(given)["conv1.weight"])
    assert all(t.equal(adapted[name]) for name, t in fitted.backbone.state_dict().items())
    assert fitted.made["adapted"]["learned"] == 0
    again = part.read_bytes()
    monkeypatch.setattr("visa.pretrain.train.Step.__call__", None)
    run("fit", place / "good", *common)
    assert part.read_bytes() == again, "what was trained is not trained again"
    few = [str(file) for file in image_files(place / "good")[:10]]
    with pytest.raises(VisaError, match="too few to adapt"):
        cli._adapt(None, given, ARCH, tmp_path, "cpu", few)


@pytest.mark.parametrize("kind", ["padim", "patchcore"])
def test_the_file_alone_scores_the_same(kind, place, tmp_path):
    fitted = fit(kind, place, layers=("layer3", "layer2"))
    save_detector(tmp_path / "part.safetensors", fitted)
    loaded = load_detector(tmp_path / "part.safetensors")
    names = ("kind", "arch", "size", "layers", "threshold", "rule", "heat", "made")
    assert [getattr(loaded, n) for n in names] == [getattr(fitted, n) for n in names]
    assert loaded.layers == ("layer2", "layer3")
    images = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    assert (loaded.made["images"], loaded.made["held_out"]) == (18, 2), "the threshold comes from images of its own"
    for mine, theirs in zip(fitted.score(images), loaded.score(images), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_conformal_threshold_keeps_the_share_of_false_alarms():
    scores = np.arange(1.0, 100.0, dtype=np.float32)  # 99 of them
    assert conformal_threshold(scores, 0.05)[0] == 95
    assert "5.0%" in conformal_threshold(scores[::-1], 0.05)[1]
    assert conformal_threshold(scores[:4], 0.05)[0] == 4
    share = "20.0% of new normal images are expected above it (95% interval 0.6% to 60.2%)"
    assert share in conformal_threshold(scores[:4], 0.05)[1]
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
    record |= {"settings": record["settings"] | (about or {}).pop("set", {})} | (about or {})
    target.write_bytes(save(content, {"visa_detector": json.dumps(record)}))
    return target


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"about": {"format": "other"}}, "not a file of visa fit"),
        ({"about": {"kind": "svm"}}, "unknown detector"),
        ({"about": {"kind": "padim"}}, "holds no padim"),
        ({"about": {"arch": "hf-hub:someone/model"}}, "unknown arch"),
        ({"about": {"arch": "timm/hf-hub:someone/model"}}, "timm knows no model"),
        ({"about": {"arch": "resnet18"}}, "do not fit together"),
        ({"about": {"size": [32, 10**9]}}, "image size"),
        ({"about": {"size": 64}}, "do not fit together"),
        ({"about": {"layers": ["layer2", "__class__"]}}, "unknown layer"),
        ({"about": {"layers": ["layer3"]}}, "do not fit together"),
        ({"about": {"threshold": float("nan")}}, "its threshold"),
        ({"about": {"heat": [1.0, 1.0]}}, "heat maps"),
        ({"about": {"set": {"neighbors": "9"}}}, "neighbors is '9'"),
        ({"about": {"set": {"sigma": float("inf")}}}, "sigma is inf"),
        ({"drop": ("detector.bank",)}, "holds no patchcore"),
        ({"drop": ("backbone.conv1.weight",)}, "do not fit together.*conv1"),
        ({"detector__bank": torch.zeros(3, 5)}, "do not fit together"),
        ({"detector__bank": torch.full((3, 192), torch.nan)}, "NaN"),
        ({"backbone__bn1__running_var": torch.full((64,), -1.0)}, "NaN or infinite scores"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(part, tmp_path, change, sentence):
    with pytest.raises(VisaError, match=sentence):
        load_detector(tampered(part, tmp_path / "bad.safetensors", **change))


@pytest.mark.parametrize("state", [{"mean": torch.zeros(3, 2)}, {"shape": torch.tensor([1, 2])}])
def test_a_padim_that_was_tampered_with_is_refused(place, tmp_path, state):
    save_detector(tmp_path / "part.safetensors", fit("padim", place))
    wrong = {f"detector__{name}": tensor for name, tensor in state.items()}
    with pytest.raises(VisaError, match="cannot be used"):
        load_detector(tampered(tmp_path / "part.safetensors", tmp_path / "bad.safetensors", **wrong))


def test_a_file_of_an_earlier_version_is_loaded(part, tmp_path):
    more = {"set": {"limit": None, "pooled": 0}}
    earlier = tampered(part, tmp_path / "earlier.safetensors", more, detector__picks=torch.zeros(9))
    assert load_detector(earlier).threshold == load_detector(part).threshold
    with pytest.raises(VisaError, match="unknown setting"):
        load_detector(tampered(part, earlier, {"set": {"limit": 300}}))


def test_files_of_other_kinds_are_refused(part, tmp_path):
    (tmp_path / "short.safetensors").write_bytes(part.read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("no detector")
    (tmp_path / "weights.safetensors").write_bytes(save({"a": torch.zeros(1)}))
    for name in ("short", "text", "weights", "absent"):
        with pytest.raises(VisaError, match="no fitted detector"):
            load_detector(tmp_path / f"{name}.safetensors")


def test_unreadable_images_are_named_and_counted(place, part, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    whole = (place / "new" / "a.png").read_bytes()
    for name, content in {"whole.png": whole, "half.png": whole[:500], "none.jpg": b"", "notes.txt": b"text"}.items():
        (folder / name).write_bytes(content)
    (folder / "gone.png").symlink_to(tmp_path / "absent.png")
    output = run("score", folder, "--detector", part, "--out", tmp_path / "out", "--device", "cpu", code=1)
    assert "3 images could not be read" in output
    rows = table(tmp_path / "out")
    unreadable = {path for path, row in rows.items() if row["verdict"] == "unreadable"}
    assert unreadable == {"half.png", "none.jpg", "gone.png"}
    assert all(f"{name} " in output for name in ("half.png", "none.jpg"))
    assert rows["half.png"]["score"] == ""
    with pytest.raises(VisaError, match=r"(half|gone)\.png"):
        fit_detector("patchcore", ARCH, create_backbone(ARCH), image_files(folder), SIZE)


def test_what_is_scored_again_leaves_no_picture_of_the_last_time(place, fitted, tmp_path):
    """Pictures of another scoring are no images, wherever they lie, and those of images that are gone go, too."""
    folder, out = tmp_path / "new", tmp_path / "new" / "visa-scores"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(place / "new" / "a.png", folder / name)
    score_files(fitted, folder, out)
    score_files(fitted, folder, folder)
    assert list(table(folder)) == ["a.png", "b.png"], "also where the images lie in the out folder"
    (folder / "b.png").unlink()
    (folder / "scores.csv").write_text("score,path\n1\n")  # somebody else's
    score_files(fitted, folder, folder)
    score_files(fitted, folder / "a.png", out)
    assert list(table(out)) == ["a.png"]
    assert [f.name for f in out.rglob("*.png")] == ["a.png.png"], "b's is gone"


def test_images_are_found_through_links_and_none_is_passed_over_in_silence(place, tmp_path, monkeypatch):
    (tmp_path / "later").symlink_to(place / "new" / "later")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [str(f.relative_to(tmp_path)) for f in image_files(tmp_path)] == ["later/Größe.JPG"]
    closed = PermissionError(13, "Permission denied", str(tmp_path / "later"))
    monkeypatch.setattr("os.walk", lambda path, onerror, followlinks: onerror(closed))
    with pytest.raises(VisaError, match=r"later may not be read \(Permission denied\)"):
        image_files(tmp_path)


def test_an_object_of_the_data_set_is_fitted_by_name(place, mini_root, tmp_path, monkeypatch):
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    common = ("--weights", place / "backbone.safetensors", "--size", "32x32", "--out", tmp_path / "part.safetensors")
    output = run("fit", "--object", "fryum", "--detector", "padim", "--set", "n_channels=5", *common, "--device", "cpu")
    assert "padim on resnet18_half" in output
    for arguments in ((place / "good", "--object", "fryum"), ()):
        with pytest.raises(VisaError, match="not both"):
            run("fit", *arguments, *common)
    with pytest.raises(VisaError, match="visa pretrain --object fryum, which sees no test image"):
        run("fit", "--object", "fryum", "--adapt", *common)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("fit absent --weights WEIGHTS --out OUT", "no image or folder"),
        ("fit empty --weights WEIGHTS --out OUT", "holds no image"),
        ("fit . --weights WEIGHTS --out OUT", "bad, which is not for normal images"),
        ("fit good --weights absent.pth --out OUT", "no weights"),
        ("fit good --weights plain.pth --out OUT", "give --arch"),
        ("fit good --weights WEIGHTS --out OUT --arch resnet18", "check `arch`"),
        ("fit good --weights WEIGHTS --out part.pt", "end in .safetensors"),
        ("fit good --weights WEIGHTS --out a.safetensors", "cannot be written"),
        ("fit good --weights WEIGHTS --out OUT --size 224", "HEIGHTxWIDTH"),
        ("fit good --weights WEIGHTS --out OUT --size 8x64", "image size"),
        ("fit good --weights WEIGHTS --out OUT --detector svm", "unknown detector"),
        ("fit good --weights WEIGHTS --out OUT --layers layer5", "unknown layer"),
        ("fit good --weights WEIGHTS --out OUT --set ratio=2", "ratio is 2"),
        ("fit good --weights WEIGHTS --out OUT --set ratio=true", "ratio is True"),
        ("fit good --weights WEIGHTS --out OUT --set neighbors=0.5", "neighbors is 0.5: it is a whole number"),
        ("fit good --weights WEIGHTS --out OUT --false-alarms 1.5", "false alarms"),
        ("fit good/00.png --weights WEIGHTS --out OUT", "too few"),
        ("score empty --detector part.safetensors", "holds no image"),
        ("score good --detector WEIGHTS", "no fitted detector"),
    ],
)
def test_mistakes_are_told_in_one_sentence(place, part, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "bad", "a.safetensors"):
        (tmp_path / folder).mkdir()
    for name in ("good", "part.safetensors"):
        (tmp_path / name).symlink_to(place / name)
    torch.save({}, tmp_path / "plain.pth")
    names = {"WEIGHTS": place / "backbone.safetensors", "OUT": "out.safetensors"}
    with pytest.raises(VisaError, match=sentence):
        run(*(names.get(word, word) for word in arguments.split()), "--device", "cpu")
    assert not (tmp_path / "out.safetensors").exists()
