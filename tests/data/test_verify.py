from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visa.data.verify import ObjectReport, verify

MASK = "fryum/Data/Masks/Anomaly/000.png"
IMAGE = "fryum/Data/Images/Anomaly/000.JPG"


def fryum(root: Path) -> ObjectReport:
    (report,) = verify(root, ["fryum"])
    return report


def paint(root: Path, class_id: int, shape: tuple[int, int] = (8, 12)) -> None:
    Image.fromarray(np.full(shape, class_id, np.uint8)).save(root / MASK)


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_sound_object_an_absent_one_and_counts_which_are_compared_for_photographs_only(tiny_root):
    candle, sound = verify(tiny_root)
    assert (candle.object, candle.absent, candle.ok) == ("candle", True, False)
    assert sound == ObjectReport("fryum", normal=4, anomaly=3) and sound.ok
    (tiny_root / "dataset.json").write_text('{"synthetic": false}')
    told = ["4 normal images, the paper counts 500", "3 anomaly images, the paper counts 100"]
    assert fryum(tiny_root).errors == told


@pytest.mark.parametrize("file", [IMAGE, MASK, "fryum/Data/Images/Normal/003.JPG"])
def test_missing_and_broken_files_are_named(tiny_root, file):
    path = tiny_root / file
    path.write_bytes(path.read_bytes()[:45])
    broken = fryum(tiny_root).errors
    path.unlink()
    for (error,) in (broken, fryum(tiny_root).errors):
        assert file in error


@pytest.mark.parametrize(
    ("class_id", "shape", "told"),
    [
        (1, (12, 8), "is (12, 8), its image"),
        (9, (8, 12), "holds the class id 9; fryum has 1 to 8"),
        (0, (8, 12), "marks 0 classes, but image_anno.csv says anomaly"),
    ],
)
def test_a_wrong_mask_is_an_error(tiny_root, class_id, shape, told):
    paint(tiny_root, class_id, shape)
    (error,) = fryum(tiny_root).errors
    assert MASK in error and told in error


def test_another_class_than_annotated_is_a_warning_and_a_label_may_name_several(tiny_root):
    paint(tiny_root, 3)
    assert fryum(tiny_root).ok
    assert fryum(tiny_root).warnings == [f"{MASK} marks different colour spot; image_anno.csv says burnt"]
    edit(tiny_root / "fryum/image_anno.csv", ",burnt,", ',"burnt, other",')
    mask = np.zeros((8, 12), np.uint8)
    mask[0], mask[1] = 1, 8
    Image.fromarray(mask).save(tiny_root / MASK)
    assert fryum(tiny_root) == ObjectReport("fryum", normal=4, anomaly=3)


def test_splits_annotations_masks_and_files_must_agree(tiny_root):
    (tiny_root / "fryum/Data/Images/Normal/777.JPG").write_bytes(b"")
    assert fryum(tiny_root).ok
    assert fryum(tiny_root).warnings == ["fryum/Data/Images/Normal/777.JPG is not in image_anno.csv"]
    edit(tiny_root / "fryum/image_anno.csv", f",burnt,{MASK}", ",burnt,")
    edit(tiny_root / "fryum/image_anno.csv", "Normal/003.JPG,normal,", f"Normal/003.JPG,normal,{MASK}")
    edit(tiny_root / "split_csv/1cls.csv", "fryum,train,normal,fryum/Data/Images/Normal/000.JPG,\n", "")
    edit(tiny_root / "split_csv/2cls_fewshot.csv", "Normal/001.JPG", "Normal/009.JPG")
    edit(tiny_root / "split_csv/2cls_highshot.csv", "Masks/Anomaly/001.png", "Masks/Anomaly/004.png")
    errors = "\n".join(fryum(tiny_root).errors)
    assert "fryum/Data/Images/Normal/000.JPG is in image_anno.csv but not in 1cls.csv" in errors
    assert "fryum/Data/Images/Normal/009.JPG is in 2cls_fewshot.csv but not in image_anno.csv" in errors
    assert "fryum/Data/Images/Anomaly/001.JPG: 2cls_highshot.csv says" in errors
    assert f"{IMAGE} is labelled burnt but has no mask" in errors
    assert f"{MASK} marks 1 classes, but image_anno.csv says normal" in errors
    (tiny_root / "fryum/image_anno.csv").unlink()
    assert "no annotations at" in fryum(tiny_root).errors[0]


@pytest.mark.real
def test_real_fryum_is_sound(real_root):
    assert verify(real_root, ["fryum"]) == [ObjectReport("fryum", normal=500, anomaly=100)]
