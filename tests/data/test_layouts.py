"""A user's own folders give the same rows, items and figures' limits as VisA's layout, without preparation."""

import json
import shutil
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from visa.data.dataset import VisaDataset, load_masks
from visa.data.layouts import find_parts
from visa.data.prepare import prepare, write_splits
from visa.data.source import mirrored, open_source
from visa.data.splits import select
from visa.data.verify import verify
from visa.errors import VisaError
from visa.paths import mirror_of, visa_root


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), "brown").save(path)


def mask(path: Path, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[2:4, 3:6] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """MVTec-AD's layout: bottle with 12 + 5 normal images, three cracks and two dents with masks."""
    root = tmp_path / "mvtec"
    for folder, count in {"train/good": 12, "test/good": 5, "test/crack": 3, "test/dent": 2}.items():
        for i in range(count):
            image(root / "bottle" / folder / f"{i:03}.png")
            if folder not in ("train/good", "test/good"):
                mask(root / "bottle/ground_truth" / folder.removeprefix("test/") / f"{i:03}_mask.png")
    (root / "readme.txt").write_text("licence")
    return root


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Plain folders: bolt with 20 normal images, 4 anomalies of which 2 have a mask; Nüsse with normal images alone."""
    root = tmp_path / "my parts"
    for i in range(20):
        image(root / "bolt/good" / f"{i:02}.JPG")
        image(root / "Nüsse/good" / f"ä {i}.bmp")
    for i in range(4):
        image(root / "bolt/bad" / f"{i:02}.JPG")
    mask(root / "bolt/masks/00.png")
    mask(root / "bolt/masks/01_mask.PNG")
    return root


def counts(rows: list) -> dict[str, int]:
    return dict(Counter(f"{s.split} {s.label}" for s in rows))


def test_mvtecs_folders_are_the_1cls_split(mvtec):
    before = set(mvtec.rglob("*"))
    source = open_source(str(mvtec))
    assert (source.name, source.objects, source.synthetic) == ("mvtec", ("bottle",), False)
    rows = source.samples("1cls", object="bottle")
    assert counts(rows) == {"train normal": 12, "test normal": 5, "test anomaly": 5}
    assert all(s.image.startswith("bottle/train/good/") for s in select(rows, split="train"))
    crack = next(s for s in rows if s.image == "bottle/test/crack/002.png")
    assert crack.mask == "bottle/ground_truth/crack/002_mask.png"
    assert source.defects("bottle")[crack.image] == ("crack",)
    assert len(source.defects("bottle")) == 5
    assert set(mvtec.rglob("*")) == before, "nothing is written into the user's folder"


def test_plain_folders_and_what_a_missing_mask_leaves_unknown(plain):
    source = open_source(str(plain))
    assert (source.name, source.objects) == ("my parts", ("Nüsse", "bolt"))
    assert counts(source.samples("1cls", "bolt")) == {"train normal": 15, "test normal": 5, "test anomaly": 4}
    assert counts(source.samples("1cls", "Nüsse")) == {"train normal": 15, "test normal": 5}
    assert source.defects("bolt") == {}
    bad = source.samples("1cls", "bolt", label="anomaly")
    assert [s.mask for s in bad] == ["bolt/masks/00.png", "bolt/masks/01_mask.PNG", "", ""]
    items = list(VisaDataset(plain, bad, (8, 12)))
    assert [(item["known"], int(item["mask"].sum())) for item in items] == 2 * [(True, 6)] + 2 * [(False, 0)]
    masks, known = load_masks(plain, bad, (8, 12))
    assert [item["mask"].tolist() for item in items] == masks.tolist()
    assert known.tolist() == [True, True, False, False]


def test_derived_splits_have_visas_shares_and_stay_the_same(mvtec, plain, monkeypatch):
    rows = {t: open_source(str(mvtec)).samples(t) for t in ("2cls_highshot", "2cls_fewshot")}
    kinds = ("train normal", "train anomaly", "test normal", "test anomaly")
    assert counts(rows["2cls_highshot"]) == dict(zip(kinds, (10, 3, 7, 2), strict=True))
    assert counts(rows["2cls_fewshot"]) == dict(zip(kinds, (8, 2, 9, 3), strict=True))
    for root, name in ((mvtec, "bottle"), (plain, "bolt")):
        few, high, one = (
            {s.image for s in open_source(str(root)).samples(t, name, "train", "normal")}
            for t in ("2cls_fewshot", "2cls_highshot", "1cls")
        )
        assert few < high < one, "they nest, so that images are left that no split tests"
    bolt = open_source(str(plain)).samples("2cls_highshot", "bolt", split="train")
    monkeypatch.chdir(plain / "bolt")
    assert [part.name for root in (".", "good/..") for part in find_parts(Path(root))] == ["bolt", "bolt"]
    alone = open_source(str(plain / "bolt"))  # the root itself is the object: the same images train
    assert (alone.name, alone.objects) == ("bolt", ("bolt",))
    assert [f"bolt/{s.image}" for s in alone.samples("2cls_highshot", split="train")] == [s.image for s in bolt]


def test_written_splits_are_the_derived_ones_and_can_be_edited(plain, mvtec):
    before = {t: open_source(str(plain)).samples(t) for t in ("1cls", "2cls_highshot", "2cls_fewshot")}
    files = write_splits(plain)
    assert [f.name for f in files] == ["1cls.csv", "2cls_highshot.csv", "2cls_fewshot.csv"]
    source = open_source(str(plain))
    assert source.name == "my parts"
    assert {t: source.samples(t) for t in before} == before
    files[0].write_text(files[0].read_text().replace("bolt,test,normal", "bolt,train,normal"))
    assert len(open_source(str(plain)).samples("1cls", "bolt", split="train")) == 20
    with pytest.raises(VisaError, match="is there already: edit"):
        write_splits(plain)
    for name in ("a\nb.png", "\udcff.png"):  # no table can name these
        image(mvtec / "bottle/test/dent" / name)
        with pytest.raises(VisaError, match=r"has a control character or no UTF-8 in its name: rename it\."):
            write_splits(mvtec)
        (mvtec / "bottle/test/dent" / name).unlink()
    write_splits(mvtec)
    assert open_source(str(mvtec)).defects("bottle")["bottle/test/dent/000.png"] == ("dent",)


def test_a_name_is_never_that_of_another_data_set(plain, tmp_path):
    for name, told in {"VisA": "VisA-own", "mini-visa": "mini-visa-own", "(neu)": "neu-"}.items():
        plain = plain.rename(tmp_path / name)
        assert open_source(str(plain)).name == told
    about = plain / "dataset.json"
    for name in ("mini-VisA", "../runs", 3):
        about.write_text(json.dumps({"name": name}))
        with pytest.raises(VisaError, match=r"dataset\.json calls the data"):
            open_source(str(plain))
    about.write_text(json.dumps({"name": "Teile 2"}))
    assert open_source(str(plain)).name == "Teile 2"


def test_the_fingerprint_changes_with_images_masks_and_the_names_of_defects(plain):
    source = open_source(str(plain))
    seen = [source.fingerprint("bolt"), source.fingerprint("bolt"), source.fingerprint("Nüsse")]
    mask(plain / "bolt/masks/02.png")
    for label in ("scratch", "bubbles"):
        seen.append(source.fingerprint("bolt"))
        (plain / "bolt/image_anno.csv").write_text(f"image,label,mask\nbolt/bad/00.JPG,{label},\n")
    assert len({*seen, source.fingerprint("bolt")}) == 5 and seen[0] == seen[1]


def test_odd_folders(tmp_path):
    root = tmp_path / "odd"
    image(root / "one/good/a.JPEG")
    image(root / "one/good/.hidden.png")
    (root / "one/good/notes.txt").write_text("x")
    (root / "one/good/loop.png").symlink_to("loop.png")
    (root / "one/loop").symlink_to("..")
    image(root / "empty/bad/a.png")
    (root / "empty/good").mkdir()
    source = open_source(str(root))
    assert source.objects == ("one",)
    assert [s.image for s in source.samples("1cls")] == ["one/good/a.JPEG"]
    reports = {r.object: r for r in verify(root)}
    assert reports["empty"].absent and "holds no images" in reports["empty"].errors[0]
    told = "\n".join(reports["one"].warnings)
    assert reports["one"].ok and "no anomalies" in told and "2 entries that are not image files" in told


def test_wrong_roots_and_names_are_told_in_one_sentence(tmp_path):
    with pytest.raises(VisaError, match=r"no split file at .*<object>/good"):
        open_source(str(tmp_path))
    (tmp_path / "a/good").mkdir(parents=True)
    with pytest.raises(VisaError, match="normal images"):
        open_source(str(tmp_path))
    image(tmp_path / "b,c/good/0.png")
    with pytest.raises(VisaError, match="cannot be called 'b,c'"):
        open_source(str(tmp_path))


def test_verify_finds_what_scoring_would_stumble_over(plain, mvtec):
    by_name = {r.object: r for r in verify(plain)}
    told = "2 of 4 anomalies have no mask (bolt/bad/02.JPG, ...): pixel metrics leave them out"
    assert by_name["bolt"].ok and by_name["bolt"].warnings == [told]
    mask(plain / "bolt/masks/02.png", (5, 5))
    Image.new("L", (12, 8)).save(plain / "bolt/masks/03.png")
    mask(plain / "bolt/masks/77.png")
    (plain / "bolt/good/03.JPG").write_bytes(b"no image")
    (bolt,) = verify(plain, ["bolt"])
    size = "masks/02.png is (5, 5), its image bolt/bad/02.JPG (8, 12)"
    for told in (size, "masks/03.png marks no pixel", "good/03.JPG cannot be decoded"):
        assert told in "\n".join(bolt.errors)
    assert bolt.warnings == ["bolt/masks/77.png fits no image of bolt/bad"]
    with pytest.raises(VisaError, match="Did you mean 'bolt'"):
        verify(plain, ["bolts"])
    assert [(r.ok, r.normal, r.anomaly, r.warnings) for r in verify(mvtec)] == [(True, 17, 5, [])]


def test_an_anomaly_does_not_train_a_1_class_detector(plain):
    write_splits(plain)
    file = plain / "split_csv/1cls.csv"
    file.write_text(file.read_text().replace("bolt,test,", "bolt,train,"))
    (bolt,) = verify(plain, ["bolt"])
    assert not bolt.ok and "bolt/bad/00.JPG is an anomaly in 1cls training" in bolt.errors[0]
    assert "no normal image for 1cls test: nothing can be measured" in "\n".join(bolt.warnings)


def test_prepare_makes_the_tree_of_own_folders(plain, mvtec, tmp_path):
    summary = prepare("2cls_highshot", plain, tmp_path / "out", objects=["bolt"])
    assert (summary.objects, summary.unmasked, summary.written) == (("bolt",), 2, 26)
    assert {p.name for p in summary.folder.iterdir()} == {"bolt"}
    assert {p.name for p in summary.folder.rglob("*.[pP][nN][gG]")} == {"00.png", "01_mask.png"}
    folder = prepare("1cls", mvtec, tmp_path / "out").folder / "bottle"
    names = {p.name for p in (folder / "test/bad").iterdir()}
    assert names == {p.name for p in (folder / "ground_truth/bad").iterdir()}
    assert {"test-crack-000.png", "test-dent-000.png"} < names


def test_a_root_at_an_address_is_copied_once(plain, monkeypatch):
    monkeypatch.setenv("VISA_ROOT", f"file://{plain}")
    source, local = open_source(), open_source(str(plain))
    assert source.address == f"file://{plain}" and source.root != plain and visa_root() == source.root
    assert (source.name, source.samples("1cls")) == (local.name, local.samples("1cls"))
    fingerprint = source.fingerprint()
    shutil.rmtree(source.root)
    assert open_source().fingerprint() == fingerprint, "every copy has the same times"
    (plain / "bolt/bad/00.JPG").unlink()
    assert open_source().samples("1cls") == source.samples("1cls")


def test_a_copy_that_broke_off_leaves_nothing_and_an_address_without_data_is_told(monkeypatch):
    files = fsspec.filesystem("memory")
    files.pipe({"/parts/bolt/good/0.png": b"one", "/parts/bolt/good/1.png": b"two"})
    get_file = type(files).get_file
    monkeypatch.setattr(type(files), "get_file", lambda self, a, b, **k: a.endswith("1.png") or get_file(self, a, b))
    with pytest.raises(VisaError, match=r"1\.png did not arrive whole from memory://parts"):
        mirrored("memory://parts")
    assert not mirror_of("memory://parts").exists()
    with pytest.raises(VisaError, match="there is nothing at memory://nothing: check the address"):
        open_source("memory://nothing")
    with pytest.raises(VisaError, match=r"nfs4://host/x cannot be reached \(ValueError: .*check address, credentials"):
        open_source("nfs4://host/x")
