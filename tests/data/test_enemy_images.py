"""Image files made by an enemy or by accident: one sentence, or the right pixels; and no other program is started."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visa.data import images
from visa.data.dataset import read_image, read_mask, resize_image
from visa.data.images import FORMATS, upright_size
from visa.errors import VisaError
from visa.pretrain.images import decode

READERS = (read_image, read_mask, upright_size)


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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
JPEG, PNG = encoded("JPEG"), encoded("PNG")
SIZE_AT = JPEG.find(b"\xff\xc0") + 5
BROKEN = {
    "nothing": b"",
    "zeros": bytes(1000),
    "a web page": b"<html>sign in</html>",
    "postscript": POSTSCRIPT,
    "half a png": PNG[: len(PNG) // 2],
    "a png with a flipped bit": PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    "a png of no pixels": png_of(0, 10),
    "a bomb": png_of(100_000, 100_000),
    "a jpeg bomb": JPEG[:SIZE_AT] + struct.pack(">HH", 65_500, 65_500) + JPEG[SIZE_AT + 4 :],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_what_is_no_image_ends_in_one_sentence(tmp_path, monkeypatch, data, suffix):
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(data)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("another program was started"))
    for read in READERS:
        with pytest.raises(VisaError, match=r"a\.\w+ cannot be decoded \(.*\): fetch it again\.$") as told:
            read(file)
        assert "\n" not in str(told.value) and " object at 0x" not in str(told.value)
    with pytest.raises(ValueError):
        decode(file, 16)


def test_flipped_bytes_never_do_more_than_that(tmp_path):
    rng = np.random.default_rng(1)
    for trial in range(120):
        data = bytearray((JPEG, PNG)[trial % 2])
        for place in rng.integers(8, len(data), 5):
            data[place] = rng.integers(256)
        (tmp_path / "a").write_bytes(data)
        for read in READERS:
            try:
                read(tmp_path / "a")
            except VisaError as told:
                assert "\n" not in str(told)


@pytest.mark.parametrize("size", [(1, 1), (30_000, 20), (3, 5_000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_very_small_and_very_long_images_are_read_and_resized(tmp_path, kind, size):
    (tmp_path / "a").write_bytes(encoded(kind, size))
    image = read_image(tmp_path / "a")
    assert image.shape == (3, *size[::-1]) and upright_size(tmp_path / "a") == size[::-1]
    assert resize_image(image, (32, 48)).shape == (3, 32, 48)


@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 8, 9, 65_000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_is_that_of_the_pixels_whatever_the_file_says_of_its_rotation(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    (tmp_path / "a").write_bytes(encoded(kind, exif=exif))
    assert upright_size(tmp_path / "a") == read_image(tmp_path / "a").shape[1:]


def test_every_format_of_a_data_set_is_one_that_runs_no_other_program():
    Image.init()
    kinds = {Image.registered_extensions()[suffix] for suffix in (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".webp")}
    assert kinds <= set(FORMATS) and "EPS" not in FORMATS


@pytest.mark.parametrize("mode", ["I;16", "F", "RGBA", "CMYK", "LA"])
def test_a_mask_of_another_kind_is_refused(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "a.tif")
    with pytest.raises(VisaError, match="one 8-bit channel"):
        read_mask(Path(tmp_path / "a.tif"))
