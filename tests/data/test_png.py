import io
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from visa.data.png import band_of, encode_mask, read_band


def blank(height, width):
    return np.zeros((height, width), np.uint8)


def marked(rows, shape=(37, 53), value=7):
    mask = blank(*shape)
    mask[rows, 3:20] = value
    return mask


MASKS = {
    "blank": blank(37, 53),
    "band": marked(slice(9, 17)),
    "first row": marked(slice(0, 1)),
    "last row": marked(slice(36, 37)),
    "full": marked(slice(None), value=255),
    "scattered": np.random.default_rng(0).integers(0, 3, (70, 91), dtype=np.uint8),
    "one pixel": np.full((1, 1), 4, np.uint8),
    "tall": marked(slice(4000, 4010), (5003, 21)),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_every_reader_finds_0_and_255(mask):
    data = encode_mask(band_of(Image.fromarray(mask)))
    expected = np.where(mask > 0, 255, 0)
    with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(data)) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.array(image), expected)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), expected)


FILTERS = {"none": 0, "sub": 1, "up": 2, "average": 3, "paeth": 4}


def whole(band):
    image = Image.new("L", band.size)
    image.paste(band.rows, (0, band.top))
    return np.array(image)


@pytest.mark.parametrize("kind", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_marked_rows_are_those_of_the_file(mask, kind):
    flag = getattr(cv2, f"IMWRITE_PNG_FILTER_{('NONE', 'SUB', 'UP', 'AVG', 'PAETH')[kind]}")
    data = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_FILTER, flag])[1].tobytes()
    assert np.array_equal(whole(read_band(data)), mask)


def saved(mask=MASKS["band"], mode="L", **options):
    stream = io.BytesIO()
    Image.fromarray(mask).convert(mode).save(stream, **{"format": "PNG"} | options)
    return stream.getvalue()


def test_several_chunks_of_pixels_are_one_stream():
    data = saved(MASKS["scattered"])
    start, length = data.index(b"IDAT") + 4, int.from_bytes(data[data.index(b"IDAT") - 4 :][:4], "big")
    halves = (data[start : start + length // 2], data[start + length // 2 : start + length])
    chunks = [len(h).to_bytes(4, "big") + b"IDAT" + h + zlib.crc32(b"IDAT" + h).to_bytes(4, "big") for h in halves]
    band = read_band(data[: start - 8] + b"".join(chunks) + data[start + length + 4 :])
    assert np.array_equal(whole(band), MASKS["scattered"])


PNG = saved()
NOT_PLAIN = {
    "nothing": b"",
    "no PNG": saved(format="BMP"),
    "colour": saved(mode="RGB"),
    "palette": saved(mode="P"),
    "one bit": saved(mode="1"),
    "rotated": saved(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "cut short": PNG[:-20],
    "damaged": PNG[:50] + bytes([PNG[50] ^ 1]) + PNG[51:],
    "no zlib stream": PNG[:33] + b"\0\0\0\3IDATabc" + zlib.crc32(b"IDATabc").to_bytes(4, "big") + PNG[-12:],
    "more behind": PNG + b"more",
    "no pixels": PNG[:33] + PNG[-12:],
    "empty header": PNG[:8] + b"\0\0\0\0IHDR" + zlib.crc32(b"IHDR").to_bytes(4, "big") + PNG[33:],
}


@pytest.mark.parametrize("data", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain_is_left_to_pillow(data):
    assert read_band(data) is None


def test_an_image_that_inflates_to_other_sizes_is_left_to_pillow():
    for rows in (36, 38):
        header = b"IHDR" + (53).to_bytes(4, "big") + rows.to_bytes(4, "big") + PNG[24:29]
        assert read_band(PNG[:12] + header + zlib.crc32(header).to_bytes(4, "big") + PNG[33:]) is None
