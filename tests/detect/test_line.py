"""From a folder of normal images to a file, and with it to a table and heat maps, on the command line."""

import csv
import shutil

import cv2
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from visa import cli
from visa.backbone import create_backbone, save_weights
from visa.detect.files import ImageBatches, as_batch, image_files, overlay, read_ahead
from visa.detect.fitted import load_detector
from visa.errors import VisaError

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
    (root / "new" / "a.png").write_bytes((root / "good" / "00.png").read_bytes())
    picture(rng, defect=True).save(root / "new" / "a.bmp")
    picture(rng, defect=True).save(root / "new" / "later" / "Größe.JPG")
    backbone = create_backbone("resnet18_half")
    save_weights(backbone, root / "backbone.safetensors", {"settings": {"arch": "resnet18_half"}})
    return root


@pytest.fixture(scope="module")
def part(place):
    run("fit", place / "good", "--weights", place / "backbone.safetensors", "--size", "32x64", "--device", "cpu",
        "--set", "ratio=1", "--out", place / "part.safetensors", "--false-alarms", 0.3)  # fmt: skip
    return place / "part.safetensors"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, VisaError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def table(folder):
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def test_defects_are_told_from_normal_images_and_shown_where_they_are(place, part, tmp_path):
    output = run("score", place / "new", "--detector", part, "--out", tmp_path, "--raw", "--device", "cpu")
    assert "3 images scored, 2 of them anomalous" in output
    rows = table(tmp_path)
    assert {path: row["verdict"] for path, row in rows.items()} == {
        "a.png": "normal",
        "a.bmp": "anomalous",
        "later/Größe.JPG": "anomalous",
    }
    for path, row in rows.items():
        assert (float(row["score"]) > float(row["threshold"])) == (row["verdict"] == "anomalous")
        assert Image.open(tmp_path / "heat" / f"{path}.png").size == (80, 48)
        heat = np.asarray(Image.open(tmp_path / "raw" / f"{path}.png"), float)
        if row["verdict"] == "anomalous":
            assert heat[15:25, 55:65].min() > heat[:, :20].max()


def test_scores_and_maps_are_those_of_the_same_detector_in_process(place, part, tmp_path):
    run("score", place / "new", "--detector", part, "--out", tmp_path, "--raw", "--device", "cpu")
    fitted = load_detector(part)
    files = image_files(place / "new")
    (images,) = ImageBatches(files, fitted.size, fitted.device)
    scores, maps = fitted.score(images)
    rows = table(tmp_path)
    for file, score, heat in zip(files, scores, maps, strict=True):
        path = str(file.relative_to(place / "new"))
        row = rows[path]
        assert float(row["score"]) == score
        low, high = float(row["map_low"]), float(row["map_high"])
        raw = cv2.imdecode(np.fromfile(tmp_path / "raw" / f"{path}.png", np.uint8), cv2.IMREAD_UNCHANGED)
        full = cv2.resize(heat, (80, 48), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(low + raw / 65535 * (high - low), full, atol=(high - low) / 131070 * 1.05)


def test_unreadable_images_are_named_and_counted(place, part, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "whole.png").write_bytes((place / "new" / "a.png").read_bytes())
    (folder / "half.png").write_bytes((place / "new" / "a.png").read_bytes()[:500])
    (folder / "none.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    output = run("score", folder, "--detector", part, "--out", tmp_path / "out", "--device", "cpu", code=1)
    assert "2 images could not be read" in output
    assert "half.png" in output
    assert "none.jpg" in output
    rows = table(tmp_path / "out")
    assert {p: r["verdict"] for p, r in rows.items()}.items() >= {
        ("half.png", "unreadable"),
        ("none.jpg", "unreadable"),
    }
    assert rows["half.png"]["score"] == ""
    with pytest.raises(VisaError, match=r"half\.png"):
        run(
            "fit",
            folder,
            "--weights",
            place / "backbone.safetensors",
            "--size",
            "32x64",
            "--out",
            tmp_path / "b.safetensors",
        )
    assert not (tmp_path / "b.safetensors").exists()


def test_one_image_is_scored_and_what_was_written_is_not_scored_again(place, part, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "a.png").write_bytes((place / "new" / "a.png").read_bytes())
    for source in (folder / "a.png", folder, folder):
        run("score", source, "--detector", part, "--out", folder / "out", "--device", "cpu")
        assert list(table(folder / "out")) == ["a.png"]


def test_what_is_scored_again_leaves_no_picture_of_the_last_time(place, part, tmp_path):
    """Pictures of another scoring are no images, wherever they lie, and those of images that are gone go, too."""
    folder, out = tmp_path / "new", tmp_path / "new" / "visa-scores"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes((place / "new" / "a.png").read_bytes())
    run("score", folder, "--detector", part, "--out", out, "--raw", "--device", "cpu")
    run("score", folder, "--detector", part, "--out", folder, "--device", "cpu")
    assert list(table(folder)) == ["a.png", "b.png"], "also where the images lie in the out folder"
    (folder / "b.png").unlink()
    (folder / "scores.csv").write_text("score,path\n1\n")  # somebody else's
    run("score", folder, "--detector", part, "--out", folder, "--device", "cpu")
    run("score", folder, "--detector", part, "--out", out, "--device", "cpu")
    assert list(table(out)) == ["a.png"]
    assert [f.name for f in out.rglob("*.png")] == ["a.png.png"], "neither b's nor raw ones of the first time"


def test_images_are_found_through_links_and_none_is_passed_over_in_silence(place, part, tmp_path, monkeypatch):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "later").symlink_to(place / "new" / "later")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "absent.png")
    assert [str(f.relative_to(folder)) for f in image_files(folder)] == ["gone.png", "later/Größe.JPG"]
    run("score", folder, "--detector", part, "--out", tmp_path / "out", "--device", "cpu", code=1)
    assert table(tmp_path / "out")["gone.png"]["verdict"] == "unreadable"
    closed = PermissionError(13, "Permission denied", str(folder / "later"))
    monkeypatch.setattr("os.walk", lambda path, onerror, followlinks: onerror(closed))
    with pytest.raises(VisaError, match=r"later may not be read \(Permission denied\)"):
        image_files(folder)


def test_a_folder_with_more_than_normal_images_is_refused(place, tmp_path):
    for folder in ("bolt/good", "bolt/bad"):
        shutil.copytree(place / "good", tmp_path / folder)
    for wrong in (tmp_path, tmp_path / "bolt"):
        with pytest.raises(VisaError, match="bad, which is not for normal images"):
            run("fit", wrong, "--weights", place / "backbone.safetensors", "--out", tmp_path / "part.safetensors")


def test_an_object_of_the_data_set_is_fitted_by_name(place, tmp_path, monkeypatch):
    from visa.mini.writer import write_mini_visa

    root = write_mini_visa(tmp_path / "mini", ["fryum"], 12, 2, 64, 0, 1)
    monkeypatch.setenv("VISA_ROOT", str(root))
    common = ("--weights", place / "backbone.safetensors", "--size", "32x32", "--out", tmp_path / "part.safetensors")
    output = run("fit", "--object", "fryum", "--detector", "padim", "--set", "n_channels=5", *common, "--device", "cpu")
    assert "padim on resnet18_half" in output
    with pytest.raises(VisaError, match="not both"):
        run("fit", place / "good", "--object", "fryum", *common)
    with pytest.raises(VisaError, match="not both"):
        run("fit", *common)


def test_mistakes_are_told_in_one_sentence(place, part, tmp_path):
    weights, out = place / "backbone.safetensors", tmp_path / "part.safetensors"
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.safetensors").mkdir()
    torch.save(create_backbone("resnet18_half").state_dict(), tmp_path / "plain.pth")
    for arguments, sentence in (
        (("fit", place / "absent", "--weights", weights, "--out", out), "no image or folder"),
        (("fit", tmp_path / "empty", "--weights", weights, "--out", out), "holds no image"),
        (("fit", place / "good", "--weights", tmp_path / "absent.pth", "--out", out), "no weights"),
        (("fit", place / "good", "--weights", tmp_path / "plain.pth", "--out", out), "give --arch"),
        (("fit", place / "good", "--weights", weights, "--arch", "resnet18", "--out", out), "check `arch`"),
        (("fit", place / "good", "--weights", weights, "--out", tmp_path / "part.pt"), "end in .safetensors"),
        (("fit", place / "good", "--weights", weights, "--out", tmp_path / "a.safetensors"), "cannot be written"),
        (("fit", place / "good", "--weights", weights, "--out", out, "--size", "224"), "HEIGHTxWIDTH"),
        (("fit", place / "good", "--weights", weights, "--out", out, "--detector", "svm"), "unknown detector"),
        (("fit", place / "good", "--weights", weights, "--out", out, "--set", "seed=" + "9" * 400), "a whole number"),
        (("score", tmp_path / "empty", "--detector", part), "holds no image"),
        (("score", place / "new", "--detector", weights), "no fitted detector"),
    ):
        with pytest.raises(VisaError, match=sentence):
            run(*arguments)


def test_an_overlay_leaves_what_is_normal_as_it_was():
    pixels = torch.full((3, 20, 30), 100, dtype=torch.uint8)
    heat = np.zeros((10, 15), np.float32)
    heat[:, 10:] = 5
    shown = overlay(pixels, heat, 1.0, 2.0)
    assert (shown[:, :15] == 100).all()
    assert shown[10, 28, 0] > shown[10, 28, 2] + 20  # red


def test_batches_hold_every_file_once_in_order(place):
    files = image_files(place / "good")
    batches = ImageBatches(files, (224, 448), torch.device("cpu"))
    sizes = [len(b) for b in batches]
    assert sizes == [8, 8, 4]
    assert len(batches) == 3
    read = [p for pictures in read_ahead(files, (224, 448)) for p in pictures]
    assert [p.path for p in read] == files
    assert as_batch(read[:2], torch.device("cpu")).equal(next(iter(batches))[:2])
