from collections import Counter

import pytest

from visa.data.objects import OBJECTS, SPLIT_TYPES
from visa.data.splits import is_synthetic, read_split, split_file
from visa.errors import VisaError

HEADER = "object,split,label,image,mask\n"
NORMAL = "fryum,train,normal,fryum/a.JPG,\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("object,split,label,image\n", "lacks the columns mask"),
        (HEADER + "fryum,trian,normal,fryum/a.JPG,\n", "Did you mean 'train'"),
        (HEADER + "fryum,test,bad,fryum/a.JPG,fryum/a.png\n", "normal, anomaly"),
        (HEADER + "fryum,train,normal,/etc/passwd,\n", "leaves the data set"),
        (HEADER + "fryum,test,anomaly,fryum/a.JPG,../a.png\n", "leaves the data set"),
        (HEADER + "fryum,train,normal,fryum/./a.JPG,\n", "not a plain path: write 'fryum/a.JPG'"),
        (HEADER, "names no image"),
        ("object," + HEADER + "fryum," + NORMAL, "column object twice"),
        (HEADER + "fryum,train,normal,fryum/a\0.JPG,\n", "control character"),
        (HEADER + 'fryum,train,normal,"fryum/a.JPG,\n' + NORMAL, "control character"),
        (HEADER + f"fryum,train,normal,{'x' * 200_000},\n", "field larger than field limit"),
        (HEADER + ",,,,\n", "cannot be called ''"),
        (HEADER + f"{'x' * 61},train,normal,x/a.JPG,\n", "at most 60 letters"),
        (HEADER + NORMAL + NORMAL, "line 3: fryum/a.JPG is listed twice"),
        (HEADER + "fryum,test,normal,fryum/a.JPG,fryum/a.png\n", "a mask only if its label is anomaly"),
        (HEADER + "all,test,normal,fryum/a.JPG,\n", "cannot be called 'all'"),
    ],
)
def test_a_wrong_split_file_is_told_in_one_sentence(tmp_path, text, told):
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    with pytest.raises(VisaError, match=told):
        read_split(tmp_path / "split.csv")


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\n"])
def test_any_end_of_line_and_a_byte_order_mark_will_do_and_an_anomaly_may_lack_its_mask(tmp_path, end):
    text = ("\ufeff" + HEADER + NORMAL + "Schraube ü,test,anomaly,s/ä.png,\n").replace("\n", end)
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    found = [(s.object, s.image, s.mask) for s in read_split(tmp_path / "split.csv")]
    assert found == [("fryum", "fryum/a.JPG", ""), ("Schraube ü", "s/ä.png", "")]


def test_a_missing_file_another_encoding_and_an_unknown_setup_are_told(tmp_path):
    (tmp_path / "split.csv").write_bytes((HEADER + "fryum,train,normal,fryum/é.JPG,\n").encode("latin-1"))
    with pytest.raises(VisaError, match=r"split\.csv is not a CSV file in UTF-8"):
        read_split(tmp_path / "split.csv")
    with pytest.raises(VisaError, match="no split file"):
        read_split(split_file(tmp_path, "1cls"))
    with pytest.raises(VisaError, match="2cls_highshot"):
        split_file(tmp_path, "2cls")


@pytest.mark.real
@pytest.mark.parametrize(
    ("setup", "sizes"),  # normal images for training and test, anomalous ones for training and test
    zip(SPLIT_TYPES, [(8659, 962, 0, 1200), (5773, 3848, 720, 480), (1924, 7697, 240, 960)], strict=True),
)
def test_official_split_files_have_the_published_sizes(real_root, setup, sizes):
    samples = read_split(split_file(real_root, setup))
    found = Counter((s.label, s.split) for s in samples)
    assert tuple(found[label, split] for label in ("normal", "anomaly") for split in ("train", "test")) == sizes
    counts = Counter((s.object, s.label) for s in samples)
    for o in OBJECTS.values():
        assert (counts[o.id, "normal"], counts[o.id, "anomaly"]) == (o.normal, o.anomaly)


def test_only_what_says_so_is_synthetic_and_a_broken_description_is_named(tmp_path):
    assert not is_synthetic(tmp_path)
    for text in ("{bad", "[1]", '{"synthetic": "no"}'):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(VisaError, match=r"dataset\.json is not"):
            is_synthetic(tmp_path)
    (tmp_path / "dataset.json").write_text('{"name": "mini-VisA", "synthetic": true}')
    assert is_synthetic(tmp_path)
