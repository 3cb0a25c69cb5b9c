from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from visa.data.dataset import VisaDataset, load_images, read_image, read_mask, resize_image
from visa.data.splits import read_split, select, split_file
from visa.errors import VisaError


@pytest.fixture
def samples(tiny_root):
    return select(read_split(split_file(tiny_root, "1cls")), object="fryum")


@pytest.fixture
def pixels():
    """Smooth colours, so that JPEG changes them little."""
    y, x = np.mgrid[0:16, 0:24]
    return np.stack([x * 10, y * 15, 255 - x * 10], axis=-1).astype(np.uint8)


def rgb(path: Path) -> np.ndarray:
    return read_image(path).permute(1, 2, 0).numpy().astype(int)


def test_an_item_holds_the_files_pixels(tiny_root, samples):
    item = VisaDataset(tiny_root, select(samples, label="anomaly"))[2]
    with Image.open(tiny_root / item["path"]) as image:
        assert np.array_equal(item["image"].permute(1, 2, 0).numpy(), np.array(image))
    assert item["label"] == 1
    assert item["path"] == "fryum/Data/Images/Anomaly/002.JPG"
    expected = torch.zeros(8, 12, dtype=torch.uint8)
    expected[2:4, 3:7] = 1
    assert torch.equal(item["mask"], expected)
    assert torch.equal(item["classes"], 8 * expected)


def test_a_normal_sample_has_an_empty_mask_of_its_images_size(tiny_root, samples):
    item = VisaDataset(tiny_root, select(samples, label="normal"))[0]
    assert item["label"] == 0
    assert item["mask"].shape == item["classes"].shape == (8, 12)
    assert not item["mask"].any()


def test_resized_items_keep_class_ids_and_can_be_batched(tiny_root, samples):
    batch = next(iter(DataLoader(VisaDataset(tiny_root, samples, size=(20, 10)), batch_size=7)))
    assert batch["image"].shape == (7, 3, 20, 10)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["label"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert [batch["classes"][i].unique().tolist() for i in (4, 5, 6)] == [[0, 1], [0, 2], [0, 8]]


def test_masks_are_resized_by_the_nearest_pixel_centre(tiny_root, samples):
    full = VisaDataset(tiny_root, samples)[6]["classes"]
    third = VisaDataset(tiny_root, samples, size=(24, 36))[6]["classes"]
    assert torch.equal(third[1::3, 1::3], full)


def test_load_images_equals_the_data_set_in_order(tiny_root, samples):
    loaded = load_images(tiny_root, samples, (6, 9), workers=3)
    dataset = VisaDataset(tiny_root, samples, (6, 9))
    assert torch.equal(loaded, torch.stack([item["image"] for item in dataset]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_comes_out_upright(tmp_path, pixels, orientation):
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert np.abs(rgb(tmp_path / "a.jpg") - pixels).max() <= 6


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "jpg"), ("L", "png"), ("CMYK", "jpg"), ("P", "png"), ("RGBA", "png")]
)
def test_other_colour_modes_come_out_rgb(tmp_path, pixels, mode, suffix):
    if mode in ("L", "P"):
        pixels = np.where(pixels[..., :1] > 100, 200, 40).astype(np.uint8).repeat(3, axis=-1)
    Image.fromarray(pixels).convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / f"a.{suffix}", quality=100)
    found = rgb(tmp_path / f"a.{suffix}")
    assert found.shape == pixels.shape
    assert np.abs(found - pixels).max() <= 6


def test_sixteen_bits_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(VisaError, match="more than 8 bits"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_files_have_pillows_pixels_within_two_grey_levels(tmp_path, subsampling):
    y, x = np.mgrid[0:300, 0:450]
    noise = np.random.default_rng(0).normal(0, 12, (300, 450, 3))
    picture = np.stack([x / 2, y / 2, 127 + 90 * np.sin(x / 9) * np.cos(y / 7)], axis=-1) + noise
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=92, subsampling=subsampling)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.abs(rgb(tmp_path / "a.jpg") - np.array(image)).max() <= 2  # 0 with the same libjpeg-turbo
        small = np.array(image.resize((64, 48), Image.Resampling.BILINEAR)).astype(int)
    ours = resize_image(read_image(tmp_path / "a.jpg"), (48, 64)).permute(1, 2, 0).numpy()
    assert np.abs(ours - small).max() <= 2


def test_a_palettes_index_is_the_class_id(tmp_path):
    mask = Image.fromarray(np.array([[0, 2], [7, 0]], np.uint8), "P")
    mask.putpalette([255, 255, 255] + [9, 9, 9] * 7)
    mask.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 2], [7, 0]]


def test_a_colour_mask_is_refused_unless_it_is_grey(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(VisaError, match="one 8-bit channel"):
        read_mask(tmp_path / "a.png")
    grey = np.array([[0, 255], [7, 0]], np.uint8)
    Image.fromarray(grey).convert("RGB").save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == grey.tolist()
    Image.fromarray(grey > 0).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1], [1, 0]]


def test_a_jpeg_mask_is_refused(tmp_path, pixels):
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.jpg")
    with pytest.raises(VisaError, match="a JPEG file, which changes a mask's values"):
        read_mask(tmp_path / "a.jpg")


@pytest.mark.parametrize("kept", [0, 100, -30])
def test_a_truncated_image_is_named(tiny_root, samples, kept):
    file = tiny_root / samples[0].image
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(VisaError, match=r"000\.JPG cannot be decoded"):
        VisaDataset(tiny_root, samples)[0]
    with pytest.raises(VisaError, match=r"000\.JPG cannot be decoded"):
        load_images(tiny_root, samples, (4, 4))


def test_a_missing_image_or_mask_is_named(tiny_root, samples):
    (tiny_root / samples[0].image).unlink()
    (tiny_root / samples[4].mask).unlink()
    dataset = VisaDataset(tiny_root, samples)
    with pytest.raises(VisaError, match=r"no image at .*Normal/000\.JPG"):
        dataset[0]
    with pytest.raises(VisaError, match=r"no image at .*Masks/Anomaly/000\.png"):
        dataset[4]


def test_a_mask_of_another_size_is_an_error(tiny_root, samples):
    Image.new("L", (5, 5)).save(tiny_root / samples[4].mask)
    with pytest.raises(VisaError, match=r"5 x 5 but its image .* is 12 x 8"):
        VisaDataset(tiny_root, samples, size=(4, 4))[4]
