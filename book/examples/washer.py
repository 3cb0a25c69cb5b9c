"""Washer: one flat steel ring on a red mat."""

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, shift_colour, textured
from visa.mini.defects import Body, Defect, burnt, scratches
from visa.mini.shapes import Pose, ellipse


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """A ring near the middle, brushed, with a bevelled edge."""
    bench.mat(canvas, rng, (132, 46, 44))
    under, colour = canvas.layer(), shift_colour((168, 172, 176), rng)
    pose = Pose(0.5 + rng.normal(0, 0.02), 0.5 + rng.normal(0, 0.02), rng.uniform(0, 360))
    disc, hole = canvas.patch(pose(ellipse(0.32))), canvas.patch(pose(ellipse(0.15)))
    ring = disc.without(canvas.full(hole))
    canvas.paint(ring, colour, gloss=0.5)
    canvas.level(ring)
    canvas.raise_flat(ring, 0.02, bevel=0.006)
    canvas.grain(ring, textured(canvas, ring, pose, "brushed", 90), colour=0.05)
    return Body(canvas.full(ring), pose, colour, under)


DEFECTS: dict[str, Defect] = {"rust": burnt, "scratch": scratches((230, 232, 236))}
