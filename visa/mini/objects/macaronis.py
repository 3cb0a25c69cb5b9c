"""Macaroni1, four elbow macaroni in two rows, all lying the same way; and macaroni2, four each turned its own way."""

from types import SimpleNamespace

import numpy as np

from visa.mini import bench, defects
from visa.mini.canvas import Canvas, Colour, shift_colour, textured
from visa.mini.defects import Body, Part, on_one, pick, remove
from visa.mini.shapes import Pose, blob, jagged, ribbon
from visa.mini.tube import Tube, on_skin

DOUGH, CUT = (226, 182, 92), (240, 212, 142)
RIDGES = 15


def draw_rows(canvas: Canvas, rng: np.random.Generator) -> Body:
    """Macaroni1: two rows of two, each piece a little out of line."""
    frame = Pose(0.5 + rng.normal(0, 0.004), 0.5 + rng.normal(0, 0.004), rng.normal(0, 1))
    poses = [
        frame.at(x + rng.normal(0, 0.005), y + rng.normal(0, 0.006), rng.normal(0, 3), rng.normal(1.07, 0.012))
        for y in (-0.20, 0.20)
        for x in (-0.238, 0.238)
    ]
    return _lay(canvas, rng, (40, 66, 84), poses)


def draw_loose(canvas: Canvas, rng: np.random.Generator) -> Body:
    """Macaroni2: one piece in each quarter, far enough from the others not to touch however it is turned."""
    frame, near, turn = Pose(0.5, 0.5, rng.normal(0, 3)), (-0.025, 0.025), (-40, 40)
    poses = [
        frame.at(x + rng.uniform(*near), y + rng.uniform(*near), rng.uniform(*turn), rng.normal(0.9, 0.012))
        for y in (-0.25, 0.25)
        for x in (-0.25, 0.25)
    ]
    return _lay(canvas, rng, (58, 96, 66), poses)


def _lay(canvas: Canvas, rng: np.random.Generator, bench_colour: Colour, poses: list[Pose]) -> Body:
    """A piece at each of the poses."""
    bench.mat(canvas, rng, bench_colour)
    under, colour = canvas.layer(), shift_colour(DOUGH, rng, 0.02)
    cover, parts = np.zeros((canvas.side, canvas.side), np.float32), []
    for pose in poses:
        length, width, bend = rng.normal(0.36, 0.006), rng.normal(0.122, 0.002), rng.normal(2.45, 0.08)
        start, end = rng.uniform(0.34, 0.48, 2).tolist()
        tube = Tube(length, width, 0.095, bend, (start, end))
        patch = tube.draw(canvas, pose, shift_colour(colour, rng, 0.015), CUT, RIDGES, gloss=0.16, relief=0.0016)
        dx, dy, turn = rng.uniform((-0.2, -0.2, 0), (0.2, 0.2, 360)).tolist()
        own = pose.at(dx, dy, turn)  # no two pieces are mottled alike
        canvas.grain(patch, textured(canvas, patch, own, "macaroni", 26, 4), colour=0.04, relief=0.0003)
        np.maximum(cover, canvas.full(patch), out=cover)
        parts += [Part(tube.outline(), pose), *tube.holes(pose)]
    return Body(cover, Pose(), colour, under, parts)


@on_one
def crumb(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
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


chip = on_one(defects.breakage((0.022, 0.042), CUT))
different = on_skin(on_one(defects.spot([(60, 40, 30), (150, 60, 40), (80, 100, 50), (240, 236, 224)])))
similar = on_skin(on_one(defects.similar_spot))
LAST = {
    "small cracks": on_skin(on_one(defects.cracks((96, 62, 24)))),
    "small scratches": on_skin(on_one(defects.scratches((250, 228, 170)))),
    "other": defects.either(defects.fibre, crumb),
}
ROWS = {
    "chip around edge and corner": chip,
    "different colour spot": different,
    "middle breakage": broken,
    "similar colour spot": similar,
    **LAST,
}
LOOSE = {
    "breakage down the middle": broken,
    "color spot similar to the object": similar,
    "different color spot": different,
    "small chip around edge": chip,
    **LAST,
}
OBJECTS = {  # among four pieces, and the more so if they are turned every way, faint defects are not found
    "macaroni1": SimpleNamespace(draw=draw_rows, DEFECTS=ROWS, WEAR=0.3, STRENGTH=(0.7, 1.4)),
    "macaroni2": SimpleNamespace(draw=draw_loose, DEFECTS=LOOSE, WEAR=0.1, STRENGTH=(1.2, 1.5)),
}
