"""Cashew: one pale, curved kernel on a slate mat."""

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, shift_colour, textured
from visa.mini.defects import Body, Defect, breakage, burnt, fibre, holes, pick, scratches, similar_spot, snapped, spot
from visa.mini.shapes import Points, Pose, ribbon

STRENGTH = (0.2, 0.8)  # one sound kernel in the middle gives all away
FLESH = (246, 234, 208)
WEAR = 1.7
ALONG = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 48))  # from end to end, closer where the ends curve


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """A kernel near the middle, turned a little differently every time."""
    bench.mat(canvas, rng, (70, 92, 112))
    pose = Pose(0.5 + rng.normal(0, 0.01), 0.58 + rng.normal(0, 0.01), 8 + rng.normal(0, 5), rng.normal(1.35, 0.03))
    return _kernel(canvas, pose, rng)


def _kernel(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Body:
    under, colour = canvas.layer(), shift_colour((226, 196, 150), rng, 0.025)
    patch = canvas.patch(pose(_outline(rng)))
    canvas.paint(patch, colour, gloss=0.10)
    canvas.level(patch)
    canvas.raise_round(patch, 0.075, edge=0.085, smooth=0.014)
    seam = canvas.patch(pose(ribbon(_spine(0.075), 0.010)), soft=0.004).within(canvas.full(patch))
    canvas.stain(seam, (0.80, 0.72, 0.60))
    canvas.height[seam.window] -= 0.002 * seam.cover
    canvas.grain(patch, textured(canvas, patch, pose, "cashew", 16, 5), colour=0.05, relief=0.0006)
    return Body(canvas.full(patch), pose, colour, under)


def _spine(inwards: float = 0.0) -> Points:
    t = np.deg2rad(270 + 82 * ALONG)
    radius = 0.185 - inwards
    return np.stack([radius * np.cos(t), 0.09 + radius * np.sin(t)], axis=1)


def _outline(rng: np.random.Generator) -> Points:
    t = ALONG
    width = 0.185 * np.sqrt(1 - np.abs(t) ** 3.2) * (1 + rng.normal(0.12, 0.03) * t + rng.normal(0, 0.04) * t * t)
    return ribbon(_spine(), width)


def _stuck_together(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A second kernel, whole or half, grown onto the first."""
    x, y = pick(body, rng, 0.0, 0.004)
    outwards = np.array([x - 0.5, y - 0.5]) / (np.hypot(x - 0.5, y - 0.5) + 1e-9) * 0.035
    scale = rng.uniform(0.55, 0.8) * (0.7 + 0.3 * strength)
    second = _kernel(canvas, Pose(x + outwards[0], y + outwards[1], rng.uniform(0, 360), scale), rng)
    canvas.classes[second.cover > 0.3] = canvas.class_ids[name]


DEFECTS: dict[str, Defect] = {
    "burnt": burnt,
    "corner or edge breakage": breakage((0.04, 0.07), FLESH),
    "different colour spot": spot([(70, 40, 30), (150, 60, 40), (90, 100, 50)]),
    "middle breakage": snapped(0.26, (0.012, 0.04), FLESH, y=-0.09),
    "small holes": holes,
    "small scratches": scratches((170, 128, 84)),
    "stuck together": _stuck_together,
    "same colour spot": similar_spot,
    "other": fibre,
}
