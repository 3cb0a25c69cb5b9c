"""Pipe fryum: a short fried tube, ridged and blistered, open towards the viewer at one end."""

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, Patch, shift_colour, textured
from visa.mini.defects import Body, Defect, breakage, burnt, cracks, fibre, pick, scratches, similar_spot, snapped, spot
from visa.mini.shapes import Pose
from visa.mini.tube import Tube, on_skin

FLESH = (252, 222, 150)


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """A pipe across the middle, turned a little differently every time."""
    bench.mat(canvas, rng, (44, 116, 100))
    pose = Pose(0.5 + rng.normal(0, 0.012), 0.5 + rng.normal(0, 0.012), -24 + rng.normal(0, 5), rng.normal(1, 0.02))
    return _pipe(canvas, pose, rng)


def _pipe(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Body:
    under, colour = canvas.layer(), shift_colour((236, 160, 62), rng, 0.025)
    tip = rng.uniform(0.42, 0.56)
    tube = Tube(rng.normal(0.50, 0.015), rng.normal(0.27, 0.006), 0.10, rng.uniform(0.05, 0.25), (tip, -tip))
    patch = tube.draw(canvas, pose, colour, FLESH, ridges=17, gloss=0.30, relief=0.0035)
    dx, dy, turn = rng.uniform((-0.2, -0.2, 0), (0.2, 0.2, 360)).tolist()
    own = pose.at(dx, dy, turn)  # no two pipes are fried alike
    canvas.grain(patch, textured(canvas, patch, own, "pipe", 26, 4), colour=0.06, relief=0.0012)
    brown = np.clip(0.22 * textured(canvas, patch, own, "toast", 5, 4), 0, 1)
    canvas.stain(Patch(patch.window, patch.cover * brown), (0.55, 0.36, 0.22))
    return Body(canvas.full(patch), pose, colour, under, tube.holes(pose))


def _stuck_together(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A second, shrunken pipe baked onto the side of the first."""
    x, y = pick(body, rng, 0.0, 0.01)
    scale = rng.uniform(0.32, 0.5) * (0.7 + 0.3 * strength)
    second = _pipe(canvas, Pose(x, y, rng.uniform(0, 360), scale), rng)
    canvas.classes[second.cover > 0.3] = canvas.class_ids[name]


DEFECTS: dict[str, Defect] = {
    "burnt": on_skin(burnt),
    "corner and edge breakage": breakage((0.04, 0.075), FLESH),
    "different colour spot": on_skin(spot([(70, 34, 26), (150, 40, 34), (90, 100, 50)])),
    "middle breakage": snapped(0.40, (0.014, 0.045), FLESH),
    "similar colour spot": on_skin(similar_spot),
    "small scratches": on_skin(scratches((252, 208, 128))),
    "stuck together": _stuck_together,
    "small cracks": on_skin(cracks((96, 40, 12))),
    "other": fibre,
}
