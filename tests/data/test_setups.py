"""The paper's setups: what each trains on and is judged by, and that the two never meet."""

import json
from dataclasses import asdict, replace

import pytest
from PIL import Image

from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.setups import SPLIT_TYPE, clean_normals, load_splits, obstacle, save_splits, splits
from visa.data.source import Source, open_source
from visa.data.splits import select
from visa.errors import VisaError

CLEAN_COUNTS = {"pcb1": 179, "pcb2": 178, "pcb3": 180, "pcb4": 181, "capsules": 111, "candle": 176, "macaroni1": 176}
CLEAN_COUNTS |= {"macaroni2": 176, "cashew": 89, "chewinggum": 89, "fryum": 89, "pipe_fryum": 89}


def row(object, split, label, number):
    mask = f"{object}/masks/{number}.png" if label == "anomaly" else ""
    return f"{object},{split},{label},{object}/{split}/{label}/{number}.JPG,{mask}"


@pytest.fixture
def source(tmp_path):
    """A root whose split files name 30 normal and 12 anomalous training images of fryum, and 7 and 6 of pcb1."""
    (tmp_path / "split_csv").mkdir()
    counts = {"fryum": {"train": (30, 12), "test": (50, 20)}, "pcb1": {"train": (7, 6), "test": (4, 4)}}
    for name in ("1cls", "2cls_highshot", "2cls_fewshot"):
        lines = ["object,split,label,image,mask"]
        for object, parts in counts.items():
            (tmp_path / object).mkdir(exist_ok=True)
            for split, numbers in parts.items():
                for label, number in zip(("normal", "anomaly"), numbers, strict=True):
                    kept = 0 if (name, split, label) == ("1cls", "train", "anomaly") else number
                    lines += [row(object, split, label, i) for i in range(kept)]
        (tmp_path / "split_csv" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return open_source(str(tmp_path))


def test_official_setups_are_the_split_files_one_each(source):
    for setup, anomalies in (("1cls", 0), ("2cls_highshot", 12)):
        (split,) = splits(source, "fryum", setup)
        assert (split.setup, split.object, split.draw) == (setup, "fryum", 0)
        assert list(split.train) == source.samples(setup, object="fryum", split="train")
        assert list(split.test) == source.samples(setup, object="fryum", split="test")
        assert len(select(split.train, label="anomaly")) == anomalies


@pytest.mark.parametrize("k", [10, 5])
def test_draws_hold_k_training_images_of_each_class_and_the_whole_test_part(source, k):
    setup = f"2cls_{k}shot"
    drawn = splits(source, "fryum", setup, draws=4)
    assert [s.draw for s in drawn] == [0, 1, 2, 3]
    for split in drawn:
        assert [len(select(split.train, split="train", label=label)) for label in ("normal", "anomaly")] == [k, k]
        assert len({s.image for s in split.train}) == 2 * k
        assert list(split.test) == source.samples("2cls_fewshot", object="fryum", split="test")
    assert len({split.train for split in drawn}) == 4


def test_draws_follow_from_the_seed_stay_when_more_are_asked_for_and_can_be_saved(source, tmp_path):
    five = splits(source, "fryum", "2cls_5shot", draws=5, seed=1)
    assert five[:2] == splits(source, "fryum", "2cls_5shot", draws=2, seed=1)
    assert five[0].train != splits(source, "fryum", "2cls_5shot", seed=2)[0].train
    save_splits(tmp_path / "new" / "splits.json", five)
    assert load_splits(tmp_path / "new" / "splits.json") == five


def test_clean_normals_are_training_images_of_every_setup(source, mini_root):
    assert [len(clean_normals(source, name)) for name in source.objects] == [30, 7]
    file = source.root / "split_csv" / "2cls_fewshot.csv"
    file.write_text(
        file.read_text().replace("fryum,train,normal,fryum/train/normal/3.", "fryum,test,normal,fryum/train/normal/3.")
    )
    assert len(clean_normals(open_source(str(source.root)), "fryum")) == 29
    few, high, one = (
        {s.image for s in open_source(str(mini_root)).samples(split_type, "fryum", "train", "normal")}
        for split_type in ("2cls_fewshot", "2cls_highshot", "1cls")
    )
    assert few < high < one, "mini-VisA's splits nest"
    assert {s.image for s in clean_normals(open_source(str(mini_root)), "fryum")} == few


@pytest.mark.real
def test_clean_normals_of_all_twelve_objects_on_the_official_split_files(real_root):
    source = Source(real_root, "VisA", False, tuple(OBJECTS))
    clean = {name: {s.image for s in clean_normals(source, name)} for name in OBJECTS}
    for name, images in clean.items():
        tested = {s.image for t in SPLIT_TYPES for s in source.samples(t, name, split="test")}
        assert images and not images & tested
    assert {name: len(images) for name, images in clean.items()} == CLEAN_COUNTS
    train, test = (
        {t: {s.image for s in source.samples(t, "fryum", part, "normal")} for t in SPLIT_TYPES}
        for part in ("train", "test")
    )
    assert [len(train["1cls"] & test[t]) for t in ("2cls_highshot", "2cls_fewshot")] == [178, 361], "book/data.md"
    assert train["2cls_fewshot"] < train["2cls_highshot"]
    photographs = [f for name in ("fryum", "macaroni1") for f in (real_root / name / "Data/Images").rglob("*.JPG")]
    assert {Image.open(file).size for file in photographs} == {(1500, 1000)}, "book/data.md"


def test_an_image_in_both_parts_is_refused_also_in_a_file(source, tmp_path):
    (split,) = splits(source, "fryum", "2cls_highshot")
    with pytest.raises(VisaError, match=r"fryum/test/normal/0\.JPG is in training and in test"):
        replace(split, train=(*split.train, split.test[0]))
    both = asdict(split) | {"test": [asdict(split.train[0])]}
    (tmp_path / "splits.json").write_text(json.dumps([both]))
    with pytest.raises(VisaError, match="in training and in test"):
        load_splits(tmp_path / "splits.json")


def test_too_few_images_are_told_with_what_is_needed(source):
    assert [obstacle(source, "pcb1", s) for s in ("1cls", "2cls_highshot", "2cls_5shot")] == ["", "", ""]
    with pytest.raises(VisaError, match="7 normal and 6 anomalous training images: 2cls_10shot needs 10 of each"):
        splits(source, "pcb1", "2cls_10shot")


@pytest.mark.parametrize(
    ("setup", "gone", "sentence"),
    [
        ("2cls_highshot", "fryum,test,anomaly", "fryum has no anomalous test image: nothing can be measured"),
        ("2cls_5shot", "fryum,test,normal", "fryum has no normal test image"),
        ("1cls", "fryum,train", "0 normal training images: 1cls needs 2"),
        ("1cls", "", "1 anomalous training images, but 1cls trains on normal ones"),
    ],
)
def test_an_unfit_split_is_told_before_anything_is_trained(source, setup, gone, sentence):
    path = source.root / "split_csv" / f"{SPLIT_TYPE[setup]}.csv"
    kept = [line for line in path.read_text().splitlines() if not (gone and line.startswith(gone))]
    path.write_text("\n".join([*kept, *([] if gone else [row("fryum", "train", "anomaly", 0)])]) + "\n")
    assert sentence in obstacle(open_source(str(source.root)), "fryum", setup)


def test_a_file_that_holds_no_splits_is_told_in_one_sentence(tmp_path):
    with pytest.raises(VisaError, match="no splits at"):
        load_splits(tmp_path / "absent.json")
    for content in ("nothing", "[1]", '[{"setup": "1cls"}]', "{}x"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(VisaError, match="holds no splits"):
            load_splits(tmp_path / "bad.json")
