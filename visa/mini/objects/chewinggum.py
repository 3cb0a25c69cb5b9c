"""Chewing gum: one white, sugar-coated tablet on a dark mat."""

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, shift_colour, textured
from visa.mini.defects import Body, Defect, cracks, fibre, pick, remove, scratches, spot
from visa.mini.shapes import Points, Pose, blob, jagged, rectangle

LENGTH, WIDTH = 0.60, 0.38
GUM = (188, 186, 172)


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """A tablet near the middle: a cushion, not quite regular."""
    bench.mat(canvas, rng, (44, 62, 92))
    pose = Pose(0.5 + rng.normal(0, 0.012), 0.5 + rng.normal(0, 0.012), -14 + rng.normal(0, 5), rng.normal(1, 0.02))
    under, colour = canvas.layer(), shift_colour((206, 208, 204), rng, 0.015)
    patch = canvas.patch(pose(_outline(rng)))
    canvas.paint(patch, colour, gloss=0.42)
    canvas.level(patch)
    canvas.raise_round(patch, 0.095, edge=0.18, smooth=0.020)
    canvas.grain(patch, textured(canvas, patch, pose, "coating", 9, 2), colour=0.010, relief=0.0012)
    canvas.grain(patch, textured(canvas, patch, pose, "sugar", 120, 2), colour=0.012, relief=0.0002)
    return Body(canvas.full(patch), pose, colour, under)


def _outline(rng: np.random.Generator) -> Points:
    even = rectangle(LENGTH + rng.normal(0, 0.008), WIDTH + rng.normal(0, 0.006), 0.12)
    t = np.arctan2(even[:, 1], even[:, 0])
    swell = sum(rng.normal(0, 0.008) * np.cos(k * t + rng.uniform(0, 6)) for k in (2, 3, 5))
    return np.asarray(even * (1 + np.asarray(swell))[:, None])


def _chunk_missing(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A piece bitten out of the top: a rough hollow where the gum under the coating shows."""
    x, y = pick(body, rng, 0.03, 0.12)
    at = Pose(x, y, rng.uniform(0, 180))
    patch = canvas.patch(at(blob(rng, rng.uniform(0.03, 0.06) * (0.6 + 0.4 * strength), 0.28))).within(body.cover)
    canvas.raise_round(patch, -0.020 - 0.020 * strength, edge=0.020, smooth=0.002)
    canvas.paint(patch, GUM, opacity=min(1, 0.5 + 0.5 * strength), gloss=0.02)
    canvas.grain(patch, textured(canvas, patch, body.pose, "flesh", 90), colour=0.06, relief=0.0016)
    canvas.mark(patch, name)


def _corner_missing(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """One of the four corners broken off along a torn line."""
    sx, sy = rng.choice([-1, 1], 2)
    reach = rng.uniform(0.055, 0.095) * (0.6 + 0.4 * strength)  # from the round corner inwards
    angle = np.rad2deg(np.arctan2(sy, sx)) + rng.normal(0, 12)
    corner = body.pose.at(sx * (LENGTH / 2 - 0.035), sy * (WIDTH / 2 - 0.035), angle)
    line = jagged(rng, 0.5, 0.012)[:, ::-1]
    off: Points = np.concatenate([line - (reach, 0), [(0.3, 0.25), (0.3, -0.25)]])
    remove(canvas, body, name, corner(off), corner(off - (0.016, 0)), GUM)


DEFECTS: dict[str, Defect] = {
    "chunk of gum missing": _chunk_missing,
    "corner missing": _corner_missing,
    "scratches": scratches((138, 138, 134), depth=0.005),
    "similar colour spot": spot([(180, 178, 166), (192, 182, 154), (172, 182, 188)]),
    "small cracks": cracks((104, 102, 96)),
    "other": fibre,
}
