"""Image files as tensors, whatever their format; a file made by an enemy or by accident ends in one sentence."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from visa.data import images
from visa.data.dataset import VisaDataset, load_images, load_masks, read_image, read_mask, resize_image
from visa.data.images import FORMATS, upright_size
from visa.data.splits import read_split, select, split_file
from visa.errors import VisaError
from visa.pretrain.images import decode


@pytest.fixture
def samples(tiny_root):
    return select(read_split(split_file(tiny_root, "1cls")), object="fryum")


@pytest.fixture
def pixels():  # smooth, so that JPEG changes them little
    y, x = np.mgrid[0:16, 0:24]
    return np.stack([x * 10, y * 15, 255 - x * 10], axis=-1).astype(np.uint8)


def rgb(path: Path) -> np.ndarray:
    return read_image(path).permute(1, 2, 0).numpy().astype(int)


def test_an_item_holds_the_files_pixels(tiny_root, samples):
    item = VisaDataset(tiny_root, select(samples, label="anomaly"))[2]
    with Image.open(tiny_root / item["path"]) as image:
        assert np.array_equal(item["image"].permute(1, 2, 0).numpy(), np.array(image))
    assert (item["label"], item["path"]) == (1, "fryum/Data/Images/Anomaly/002.JPG")
    assert item["mask"].nonzero().tolist() == [[y, x] for y in (2, 3) for x in (3, 4, 5, 6)]
    assert torch.equal(item["classes"], 8 * item["mask"])
    normal = VisaDataset(tiny_root, samples)[0]
    assert normal["label"] == 0 and normal["mask"].shape == (8, 12) and not normal["mask"].any()


def test_resized_items_keep_class_ids_and_are_batched_and_loaded_in_order(tiny_root, samples):
    batch = next(iter(DataLoader(VisaDataset(tiny_root, samples, size=(20, 10)), batch_size=7)))
    assert batch["image"].shape == (7, 3, 20, 10)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["label"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert [batch["classes"][i].unique().tolist() for i in (4, 5, 6)] == [[0, 1], [0, 2], [0, 8]]
    assert torch.equal(load_images(tiny_root, samples, (20, 10), workers=3), batch["image"])
    assert torch.equal(load_masks(tiny_root, samples, (20, 10))[0], batch["mask"])
    full, third = (VisaDataset(tiny_root, samples, size)[6]["classes"] for size in (None, (24, 36)))
    assert torch.equal(third[1::3, 1::3], full), "masks are resized by the nearest pixel centre"


@pytest.mark.parametrize("orientation", [0, *range(1, 9), 65_000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation_comes_out_upright_and_the_size_is_that_of_the_pixels(tmp_path, pixels, kind, orientation):
    turned = np.rot90(pixels, {3: 2, 4: 2, 5: 1, 6: 1, 7: -1, 8: -1}.get(orientation, 0))
    stored = {2: turned[:, ::-1], 4: turned[:, ::-1], 5: turned[::-1], 7: turned[::-1]}.get(orientation, turned)
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a", kind, exif=exif, quality=100)
    assert np.abs(rgb(tmp_path / "a") - pixels).mean() <= 6
    assert upright_size(tmp_path / "a") == (16, 24)


@pytest.mark.parametrize("mode", ["L.jpg", "L.png", "CMYK.jpg", "P.png", "RGBA.png"])
def test_other_colour_modes_come_out_rgb_and_sixteen_bits_are_refused_not_clipped(tmp_path, pixels, mode):
    mode, _, suffix = mode.partition(".")
    if mode in ("L", "P"):
        pixels = np.where(pixels[..., :1] > 100, 200, 40).astype(np.uint8).repeat(3, axis=-1)
    Image.fromarray(pixels).convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / f"a.{suffix}", quality=100)
    found = rgb(tmp_path / f"a.{suffix}")
    assert found.shape == pixels.shape and np.abs(found - pixels).max() <= 6
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(VisaError, match="more than 8 bits"):
        read_image(tmp_path / "a.png")


def test_a_masks_values_are_class_ids_in_a_palette_in_grey_colour_and_in_one_bit(tmp_path):
    ids = np.array([[0, 2], [7, 0]], np.uint8)
    palette = Image.fromarray(ids, "P")
    palette.putpalette([255, 255, 255] + [9, 9, 9] * 7)
    for mask, read in ((palette, ids), (Image.fromarray(ids).convert("RGB"), ids), (Image.fromarray(ids > 0), ids > 0)):
        mask.save(tmp_path / "a.png")
        assert read_mask(tmp_path / "a.png").tolist() == read.astype(int).tolist()


@pytest.mark.parametrize("mode", ["I;16", "F", "RGB", "RGBA", "CMYK", "LA", "JPEG"])
def test_a_mask_of_another_kind_is_refused(tmp_path, mode):
    colour, kind = ("L", "JPEG") if mode == "JPEG" else (mode, "TIFF")
    Image.new(colour, (5, 4), "red" if mode == "RGB" else None).save(tmp_path / "a.tif", kind)
    with pytest.raises(VisaError, match=r"one 8-bit channel|a JPEG file, which changes a mask's values"):
        read_mask(tmp_path / "a.tif")


def test_a_missing_or_truncated_file_and_a_mask_of_another_size_are_named(tiny_root, samples):
    dataset = VisaDataset(tiny_root, samples, size=(4, 4))
    Image.new("L", (5, 5)).save(tiny_root / samples[5].mask)
    (tiny_root / samples[0].image).unlink()
    (tiny_root / samples[1].image).write_bytes((tiny_root / samples[1].image).read_bytes()[:-30])
    (tiny_root / samples[4].mask).unlink()
    told = {0: r"no image at .*Normal/000\.JPG", 1: r"Normal/001\.JPG cannot be decoded"}
    told |= {4: r"no image at .*000\.png", 5: r"5 x 5 but its image .* is 12 x 8"}
    for index, sentence in told.items():
        with pytest.raises(VisaError, match=sentence):
            dataset[index]
    with pytest.raises(VisaError, match=told[1]):
        load_images(tiny_root, samples[1:], (4, 4))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """A PNG file of a hundred bytes that says it is larger."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def encoded(kind: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")
SIZE_AT = JPEG.find(b"\xff\xc0") + 5
BROKEN = {
    "nothing": b"",
    "a web page": b"<html>sign in</html>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "half a png": PNG[: len(PNG) // 2],
    "a png with a flipped bit": PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    "a png of no pixels": png_of(0, 10),
    "a bomb": png_of(100_000, 100_000),
    "a jpeg bomb": JPEG[:SIZE_AT] + struct.pack(">HH", 65_500, 65_500) + JPEG[SIZE_AT + 4 :],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_what_is_no_image_ends_in_one_sentence_and_starts_no_program(tmp_path, monkeypatch, data, suffix):
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(data)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("another program was started"))
    for read in (read_image, read_mask, upright_size):
        with pytest.raises(VisaError, match=r"a\.\w+ cannot be decoded \(.*\): fetch it again\.$") as told:
            read(file)
        assert "\n" not in str(told.value) and " object at 0x" not in str(told.value)
    with pytest.raises(ValueError):
        decode(file, 16)
    assert "EPS" not in FORMATS


@pytest.mark.parametrize("size", [(1, 1), (30_000, 20), (3, 5_000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_very_small_and_very_long_images_are_read_and_resized(tmp_path, kind, size):
    (tmp_path / "a").write_bytes(encoded(kind, size))
    image = read_image(tmp_path / "a")
    assert image.shape == (3, *size[::-1]) and upright_size(tmp_path / "a") == size[::-1]
    assert resize_image(image, (32, 48)).shape == (3, 32, 48)
