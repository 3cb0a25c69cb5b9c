"""Small maps with known blobs."""

import numpy as np
import pytest


def _maps_and_masks(seed, levels=None, size=(5, 16, 20)):
    """Noisy maps, higher inside a few blobs; `levels` rounds the scores so that many are equal."""
    rng = np.random.default_rng(seed)
    masks = np.zeros(size, np.uint8)
    for image in masks[:-2]:  # the last two are normal
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, size[1] - 4), rng.integers(0, size[2] - 4)
            image[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = 1
    masks[0, 0, 0] = masks[0, 1, 1] = 1  # touch at a corner
    maps = (rng.normal(size=size) + 1.2 * masks).astype(np.float32)
    return (maps if levels is None else np.round(maps * levels) / levels), masks


@pytest.fixture
def maps_and_masks():
    return _maps_and_masks
