"""Macaroni2: four elbow macaroni lying loosely, each turned its own way."""

import numpy as np

from visa.mini import macaroni
from visa.mini.canvas import Canvas
from visa.mini.defects import Body, Defect
from visa.mini.shapes import Pose

WEAR, STRENGTH = 0.1, (1.2, 1.5)  # with pieces turned every way, faint defects are not found


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """One piece somewhere in each quarter, far enough from the others not to touch however it is turned."""
    frame = Pose(0.5, 0.5, rng.normal(0, 3))
    poses = [
        frame.at(
            x + rng.uniform(-0.025, 0.025), y + rng.uniform(-0.025, 0.025), rng.uniform(-40, 40), rng.normal(0.9, 0.012)
        )
        for x, y in ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
    ]
    return macaroni.lay(canvas, rng, (58, 96, 66), poses)


DEFECTS: dict[str, Defect] = {
    "breakage down the middle": macaroni.broken,
    "color spot similar to the object": macaroni.similar,
    "different color spot": macaroni.different_spot,
    "small chip around edge": macaroni.chip,
    "small cracks": macaroni.crack,
    "small scratches": macaroni.scratch,
    "other": macaroni.other,
}
