import io
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from visa.data.png import encode_mask


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
    data = encode_mask(Image.fromarray(mask))
    expected = np.where(mask > 0, 255, 0)
    with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(data)) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.array(image), expected)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), expected)
