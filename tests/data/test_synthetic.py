"""Mini-VisA has VisA's layout, says what it shows, and comes out the same every time."""

import csv
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.splits import read_split, select, split_file
from visa.data.synthetic import DEFAULT_OBJECTS, classes_of, render, write_mini_visa, writer
from visa.errors import VisaError

NORMAL, ANOMALY, SIZE = 15, 10, 64
SETTINGS = {"objects": ("cashew", "pcb1"), "normal": NORMAL, "anomaly": ANOMALY, "size": SIZE, "seed": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_mini_visa(tmp_path_factory.mktemp("data") / "mini", workers=1, **SETTINGS)


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_files_bear_the_names_of_visa(root):
    expected = {"dataset.json", *(f"split_csv/{s}.csv" for s in SPLIT_TYPES)}
    for name in SETTINGS["objects"]:
        expected.add(f"{name}/image_anno.csv")
        expected |= {f"{name}/Data/Images/Normal/{i:03d}.JPG" for i in range(NORMAL)}
        expected |= {f"{name}/Data/Images/Anomaly/{i:03d}.JPG" for i in range(ANOMALY)}
        expected |= {f"{name}/Data/Masks/Anomaly/{i:03d}.png" for i in range(ANOMALY)}
    assert set(contents(root)) == expected
    assert [p.name for p in root.parent.iterdir()] == [root.name]


def test_annotations_agree_with_the_masks(root):
    for name in SETTINGS["objects"]:
        table = rows(root / name / "image_anno.csv")
        assert list(table[0]) == ["image", "label", "mask"]
        assert len(table) == NORMAL + ANOMALY
        for row in table:
            assert PIL.Image.open(root / row["image"]).size == (SIZE, SIZE)
            if row["label"] == "normal":
                assert not row["mask"]
                continue
            mask = PIL.Image.open(root / row["mask"])
            assert (mask.mode, mask.size) == ("L", (SIZE, SIZE))
            ids = [OBJECTS[name].classes.index(c) + 1 for c in row["label"].split(",")]
            assert ids == sorted(ids)
            assert np.unique(np.asarray(mask)).tolist() == [0, *ids]


def test_splits_cover_everything_once_in_the_stated_shares(root):
    shares = {"1cls": (10, 0), "2cls_highshot": (9, 6), "2cls_fewshot": (7, 5)}  # of 15 normal and 10 anomalous
    for setup, (normal, anomaly) in shares.items():
        samples = read_split(split_file(root, setup))  # refuses an image that stands there twice
        for name in SETTINGS["objects"]:
            mine = select(samples, object=name)
            assert {s.image for s in mine} == {r["image"] for r in rows(root / name / "image_anno.csv")}
            assert all((root / s.mask).is_file() if s.label == "anomaly" else not s.mask for s in mine)
            assert len(select(mine, split="train", label="normal")) == normal
            assert len(select(mine, split="train", label="anomaly")) == anomaly
        assert json.loads((root / "dataset.json").read_text())["training_images_an_object"][setup] == {
            "normal": normal,
            "anomaly": anomaly,
        }


def test_few_shot_training_has_ten_of_each_label_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_write_image", lambda job: None)
    root = write_mini_visa(tmp_path / "mini", objects=["fryum"], workers=1)
    train = select(read_split(split_file(root, "2cls_fewshot")), split="train")
    assert (len(select(train, label="normal")), len(select(train, label="anomaly"))) == (18, 10)


def test_files_say_that_they_are_synthetic(root):
    info = json.loads((root / "dataset.json").read_text())
    assert (info["name"], info["synthetic"], info["seed"], info["size"]) == ("mini-VisA", True, 3, SIZE)
    picture = PIL.Image.open(root / "pcb1/Data/Images/Anomaly/000.JPG")
    assert "synthetic" in picture.getexif()[0x010E]
    assert b"synthetic" in picture.info["comment"]
    assert "synthetic" in PIL.Image.open(root / "pcb1/Data/Masks/Anomaly/000.png").text["Description"]


def test_any_number_of_processes_writes_the_same_bytes(root, tmp_path):
    again = write_mini_visa(tmp_path / "again", workers=2, **SETTINGS)
    assert contents(again) == contents(root)
    assert not multiprocessing.active_children()


def test_a_script_without_a_main_guard_still_gets_its_data(tmp_path):
    script = tmp_path / "script.py"
    settings = "objects=['cashew'], normal=3, anomaly=2, size=64, workers=2"
    script.write_text(
        f"from visa.data.synthetic import *\nfrom pathlib import Path\n"
        f"write_mini_visa(Path({str(tmp_path / 'mini')!r}), {settings})\n"
    )
    run = subprocess.run(
        [sys.executable, script],
        cwd=Path(writer.__file__).parents[3],
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0
    assert "__main__" in run.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mini", "script.py"]


def test_a_picture_depends_on_its_own_numbers_alone():
    first, mask = render("fryum", "Anomaly", 4, seed=1, size=SIZE)
    render("fryum", "Normal", 9, seed=1, size=SIZE)
    again, mask_again = render("fryum", "Anomaly", 4, seed=1, size=SIZE)
    assert np.array_equal(first, again)
    assert np.array_equal(mask, mask_again)
    for other in ({"seed": 2}, {"index": 5}, {"kind": "Normal"}, {"difficulty": 3.0}):
        changed, _ = render(**{"name": "fryum", "kind": "Anomaly", "index": 4, "seed": 1, "size": SIZE} | other)
        assert not np.array_equal(first, changed)


@pytest.mark.parametrize("name", DEFAULT_OBJECTS)
def test_every_class_changes_the_picture_where_its_mask_says(name):
    for class_id, defect in enumerate(OBJECTS[name].classes, start=1):
        inside = outside = 0.0
        for index in range(3):
            clean, nothing = render(name, "Anomaly", index, size=128, defects=())
            spoilt, mask = render(name, "Anomaly", index, size=128, defects=(defect,))
            assert not nothing.any()
            assert np.unique(mask).tolist() == [0, class_id]
            change = np.abs(spoilt.astype(float) - clean).mean(axis=2)
            reach = cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0  # shadow and blur pass the edge a little
            inside += change[mask > 0].mean()
            outside += (change[~reach] > 12).mean()
        assert inside / 3 > 4, defect
        assert outside / 3 < 0.002, defect


@pytest.mark.parametrize("name", DEFAULT_OBJECTS)
def test_classes_take_turns(name):
    classes = OBJECTS[name].classes
    chosen = [classes_of(name, i) for i in range(60)]
    assert {c for pick in chosen[: len(classes)] for c in pick} == set(classes)
    assert {len(pick) for pick in chosen} == {1, 2}
    assert len({classes_of(name, i, seed) for i in range(3) for seed in range(9)}) > 3


def test_normal_pictures_vary_but_little():
    pictures = [render("capsules", "Normal", i, size=SIZE)[0].astype(float) for i in range(4)]
    assert all(not render("capsules", "Normal", i, size=SIZE)[1].any() for i in range(2))
    between = np.mean([np.abs(p - pictures[0]).mean() for p in pictures[1:]])
    assert 1 < between < 25
    assert all(40 < p.mean() < 220 for p in pictures)


def test_mistakes_are_named(tmp_path):
    for wrong in ({"objects": ["cashw"]}, {"objects": []}, {"normal": 1}, {"size": 8}, {"difficulty": 0}):
        with pytest.raises(VisaError) as error:
            write_mini_visa(tmp_path / "mini", **wrong)
        assert "cashw" not in str(wrong) or "'cashew'" in str(error.value)
    with pytest.raises(VisaError, match="burnt"):
        render("cashew", "Anomaly", 0, size=SIZE, defects=("burned",))
    with pytest.raises(VisaError, match="Normal"):
        render("cashew", "normal", 0, size=SIZE)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_an_interrupted_run(tmp_path, monkeypatch):
    done = []

    def interrupted(job):
        done.append(job)
        if len(done) > 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_mini_visa(tmp_path / "mini", workers=1, **SETTINGS)
    assert len(done) == 4
    assert not list(tmp_path.iterdir())


def test_a_finished_set_is_kept_and_another_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_write_image", lambda job: None)
    root = write_mini_visa(tmp_path / "mini", workers=1, **SETTINGS)
    (root / "seen").touch()
    assert write_mini_visa(root, workers=1, **SETTINGS) == root
    assert (root / "seen").exists()
    write_mini_visa(root, workers=1, **SETTINGS | {"seed": 4})
    assert not (root / "seen").exists()
    assert json.loads((root / "dataset.json").read_text())["seed"] == 4
    assert [p.name for p in tmp_path.iterdir()] == ["mini"]


def test_whoever_finishes_second_keeps_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_write_image", lambda job: None)
    write_tables = writer._write_tables

    def overtaken(new, settings):
        monkeypatch.setattr(writer, "_write_tables", write_tables)
        write_mini_visa(tmp_path / "mini", workers=1, **SETTINGS)
        (tmp_path / "mini" / "first").touch()
        write_tables(new, settings)

    monkeypatch.setattr(writer, "_write_tables", overtaken)
    root = write_mini_visa(tmp_path / "mini", workers=1, **SETTINGS)
    assert (root / "first").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["mini"]


def test_what_is_no_mini_visa_is_not_touched(tmp_path):
    (tmp_path / "fryum").mkdir()
    with pytest.raises(VisaError, match="no mini-VisA"):
        write_mini_visa(tmp_path, workers=1, **SETTINGS)
    assert [p.name for p in Path(tmp_path).iterdir()] == ["fryum"]
