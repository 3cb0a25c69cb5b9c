"""Training images from a folder: labels, order, workers, decoding against the exact way, and corrupt files."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from visa.data.dataset import read_image
from visa.errors import VisaError
from visa.pretrain import images as images_module
from visa.pretrain.images import FolderImages, decode, find_files, folder_data


def picture(width=60, height=48, seed=0, mode="RGB"):
    """A smooth coloured picture, as photographs are at the scale of a pixel."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def write_folder(root, classes=3, each=4, suffix=".jpg"):
    for c in range(classes):
        for i in range(each):
            file = root / f"class{c}" / f"{i}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(seed=10 * c + i).save(file, quality=95)
    return root


def below(root, side=16, workers=0):
    return FolderImages(find_files(root), side, workers)


def only(images, order):
    (batch,) = images.batches([order])
    return batch


def test_labels_are_the_sorted_class_folders(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "an_empty_folder").mkdir()
    for hidden in ("class1/._0.jpg", ".thumbnails/0.jpg", "class1/.cache/0.jpg"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"what others leave behind")
    (tmp_path / "class2" / "deeper").mkdir()
    picture().save(tmp_path / "class2" / "deeper" / "x.PNG")
    images = below(tmp_path)
    assert len(images) == 13 and images.classes == 3
    assert [images.files.path(i).name for i in range(4)] == [f"{i}.jpg" for i in range(4)]
    batch = only(images, range(13))
    assert batch.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 5
    assert batch.images.shape == (13, 3, 16, 16) and batch.images.dtype == torch.uint8


def test_a_fingerprint_is_of_paths_and_sizes_alone(tmp_path):
    write_folder(tmp_path)
    file = tmp_path / "class0" / "0.jpg"
    seen = [find_files(tmp_path).fingerprint()]
    os.utime(file, (1, 1))
    (tmp_path / "class0" / "notes.txt").write_text("no image")
    assert find_files(tmp_path).fingerprint() == seen[0]
    file.write_bytes(file.read_bytes() + b"1")
    seen.append(find_files(tmp_path).fingerprint())
    file.rename(tmp_path / "class1" / "a.jpg")
    seen.append(find_files(tmp_path).fingerprint())
    assert len(set(seen)) == 3


def test_in_a_flat_folder_every_image_is_its_own_class(tmp_path):
    write_folder(tmp_path, classes=1, each=20)
    data = folder_data(str(tmp_path / "class0"), 16, workers=0)
    assert data.held_out.shape == (8, 3, 18, 18) and len(data.images) == 12
    names = sorted(f"{i}.jpg" for i in range(20))
    trained = [data.images.files.path(i).name for i in range(12)]
    assert data.images.classes == 20, "held-out images keep their class, as ImageNet's classes keep their numbers"
    assert [names[label] for label in only(data.images, range(12)).labels.tolist()] == trained


def test_images_beside_class_folders_are_refused(tmp_path):
    picture().save(write_folder(tmp_path) / "loose.jpg")
    with pytest.raises(VisaError, match="1 images beside class folders such as 'class0'"):
        find_files(tmp_path)


def test_held_out_images_are_not_trained_on(tmp_path):
    data = folder_data(str(write_folder(tmp_path, each=6)), 16, workers=0)
    trained = only(data.images, range(len(data.images))).images
    assert len(trained) + len(data.held_out) == 18 and data.images.classes == 3
    assert not any(torch.equal(image, other) for image in data.held_out for other in trained)
    with pytest.raises(VisaError, match="6 images below pretrain_root"):
        folder_data(str(tmp_path / "class0"), 16)


def test_workers_change_nothing_and_the_order_is_kept(tmp_path):
    write_folder(tmp_path)
    order = [[11, 0, 5], [3, 6], [1, 2, 4, 7]]
    expected = [torch.stack([decode(f, 32) for f in sorted(tmp_path.rglob("*.jpg"))])[rows] for rows in order]
    state = torch.get_rng_state()
    for workers in (0, 2):
        found = list(below(tmp_path, 32, workers).batches(order))
        assert all(torch.equal(batch.images, images) for batch, images in zip(found, expected, strict=True))
        assert [batch.labels.tolist() for batch in found] == [[i // 4 for i in rows] for rows in order]
    assert torch.equal(state, torch.get_rng_state())  # loading draws nothing from the global generator


def exact(file, side):
    """The file at its full size, its centre square resized by torchvision."""
    image = read_image(file)
    return tv.resize(tv.center_crop(image, [min(image.shape[-2:])] * 2), [side, side], antialias=True)


@pytest.mark.parametrize("what", ["exif", "grey", "cmyk", "png", "palette", "alpha", "progressive", "tiny", "large"])
@pytest.mark.parametrize("side", [24, 40])
def test_every_format_is_read_as_the_exact_way_reads_it(tmp_path, what, side):
    file = tmp_path / ("x.png" if what in ("png", "palette", "alpha") else "x.jpg")
    mode = {"grey": "L", "cmyk": "CMYK", "palette": "P", "alpha": "RGBA"}.get(what, "RGB")
    exif = Image.Exif()
    if what == "exif":
        exif[0x0112] = 6
    image = picture(*{"tiny": (12, 10), "large": (500, 376)}.get(what, (60, 48)), mode=mode)
    options = {"exif": exif, "quality": 95} if file.suffix == ".jpg" else {}
    image.save(file, **options, progressive=what == "progressive")
    found, expected = decode(file, side).float(), exact(file, side).float()
    apart = (found - expected).abs().mean()
    assert apart <= (4 if side == 24 or what == "large" else 1.5)  # a reduced scale is a little sharper
    assert what == "tiny" or apart < (found - expected.roll(1, dims=2)).abs().mean() / 2, "and in its place"


def spoil(folder):
    """Four kinds of corrupt files in the place of good ones."""
    whole = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "2.jpg").write_text("no image")
    (folder / "3.jpg").write_bytes(b"")
    Image.fromarray(np.zeros((30, 30), dtype=np.uint16)).save(folder / "4.png")


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_replaced_by_the_next_and_named(tmp_path, capsys, workers):
    root = write_folder(tmp_path, classes=2, each=5)
    (root / "class0" / "4.jpg").unlink()
    spoil(root / "class0")
    images = below(root, 32, workers)
    first, second = images.batches([[0, 1, 2, 3, 4, 5], [1, 9]])
    assert first.labels.tolist() == [0, 1, 1, 1, 1, 1] and torch.equal(first.images[1], first.images[5])
    assert torch.equal(second.images[0], first.images[5])
    said = capsys.readouterr().err
    for name, reason in {"1.jpg": "truncated", "2.jpg": "not an image", "3.jpg": "empty", "4.png": "8 bits"}.items():
        (line,) = [line for line in images.skipped if str(root / "class0" / name) in line]
        assert reason in line and said.count(line) == 1
    assert len(images.skipped) == 4


def test_too_many_corrupt_images_stop_the_run(tmp_path, monkeypatch):
    root = write_folder(tmp_path, classes=2, each=5)
    spoil(root / "class1")
    monkeypatch.setattr(images_module, "BUDGET_LEAST", 2)
    with pytest.raises(VisaError, match=r"3 of 11 images cannot be decoded, the first .*1\.jpg.*fetch them again"):
        list(below(root).batches([[6], [7], [8]]))
    monkeypatch.setattr(images_module, "BUDGET", 0.5)
    assert len(list(below(root).batches([[6], [7], [8]]))) == 3
    for file in root.glob("*/*"):
        file.write_text("no image")
    with pytest.raises(VisaError, match="of 11 images cannot be decoded"):
        list(below(root, workers=2).batches([[0, 1]]))


def test_a_corrupt_held_out_image_is_left_out_and_reported(tmp_path):
    (write_folder(tmp_path, each=6) / "class0" / "0.jpg").write_bytes(b"")
    data = folder_data(str(tmp_path), 16, workers=0)
    (skipped,) = data.images.skipped
    assert len(data.held_out) == 7 and "0.jpg: the file is empty" in skipped
