"""Fryum: a fried wheel with six spokes on a green mat."""

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, Patch, shift_colour, textured
from visa.mini.defects import Body, Defect, breakage, burnt, fibre, remove, scratches, similar_spot, spot
from visa.mini.shapes import Points, Pose, blob, ellipse, ribbon

FLESH = (250, 226, 176)
RIM, INNER, HUB, SPOKE = 0.235, 0.165, 0.062, 0.046  # radii of the wheel, its windows and its hub; width of a spoke


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """A wheel near the middle, slightly oval."""
    bench.mat(canvas, rng, (44, 124, 92))
    pose = Pose(0.5 + rng.normal(0, 0.01), 0.5 + rng.normal(0, 0.01), rng.normal(0, 4), rng.normal(1.4, 0.02))
    return _wheel(canvas, pose, rng)


def _wheel(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Body:
    under, colour = canvas.layer(), shift_colour((240, 190, 122), rng)
    disc = canvas.patch(pose(blob(rng, RIM, 0.012)))
    cover = canvas.full(disc)
    for window in (*(_window(k, rng) for k in range(6)), ellipse(0.02, 0.016)):
        hole = canvas.patch(pose(window))
        cover[hole.window] *= 1 - hole.cover
    wheel = Patch(disc.window, cover[disc.window])
    canvas.paint(wheel, colour, gloss=0.22)
    canvas.level(wheel)
    canvas.raise_round(wheel, 0.034, edge=0.030, smooth=0.006)
    canvas.grain(wheel, textured(canvas, wheel, pose, "fryum", 22, 5), colour=0.06, relief=0.0007)
    return Body(cover, pose, colour, under)


def _window(k: int, rng: np.random.Generator) -> Points:
    """The opening between two spokes: a wedge with round corners."""
    half = np.deg2rad(30) - SPOKE / 2 / np.array([INNER, HUB]) + rng.normal(0, 0.01)
    inner, outer = HUB + rng.normal(0, 0.002), INNER + rng.normal(0, 0.002)
    across = np.linspace(-1, 1, 16)
    angle = np.concatenate([across * half[0], -across * half[1]])
    radius = np.concatenate([outer - 0.012 * across**4, inner + 0.006 * across**4])
    angle += np.deg2rad(60 * k + 30)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _stuck_together(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A second, shrunken wheel baked onto the rim of the first."""
    scale = rng.uniform(0.22, 0.42) * (0.7 + 0.3 * strength)
    at = body.pose.at(0, 0, rng.uniform(0, 360)).at(RIM * rng.uniform(0.85, 1.1), 0, rng.uniform(0, 360), scale)
    second = _wheel(canvas, at, rng)
    canvas.classes[second.cover > 0.3] = canvas.class_ids[name]


def _middle_breakage(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A spoke broken away, wholly or in part."""
    start, end = HUB - 0.01, HUB + (INNER - HUB + 0.01) * (0.45 + 0.55 * min(1, strength))
    along = np.linspace(start, end, 10)
    spoke = ribbon(np.stack([along, rng.normal(0, 0.003, 10)], axis=1), 0.075)
    at = body.pose.at(0, 0, 60.0 * rng.integers(6))
    remove(canvas, body, name, at(spoke), at(spoke * (1.05, 1.0) - (0.004, 0)), FLESH)


def _window_closed(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A skin of batter that closes one of the windows."""
    patch = canvas.patch(body.pose(_window(int(rng.integers(6)), rng) * 1.01)).without(body.cover)
    canvas.paint(patch, shift_colour(body.colour, rng), opacity=min(0.95, 0.45 + 0.4 * strength), gloss=0.2)
    canvas.height[patch.window] += 0.012 * patch.cover
    canvas.mark(patch, name)


def _other(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    defect = fibre if rng.random() < 0.5 else _window_closed
    defect(canvas, body, name, rng, strength)


DEFECTS: dict[str, Defect] = {
    "burnt": burnt,
    "corner or edge breakage": breakage((0.035, 0.065), FLESH),
    "different colour spot": spot([(80, 40, 30), (170, 50, 40), (60, 70, 50)]),
    "fryum stuck together": _stuck_together,
    "middle breakage": _middle_breakage,
    "similar colour spot": similar_spot,
    "small scratches": scratches((186, 120, 60)),
    "other": _other,
}
