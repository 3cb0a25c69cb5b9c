"""Macaroni1: four elbow macaroni in two rows, all lying the same way."""

import numpy as np

from visa.mini import macaroni
from visa.mini.canvas import Canvas
from visa.mini.defects import Body, Defect
from visa.mini.shapes import Pose

WEAR, STRENGTH = 0.3, (0.7, 1.4)  # among four pieces, faint defects are not found


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """Two rows of two, each piece a little out of line."""
    frame = Pose(0.5 + rng.normal(0, 0.004), 0.5 + rng.normal(0, 0.004), rng.normal(0, 1))
    poses = [
        frame.at(x + rng.normal(0, 0.005), y + rng.normal(0, 0.006), rng.normal(0, 3), rng.normal(1.07, 0.012))
        for y in (-0.20, 0.20)
        for x in (-0.238, 0.238)
    ]
    return macaroni.lay(canvas, rng, (40, 66, 84), poses)


DEFECTS: dict[str, Defect] = {
    "chip around edge and corner": macaroni.chip,
    "different colour spot": macaroni.different_spot,
    "middle breakage": macaroni.broken,
    "similar colour spot": macaroni.similar,
    "small cracks": macaroni.crack,
    "small scratches": macaroni.scratch,
    "other": macaroni.other,
}
