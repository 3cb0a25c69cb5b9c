import hashlib
import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.prepare import Summary, prepare
from visa.errors import VisaError

TREES = {
    "1cls": {
        "train/good": ["000.JPG", "001.JPG"],
        "test/good": ["002.JPG", "003.JPG"],
        "test/bad": ["000.JPG", "001.JPG", "002.JPG"],
        "ground_truth/bad": ["000.png", "001.png", "002.png"],
    },
    "2cls_highshot": {
        "train/good": ["000.JPG", "001.JPG"],
        "train/bad": ["000.JPG"],
        "test/good": ["002.JPG", "003.JPG"],
        "test/bad": ["001.JPG", "002.JPG"],
        "ground_truth/train/bad": ["000.png"],
        "ground_truth/test/bad": ["001.png", "002.png"],
    },
}
TREES["2cls_fewshot"] = TREES["2cls_highshot"]


def run(root: Path, save: Path, setup: str = "1cls", **options: object) -> Summary:
    return prepare(setup, root, save, root / "split_csv" / f"{setup}.csv", **options)


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def leaves(folder: Path) -> dict[str, list[str]]:
    """The files of each innermost folder."""
    walked = [(Path(top), subs, names) for top, subs, names in os.walk(folder)]
    return {top.relative_to(folder).as_posix(): sorted(names) for top, subs, names in walked if not subs}


@pytest.fixture
def save(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


@pytest.mark.parametrize("setup", SPLIT_TYPES)
def test_the_tree_is_the_reference_scripts(tiny_root, save, setup):
    summary = run(tiny_root, save, setup)
    assert summary == Summary(save / setup, ("fryum",), ("candle",), written=10, kept=0)
    assert leaves(save / setup / "fryum") == TREES[setup]
    assert sorted(p.name for p in (save / setup).iterdir()) == sorted(OBJECTS)
    assert leaves(save / setup / "pcb1") == {leaf: [] for leaf in TREES[setup]}


@pytest.mark.parametrize("link", [True, False, "refused"])
def test_images_keep_their_bytes_and_masks_become_0_and_255(tiny_root, save, link, monkeypatch):
    if link == "refused":
        monkeypatch.setattr(Path, "hardlink_to", Mock(side_effect=OSError("no links here")))
    folder = run(tiny_root, save, link=bool(link)).folder / "fryum"
    data = tiny_root / "fryum/Data"
    for source, target in [("Images/Normal/002.JPG", "test/good"), ("Images/Anomaly/001.JPG", "test/bad")]:
        made = folder / target / Path(source).name
        assert made.read_bytes() == (data / source).read_bytes()
        assert made.samefile(data / source) == (link is True)
    for mask in (data / "Masks/Anomaly").iterdir():
        expected = np.where(np.array(Image.open(mask)) > 0, 255, 0)
        with Image.open(folder / "ground_truth/bad" / mask.name) as made:
            assert made.mode == "L" and np.array_equal(np.array(made), expected)


@pytest.mark.parametrize("link", [True, False])
def test_a_second_run_writes_only_what_changed(tiny_root, save, link):
    run(tiny_root, save, link=link)
    before = {p: p.stat().st_ctime_ns for p in files(save)}
    assert run(tiny_root, save, link=link).written == 0
    assert {p: p.stat().st_ctime_ns for p in files(save)} == before
    mask = tiny_root / "fryum/Data/Masks/Anomaly/000.png"
    Image.new("L", (12, 8), 3).save(mask)
    os.utime(mask, ns=(0, 0))
    (save / "1cls/fryum/test/bad/001.JPG").unlink()
    assert run(tiny_root, save, link=link).written == 2
    with Image.open(save / "1cls/fryum/ground_truth/bad/000.png") as made:
        assert made.getextrema() == (255, 255)
    assert run(tiny_root, save, link=False).written == (7 if link else 0), "links become copies, the three masks stay"
    (save / "1cls/fryum/train/good/000.JPG").write_bytes(b"edited")
    assert (tiny_root / "fryum/Data/Images/Normal/000.JPG").read_bytes() != b"edited"


def test_a_missing_file_is_named_before_anything_is_written_and_a_broken_mask_leaves_no_half(tiny_root, save):
    mask = tiny_root / "fryum/Data/Masks/Anomaly/002.png"
    mask.unlink()
    with pytest.raises(VisaError, match=r"Masks/Anomaly/002\.png is missing"):
        run(tiny_root, save)
    assert not save.exists()
    mask.write_bytes(b"no image")
    with pytest.raises(VisaError, match=r"002\.png cannot be decoded"):
        run(tiny_root, save)
    assert not [p for p in files(save) if p.name.startswith(".") or p.name == "002.png"]


def test_wrong_choices_are_told_and_chosen_objects_are_prepared_only(tiny_root, save):
    with pytest.raises(VisaError, match="Did you mean 'fryum'"):
        run(tiny_root, save, objects=["fryumm"])
    with pytest.raises(VisaError, match="an anomaly for training, which 1cls lacks"):
        prepare("1cls", tiny_root, save, tiny_root / "split_csv/2cls_highshot.csv")
    assert not save.exists()
    summary = run(tiny_root, save, objects=["fryum"])
    assert (summary.objects, summary.absent, [p.name for p in summary.folder.iterdir()]) == (("fryum",), (), ["fryum"])
    (summary.folder / "fryum/train/good/777.JPG").touch()  # of another split
    with pytest.raises(VisaError, match=r"train/good/777\.JPG is not in the split file"):
        run(tiny_root, save)


@pytest.mark.real
@pytest.mark.parametrize("setup", SPLIT_TYPES)
@pytest.mark.parametrize(("name", "prefix"), [("fryum", ""), ("macaroni1", "macaroni1_")])
def test_a_real_object_becomes_the_recorded_tree(real_root, reference, save, name, prefix, setup):
    if not (real_root / name).is_dir():
        pytest.skip(f"{name} is not there")
    lines = (reference / f"{prefix}prepare_{setup}.sha256").read_text().splitlines()
    recorded = {file: digest for digest, file in (line.split(maxsplit=1) for line in lines)}
    folder = run(real_root, save, setup, objects=[name]).folder
    made = {p.relative_to(folder).as_posix(): p for p in files(folder)}
    assert made.keys() == recorded.keys()
    for file, path in made.items():
        assert "ground_truth" in file or hashlib.sha256(path.read_bytes()).hexdigest() == recorded[file]
