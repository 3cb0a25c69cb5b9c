"""Shards: what is written is a plain WebDataset, comes back as it was, survives an interruption, and hides nothing."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from visa import paths
from visa.errors import VisaError
from visa.pretrain.input import loader, shards
from visa.pretrain.input.files import FolderFiles
from visa.pretrain.input.images import folder_images
from visa.pretrain.input.shard_files import ShardFiles
from visa.pretrain.input.shards import ShardedImages, write_shards


@pytest.fixture
def root(tmp_path):
    """Three classes of six smooth pictures: 60 x 45, one of them a PNG, one small enough to keep."""
    for c in range(3):
        for i in range(6):
            colours = np.random.default_rng(10 * c + i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(colours).resize((60, 45), Image.Resampling.BICUBIC)
            file = tmp_path / "root" / f"class{c}" / f"{i}.{'png' if (c, i) == (1, 1) else 'jpg'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            (picture.crop((0, 0, 30, 24)) if i == 2 else picture).save(file, quality=95)
    return tmp_path / "root"


def write(root, out, **settings):
    return write_shards(root, out, **({"side": 32, "per_shard": 4, "workers": 0, "progress": False} | settings))


def bytes_below(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "index.npz"}


def test_shards_are_a_plain_webdataset(root, tmp_path):
    assert write(root, tmp_path / "out") == []
    files, seen = FolderFiles(root), {}
    for shard in sorted((tmp_path / "out").glob("shard-*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            assert [n.split(".")[1] for n in names] == ["jpg", "cls"] * (len(names) // 2)
            for image, label in zip(names[::2], names[1::2], strict=True):
                assert image.split(".")[0] == label.split(".")[0]
                seen[int(image.split(".")[0])] = tar.extractfile(image).read(), int(tar.extractfile(label).read())
    assert sorted(seen) == list(range(18)) and [seen[i][1] for i in range(18)] == files.labels.tolist()
    for number, (data, _) in seen.items():
        small = Image.open(io.BytesIO(data))
        assert small.format == "JPEG" and min(small.size) == (24 if number % 6 == 2 else 32)
        if number % 6 == 2:
            assert data == files.read(number)  # small enough: kept as it is


def test_shards_give_the_images_of_the_folder(root, tmp_path):
    write(root, tmp_path / "out", side=45)
    order = [[17, 0, 8], [7, 1]]
    folder, folder_held_out = folder_images(root, 24, workers=0)
    images, held_out = folder_images(tmp_path / "out", 24, workers=0)
    assert len(images) == len(folder) and images.classes == 3
    for whole, small in zip(folder.batches([[12, 0, 7]]), images.batches([[12, 0, 7]]), strict=True):
        assert torch.equal(whole.labels, small.labels)
        assert (whole.images.float() - small.images.float()).abs().mean() < 2  # the PNG became a JPEG
    assert (folder_held_out.float() - held_out.float()).abs().mean() < 2
    alone, in_workers = (list(ShardedImages(tmp_path / "out", 24, n).batches(order)) for n in (0, 2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, in_workers, strict=True))
    assert [b.labels.tolist() for b in alone] == [[2, 0, 1], [1, 0]]


def test_an_interrupted_build_goes_on_to_the_same_shards(root, tmp_path, monkeypatch):
    write(root, tmp_path / "whole")
    calls, add = [], shards._add

    def stopping(*args):
        calls.append(1)
        if len(calls) == 13:  # in the second of five shards
            raise KeyboardInterrupt
        add(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_add", stopping)
        with pytest.raises(KeyboardInterrupt):
            write(root, tmp_path / "out")
    left = tmp_path / "out" / ".1.partial.shard-000001.tar"
    left.write_bytes(b"left by a kill long ago")
    os.utime(left, (0, 0))
    monkeypatch.setattr(paths, "_swept", set())  # as in a new process
    assert [p.name for p in (tmp_path / "out").glob("shard-*")] == ["shard-000000.tar"]
    with pytest.raises(VisaError, match=r"4 of 5 shards are missing .*shard-000001\.tar: write_shards goes on"):
        ShardedImages(tmp_path / "out", 24)
    first = (tmp_path / "out" / "shard-000000.tar").stat().st_mtime_ns
    write(root, tmp_path / "out")
    assert (tmp_path / "out" / "shard-000000.tar").stat().st_mtime_ns == first
    assert bytes_below(tmp_path / "out") == bytes_below(tmp_path / "whole")


def test_workers_write_the_same_shards(root, tmp_path):
    write(root, tmp_path / "alone")
    write(root, tmp_path / "together", workers=2)
    assert bytes_below(tmp_path / "alone") == bytes_below(tmp_path / "together")


def test_corrupt_images_are_named_and_left_out(root, tmp_path, capsys, monkeypatch):
    (root / "class0" / "1.jpg").write_bytes((root / "class0" / "1.jpg").read_bytes()[:600])
    (root / "class0" / "2.jpg").write_text("no image")
    skipped = write(root, tmp_path / "out")
    assert len(skipped) == 2 and all("class0" in line for line in skipped)
    said = capsys.readouterr().err
    assert "1.jpg: " in said and "2.jpg: not an image" in said
    assert len(write(root, tmp_path / "out")) == 2  # written before, and still told
    images = ShardedImages(tmp_path / "out", 24, workers=0)
    (batch,) = images.batches([range(16)])
    assert len(images) == 16 and batch.labels.tolist() == [0] * 4 + [1] * 6 + [2] * 6
    monkeypatch.setattr(loader, "BUDGET_LEAST", 1)
    with pytest.raises(VisaError, match="2 of 18 images cannot be decoded"):
        write(root, tmp_path / "strict")


def test_a_folder_of_something_else_is_refused(root, tmp_path):
    write(root, tmp_path / "out")
    with pytest.raises(VisaError, match=r"another side \(32\): give another folder"):
        write(root, tmp_path / "out", side=24)
    (root / "class0" / "0.jpg").write_bytes((root / "class0" / "2.jpg").read_bytes())
    with pytest.raises(VisaError, match="shards of other images"):
        write(root, tmp_path / "out")
    with pytest.raises(VisaError, match="no folder of shards and not empty"):
        write(root, root)
    with pytest.raises(VisaError, match="no images below"):
        write(tmp_path / "none", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_epoch_reads_a_few_shards_at_a_time(root, tmp_path, monkeypatch):
    monkeypatch.setattr("visa.pretrain.input.shard_files.WINDOW", 2)
    write(root, tmp_path / "out")
    images = ShardedImages(tmp_path / "out", 24)
    first, again = (images.epoch(torch.Generator().manual_seed(1)).tolist() for _ in range(2))
    assert first == again and sorted(first) == list(range(18))
    assert first != images.epoch(torch.Generator().manual_seed(2)).tolist()
    shard = [images.files.name(i).split("/")[-2] for i in first]
    sizes = {s: shard.count(s) for s in shard}
    rest = list(shard)
    while rest:  # the images of two shards, then those of two others
        pair = list(dict.fromkeys(rest))[:2]
        window, rest = rest[: sum(sizes[s] for s in pair)], rest[sum(sizes[s] for s in pair) :]
        assert set(window) == set(pair)
    train, held_out = folder_images(tmp_path / "out", 24, workers=0)
    assert sorted(train.epoch(torch.Generator().manual_seed(1)).tolist()) == list(range(18 - len(held_out)))


def test_shards_are_read_by_offset_with_few_open_at_a_time(root, tmp_path, monkeypatch):
    monkeypatch.setattr("visa.pretrain.input.shard_files.OPEN", 2)
    write(root, tmp_path / "out")
    files = ShardFiles(tmp_path / "out")
    found = [files.read(i) for i in range(18)] + [files.read(0)]
    assert found[18] == found[0] and len({len(f) for f in found}) > 10 and len(files._open) == 2
    assert pickle.loads(pickle.dumps(files)).read(3) == found[3]  # noqa: S301


def test_a_stale_index_is_made_anew_and_a_broken_shard_named(root, tmp_path):
    write(root, tmp_path / "out")
    file = tmp_path / "out" / "shard-000002.tar"
    whole = file.read_bytes()
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo("00000000.jpg"))
    with pytest.raises(VisaError, match=r"shard-000002\.tar is broken"):
        ShardedImages(tmp_path / "out", 24)
    file.write_bytes(whole)
    assert len(ShardedImages(tmp_path / "out", 24)) == 18


def test_a_flat_folder_stays_one_class_an_image(root, tmp_path):
    write(root / "class0", tmp_path / "out")
    images = ShardedImages(tmp_path / "out", 24, workers=0)
    assert images.classes == 6 and next(images.batches([[5, 2]])).labels.tolist() == [5, 2]
