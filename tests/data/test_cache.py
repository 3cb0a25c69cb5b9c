import os

import numpy as np
import pytest

from visa.data import cache
from visa.data.cache import cached
from visa.data.dataset import load_images
from visa.data.splits import read_split, select, split_file
from visa.errors import VisaError
from visa.paths import data_root


@pytest.fixture
def file(tmp_path):
    (tmp_path / "image").write_bytes(b"pixels")
    return tmp_path / "image"


@pytest.fixture
def made():
    """A maker that counts its calls."""
    calls = []

    def make():
        calls.append(1)
        return np.arange(24, dtype=np.uint8).reshape(2, 12) + len(calls)

    make.calls = calls
    return make


def kept():
    folder = data_root() / "cache"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def test_the_same_files_are_read_once(file, made):
    first, again = cached([file], "images", made), cached([file], "images", made)
    assert np.array_equal(first, again) and len(made.calls) == 1
    again[:] = 0  # private to this process
    assert np.array_equal(cached([file], "images", made), first)


def test_changed_files_and_other_settings_are_read_again(file, made):
    cached([file], "images", made)
    cached([file], "masks", made)
    file.write_bytes(b"pixel!")
    os.utime(file, ns=(1, 1))
    cached([file], "images", made)
    assert len(made.calls) == 3 and len(kept()) == 3


def test_a_cut_off_file_is_made_again(file, made):
    cached([file], "images", made)
    path = data_root() / "cache" / kept()[0]
    for length in (0, 50, path.stat().st_size - 3):
        path.write_bytes(path.read_bytes()[:length])
        assert cached([file], "images", made).shape == (2, 12)
    assert len(made.calls) == 4
    cached([file], "images", made)
    assert len(made.calls) == 4


def test_a_failure_leaves_nothing_and_a_full_disk_costs_the_cache_alone(file, made, monkeypatch):
    def fail():
        raise VisaError("broken")

    with pytest.raises(VisaError, match="broken"):
        cached([file], "images", fail)
    assert kept() == []

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(cache.np, "save", full)
    assert cached([file], "images", made).shape == (2, 12)
    assert kept() == []


def test_the_folder_stays_below_its_limit(file, made):
    size = 24 + 128  # a header of 128 bytes
    for i, what in enumerate("abc"):
        cached([file], what, made, limit=3 * size)
        newest = max((data_root() / "cache").iterdir(), key=lambda p: p.stat().st_ctime_ns)
        os.utime(newest, (1000 + i, 1000 + i))
    cached([file], "a", made, limit=3 * size)  # used again: b is now the oldest
    cached([file], "d", made, limit=3 * size)
    assert len(kept()) == 3
    calls = len(made.calls)
    cached([file], "a", made, limit=3 * size)
    assert len(made.calls) == calls
    cached([file], "e", made, limit=10)
    assert len(kept()) == 3, "larger than all that may be kept"


def test_images_come_from_the_cache_until_one_changes(tiny_root):
    samples = select(read_split(split_file(tiny_root, "1cls")), object="fryum")
    first = load_images(tiny_root, samples, (6, 9))
    assert len(kept()) == 1
    assert load_images(tiny_root, samples, (6, 9)).tolist() == first.tolist()
    image = tiny_root / samples[0].image
    image.write_bytes((tiny_root / samples[-1].image).read_bytes())
    changed = load_images(tiny_root, samples, (6, 9))
    assert changed[0].tolist() == changed[-1].tolist() != first[0].tolist()
    assert load_images(tiny_root, samples[:2], (6, 9), cache=False).tolist() == changed[:2].tolist()
    assert len(kept()) == 2
