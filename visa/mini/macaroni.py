"""An elbow macaroni, four of which make a picture of macaroni1 or macaroni2, and what can be wrong with it."""

from collections.abc import Sequence

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, Colour, shift_colour, textured
from visa.mini.defects import Body, Part, breakage, cracks, fibre, on_one, pick, remove, scratches, similar_spot, spot
from visa.mini.shapes import Pose, blob, jagged, ribbon
from visa.mini.tube import Tube, on_skin

DOUGH, CUT = (226, 182, 92), (240, 212, 142)
RIDGES = 15


def lay(canvas: Canvas, rng: np.random.Generator, bench_colour: Colour, poses: Sequence[Pose]) -> Body:
    """A piece at each of the poses."""
    bench.mat(canvas, rng, bench_colour)
    under, colour = canvas.layer(), shift_colour(DOUGH, rng, 0.02)
    cover = np.zeros((canvas.side, canvas.side), np.float32)
    parts = []
    for pose in poses:
        tube = Tube(rng.normal(0.36, 0.006), rng.normal(0.122, 0.002), 0.095, rng.normal(2.45, 0.08), _tips(rng))
        patch = tube.draw(canvas, pose, shift_colour(colour, rng, 0.015), CUT, RIDGES, gloss=0.16, relief=0.0016)
        dx, dy, turn = rng.uniform((-0.2, -0.2, 0), (0.2, 0.2, 360)).tolist()
        own = pose.at(dx, dy, turn)  # no two pieces are mottled alike
        canvas.grain(patch, textured(canvas, patch, own, "macaroni", 26, 4), colour=0.04, relief=0.0003)
        np.maximum(cover, canvas.full(patch), out=cover)
        parts += [Part(tube.outline(), pose), *tube.holes(pose)]
    return Body(cover, Pose(), colour, under, parts)


def _tips(rng: np.random.Generator) -> tuple[float, float]:
    start, end = rng.uniform(0.34, 0.48, 2)
    return float(start), float(end)


chip = on_one(breakage((0.022, 0.042), CUT))
different_spot = on_skin(on_one(spot([(60, 40, 30), (150, 60, 40), (80, 100, 50), (240, 236, 224)])))
similar = on_skin(on_one(similar_spot))
crack = on_skin(on_one(cracks((96, 62, 24))))
scratch = on_skin(on_one(scratches((250, 228, 170))))


def other(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A thread on a piece, or a crumb of another piece stuck to it."""
    (fibre if rng.random() < 0.5 else _crumb)(canvas, body, name, rng, strength)


@on_one
def _crumb(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A crumb of another piece, stuck to this one."""
    x, y = pick(body, rng, 0.0, 0.02)
    patch = canvas.patch(Pose(x, y)(blob(rng, rng.uniform(0.020, 0.034) * (0.7 + 0.3 * strength), 0.3)))
    canvas.paint(patch, shift_colour(body.colour, rng, 0.03), gloss=0.1)
    canvas.raise_round(patch, 0.03, edge=0.02, smooth=0.003)
    canvas.grain(patch, textured(canvas, patch, body.pose, "flesh", 90), colour=0.08, relief=0.001)
    canvas.mark(patch, name)


@on_one
def broken(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Broken through across the middle; the halves lie a little apart."""
    at = body.pose.at(rng.normal(0, 0.02), -0.05, 90 + rng.normal(0, 12))
    path, gap = jagged(rng, 0.18, 0.009), rng.uniform(0.010, 0.030) * (0.5 + 0.5 * strength)
    torn = gap + rng.uniform(0.004, 0.014, len(path))
    remove(canvas, body, name, at(ribbon(path, gap)), at(ribbon(path, torn)), CUT)
