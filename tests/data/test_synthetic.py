"""Mini-VisA has VisA's layout, says what it shows, and comes out the same every time."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import PIL.Image
import pytest

from visa.cli import app
from visa.data import layouts
from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.source import open_source
from visa.data.splits import read_split, select, split_file
from visa.data.verify import ObjectReport, verify
from visa.errors import VisaError
from visa.mini import MODULES, classes_of, objects, render, scene, write_mini_visa, writer
from visa.mini.scene import KINDS, VISA_COUNTS
from visa.mini.writer import TRAINING_SHARES, VERSION, Settings

WASHER = Path(writer.__file__).parents[2] / "book/examples/washer.py"
NORMAL, ANOMALY, SIZE = 15, 10, 64
SETTINGS = {"objects": ("cashew", "pcb1"), "normal": NORMAL, "anomaly": ANOMALY, "size": SIZE, "seed": 3}
CHECKSUMS = Path(__file__).with_name("mini_visa_checksums.json")


def checksums():
    """Of each object's pixels before encoding, and of its masks."""
    found = {}
    for name in MODULES:
        drawn = [part for kind in KINDS for k in range(3) for part in render(name, kind, k, seed=5, size=SIZE)]
        found[name] = hashlib.sha256(np.concatenate([part.ravel() for part in drawn])).hexdigest()
    return found


def made_with():
    return {"opencv": cv2.__version__, "numpy": np.__version__, "cpu": cv2.getCPUFeaturesLine()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_mini_visa(tmp_path_factory.mktemp("data") / "mini", workers=1, **SETTINGS)


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_files_bear_the_names_of_visa_agree_and_have_the_stated_splits(root):
    expected = {"dataset.json", *(f"split_csv/{s}.csv" for s in SPLIT_TYPES)}
    for name in SETTINGS["objects"]:
        expected.add(f"{name}/image_anno.csv")
        expected |= {f"{name}/Data/Images/Normal/{i:03d}.JPG" for i in range(NORMAL)}
        expected |= {f"{name}/Data/Images/Anomaly/{i:03d}.JPG" for i in range(ANOMALY)}
        expected |= {f"{name}/Data/Masks/Anomaly/{i:03d}.png" for i in range(ANOMALY)}
    assert set(contents(root)) == expected
    assert visible(root.parent) == [root.name]
    assert verify(root) == [ObjectReport(name, normal=NORMAL, anomaly=ANOMALY) for name in ("pcb1", "cashew")]
    shares = {"1cls": (10, 0), "2cls_highshot": (9, 6), "2cls_fewshot": (8, 5)}  # of 15 normal and 10 anomalous
    for setup, (normal, anomaly) in shares.items():
        for name in SETTINGS["objects"]:
            train = select(read_split(split_file(root, setup)), object=name, split="train")
            assert [len(select(train, label=label)) for label in ("normal", "anomaly")] == [normal, anomaly]


def test_the_command_renders_every_object_and_says_that_it_is_synthetic(tmp_path):
    few = ["--normal", "3", "--anomaly", "2", "--size", str(SIZE), "--workers", "1"]
    app(["synth", str(tmp_path / "mini"), *few], standalone_mode=False)
    source = open_source(str(tmp_path / "mini"))
    assert (source.name, source.synthetic, source.objects) == ("mini-VisA", True, tuple(OBJECTS))
    pictures = [PIL.Image.open(file) for file in source.root.glob("*/Data/Images/*/*.JPG")]
    assert len(pictures) == 5 * len(OBJECTS)
    assert all("synthetic" in p.getexif()[0x010E] and b"synthetic" in p.info["comment"] for p in pictures)
    masks = source.root.glob("*/Data/Masks/Anomaly/*.png")
    assert all("synthetic" in PIL.Image.open(mask).text["Description"] for mask in masks)
    assert not any(report.errors for report in verify(source.root))


def test_any_number_of_processes_writes_the_same_bytes(root, tmp_path):
    again = write_mini_visa(tmp_path / "again", workers=2, **SETTINGS)
    assert contents(again) == contents(root)
    assert not multiprocessing.active_children()


def test_pixels_are_those_of_the_generators_version():
    """If they change, raise writer.VERSION; `python tests/data/test_synthetic.py` writes the new checksums."""
    recorded = json.loads(CHECKSUMS.read_text())
    assert recorded["version"] == VERSION
    if recorded["made_with"] != made_with():
        pytest.skip("other versions, or another processor, may round otherwise")
    assert checksums() == recorded["pixels"]


@pytest.mark.parametrize("name", MODULES)
def test_every_class_changes_the_picture_where_its_mask_says(name):
    for class_id, defect in enumerate(OBJECTS[name].classes, start=1):
        inside = outside = 0.0
        for index in range(2):
            clean, nothing = render(name, "Anomaly", index, size=128, defects=())
            spoilt, mask = render(name, "Anomaly", index, size=128, defects=(defect,))
            assert not nothing.any() and np.unique(mask).tolist() == [0, class_id]
            change = np.abs(spoilt.astype(float) - clean).mean(axis=2)
            reach = cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0  # shadow and blur pass the edge a little
            inside += change[mask > 0].mean()
            outside += (change[~reach] > 12).mean()
        assert inside / 2 > 4, defect
        assert outside / 2 < (0.004 if "stuck" in defect else 0.002), defect  # a second piece throws a shadow


@pytest.mark.parametrize("name", OBJECTS)
def test_classes_are_those_of_visa_in_the_order_of_their_ids_and_take_turns(name):
    classes = OBJECTS[name].classes
    assert tuple(MODULES[name].DEFECTS) == classes
    chosen = [classes_of(name, i) for i in range(60)]
    assert {c for pick in chosen[: len(classes)] for c in pick} == set(classes)
    assert {len(pick) for pick in chosen} == {1, 2}
    assert len({classes_of(name, i, seed) for i in range(3) for seed in range(9)}) > 3


def test_a_thirteenth_object_is_one_file(tmp_path, monkeypatch):
    """The book's example: found by its name, rendered, opened under its own name and classes, and sound."""
    monkeypatch.setattr(objects, "__path__", [*objects.__path__, str(WASHER.parent)])
    found = scene.find_modules()
    assert list(found) == [*OBJECTS, "washer"]
    monkeypatch.setitem(MODULES, "washer", found["washer"])
    root = write_mini_visa(tmp_path / "mini", ["washer", "fryum"], 12, 8, SIZE, 0, 1)
    source = open_source(str(root))
    assert (source.name, source.synthetic, set(source.objects)) == ("mini-VisA", True, {"washer", "fryum"})
    assert set(sum(source.defects("washer").values(), ())) == {"rust", "scratch"}
    assert not any(report.errors for report in verify(root))
    with pytest.raises(ValueError, match="share of VisA's own numbers"):
        write_mini_visa(tmp_path / "other", ["washer"], scale=0.1)


def test_a_data_set_at_hand_is_rendered_object_by_object(monkeypatch):
    rendered = []
    monkeypatch.setattr(writer, "_write_image", lambda job: rendered.append(job[2]))
    monkeypatch.setattr(writer.os, "sched_getaffinity", lambda _: {0})  # no other process
    assert open_source("", ["pcb2"]).objects == ("pcb2",)
    before = open_source().fingerprint("pcb2")  # nothing is named: what is there is enough
    assert set(rendered) == {"pcb2"}
    source = open_source("", ["candle", "pcb2"])
    assert source.objects == ("pcb2", "candle") and rendered.count("pcb2") == 120
    assert source.fingerprint("pcb2") == before
    assert set(open_source("", ["all"]).objects) == set(MODULES)
    with pytest.raises(VisaError, match="Did you mean 'candle'"):
        open_source("", ["candel"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"objects": ["cashw"]}, "Did you mean 'cashew'"),
        ({"objects": []}, "needs an object"),
        ({"normal": 1}, "3 normal and 2 anomalous"),
        ({"size": 8}, "at least 64"),
        ({"difficulty": 0}, "difficulty above 0"),
        ({"scale": 1.5}, "share of VisA's own numbers"),
    ],
)
def test_mistakes_are_named_and_what_is_no_mini_visa_is_not_touched(tmp_path, wrong, told):
    with pytest.raises(ValueError, match=told):
        write_mini_visa(tmp_path / "mini", **wrong)
    assert not list(tmp_path.iterdir())
    (tmp_path / "fryum").mkdir()
    with pytest.raises(ValueError, match="not a mini-VisA"):
        write_mini_visa(tmp_path, workers=1, **SETTINGS)
    assert visible(tmp_path) == ["fryum"]
    for kind, defect, answer in (("Anomaly", "burned", "Did you mean 'burnt'"), ("normal", "burnt", "Normal")):
        with pytest.raises(ValueError, match=answer):
            render("cashew", kind, 0, size=SIZE, defects=(defect,))


def test_a_set_is_kept_objects_are_added_to_it_and_other_settings_replace_it(tmp_path):
    root = write_mini_visa(tmp_path / "mini", workers=1, **SETTINGS | {"objects": ["pcb1"]})
    before = contents(root)
    write_mini_visa(root, workers=1, **SETTINGS | {"objects": ["fryum", "capsules"]})
    after = contents(root)
    tables = {f"split_csv/{t}.csv" for t in SPLIT_TYPES}
    assert all(after[file] == before[file] for file in before if file not in tables)
    together = write_mini_visa(tmp_path / "at once", workers=1, **SETTINGS | {"objects": ["fryum", "pcb1", "capsules"]})
    assert contents(together) == after
    (root / "seen").touch()
    assert write_mini_visa(root, workers=1, **SETTINGS | {"objects": ["fryum"]}) == root and (root / "seen").exists()
    write_mini_visa(root, workers=1, **SETTINGS | {"objects": ["pcb1"], "seed": 4})
    assert not (root / "seen").exists() and json.loads((root / "dataset.json").read_text())["seed"] == 4
    assert visible(tmp_path) == ["at once", "mini"]


def test_a_process_killed_while_it_added_an_object_is_made_good(tmp_path, monkeypatch):
    root = write_mini_visa(tmp_path / "mini", workers=1, **SETTINGS | {"objects": ["pcb1"]})

    for step in ("_write_image", "write_splits"):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(writer, step, Mock(side_effect=SystemExit))
            write_mini_visa(root, workers=1, **SETTINGS | {"objects": ["fryum"]})
        assert visible(tmp_path) == ["mini"]
    (tmp_path / ".mini-left.new").mkdir()
    assert (root / "fryum").is_dir()
    assert writer.present(root, Settings(NORMAL, ANOMALY, 0.0, SIZE, 3)) == ["pcb1"]
    write_mini_visa(root, workers=1, **SETTINGS | {"objects": ["fryum"]})
    whole = write_mini_visa(tmp_path / "whole", workers=1, **SETTINGS | {"objects": ["pcb1", "fryum"]})
    assert contents(root) == contents(whole) and visible(tmp_path) == ["mini", "whole"]


@pytest.mark.slow
def test_two_scripts_without_a_main_guard_may_ask_for_the_same_root(tmp_path):
    script, root = tmp_path / "script.py", tmp_path / "mini"
    call = f"write_mini_visa(Path({str(root)!r}), sys.argv[1:], 15, 10, 64, 3, 2)"
    script.write_text(f"import sys\nfrom pathlib import Path\nfrom visa.mini import *\n{call}\n")
    options = {"env": os.environ | {"PYTHONPATH": str(Path(writer.__file__).parents[2])}, "stderr": subprocess.PIPE}
    asked = (["pcb1"], ["pcb1", "cashew"])
    running = [subprocess.Popen([sys.executable, script, *names], text=True, **options) for names in asked]
    assert "__main__" in "".join(process.communicate()[1] for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert contents(root) == contents(write_mini_visa(tmp_path / "alone", workers=1, **SETTINGS))
    assert visible(tmp_path) == ["alone", "mini", "script.py"]


def test_a_scale_has_that_share_of_the_numbers_and_splits_of_visa():
    assert {name: (o.normal, o.anomaly) for name, o in OBJECTS.items()} == VISA_COUNTS
    assert TRAINING_SHARES == layouts.TRAINING_SHARES
    whole, small = Settings(scale=1.0), Settings(scale=0.05)
    total = [np.sum([whole.training_counts(t, o) for o in OBJECTS], axis=0).tolist() for t in SPLIT_TYPES]
    assert total == [[8659, 0], [5773, 720], [1924, 240]]
    assert [whole.files(name, "Normal", 7)[0][-11:] for name in ("candle", "fryum")] == ["al/0007.JPG", "mal/007.JPG"]
    for name in OBJECTS:
        assert small.counts(name) == (round(0.05 * OBJECTS[name].normal), 5)
        for split_type in SPLIT_TYPES:
            left = np.subtract(small.counts(name), small.training_counts(split_type, name))
            assert left[0] >= 1 and left[1] >= 2
    assert Settings().training_counts("2cls_fewshot", "fryum") == (45, 10), "so that ten shots can be drawn"


if __name__ == "__main__":
    record = {"version": VERSION, "made_with": made_with(), "pixels": checksums()}
    CHECKSUMS.write_text(json.dumps(record, indent=1) + "\n")
