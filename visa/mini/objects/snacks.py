"""One piece on a mat: fryum, a fried wheel with six spokes; cashew, a curved kernel; chewing gum, a white tablet."""

from types import SimpleNamespace

import numpy as np

from visa.mini import defects
from visa.mini.bench import near_middle
from visa.mini.canvas import Canvas, Patch, shift_colour, textured
from visa.mini.defects import Body, breakage, burnt, fibre, pick, remove, scratches, similar_spot, spot
from visa.mini.shapes import Points, Pose, blob, ellipse, jagged, rectangle, ribbon

FRYUM, KERNEL = (250, 226, 176), (246, 234, 208)  # what shows where a piece is broken
RIM, INNER, HUB, SPOKE = 0.235, 0.165, 0.062, 0.046  # radii of the wheel, its windows and its hub; width of a spoke
ALONG = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 48))  # a kernel from end to end, closer where the ends curve
LENGTH, WIDTH, GUM = 0.60, 0.38, (188, 186, 172)  # of a tablet; its colour below the coating


def wheel(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Body:
    """A fryum, slightly oval."""
    under, colour = canvas.layer(), shift_colour((240, 190, 122), rng)
    disc = canvas.patch(pose(blob(rng, RIM, 0.012)))
    cover = canvas.full(disc)
    for opening in (*(window(k, rng) for k in range(6)), ellipse(0.02, 0.016)):
        hole = canvas.patch(pose(opening))
        cover[hole.window] *= 1 - hole.cover
    wheel = Patch(disc.window, cover[disc.window])
    canvas.paint(wheel, colour, gloss=0.22)
    canvas.level(wheel)
    canvas.raise_round(wheel, 0.034, edge=0.030, smooth=0.006)
    canvas.grain(wheel, textured(canvas, wheel, pose, "fryum", 22, 5), colour=0.06, relief=0.0007)
    return Body(cover, pose, colour, under)


def window(k: int, rng: np.random.Generator) -> Points:
    """The opening between two spokes: a wedge with round corners."""
    half = np.deg2rad(30) - SPOKE / 2 / np.array([INNER, HUB]) + rng.normal(0, 0.01)
    inner, outer = HUB + rng.normal(0, 0.002), INNER + rng.normal(0, 0.002)
    across = np.linspace(-1, 1, 16)
    angle = np.concatenate([across * half[0], -across * half[1]])
    radius = np.concatenate([outer - 0.012 * across**4, inner + 0.006 * across**4])
    angle += np.deg2rad(60 * k + 30)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def kernel(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Body:
    """A cashew with its seam."""
    under, colour = canvas.layer(), shift_colour((226, 196, 150), rng, 0.025)
    swell = 1 + rng.normal(0.12, 0.03) * ALONG + rng.normal(0, 0.04) * ALONG * ALONG
    patch = canvas.patch(pose(ribbon(spine(0.185), 0.185 * np.sqrt(1 - np.abs(ALONG) ** 3.2) * swell)))
    canvas.paint(patch, colour, gloss=0.10)
    canvas.level(patch)
    canvas.raise_round(patch, 0.075, edge=0.085, smooth=0.014)
    seam = canvas.patch(pose(ribbon(spine(0.185 - 0.075), 0.010)), soft=0.004).within(canvas.full(patch))
    canvas.stain(seam, (0.80, 0.72, 0.60))
    canvas.height[seam.window] -= 0.002 * seam.cover
    canvas.grain(patch, textured(canvas, patch, pose, "cashew", 16, 5), colour=0.05, relief=0.0006)
    return Body(canvas.full(patch), pose, colour, under)


def spine(radius: float) -> Points:
    """A line along a kernel's bend."""
    t = np.deg2rad(270 + 82 * ALONG)
    return np.stack([radius * np.cos(t), 0.09 + radius * np.sin(t)], axis=1)


def tablet(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Body:
    """A sugar-coated chewing gum: a cushion, not quite regular."""
    under, colour = canvas.layer(), shift_colour((206, 208, 204), rng, 0.015)
    even = rectangle(LENGTH + rng.normal(0, 0.008), WIDTH + rng.normal(0, 0.006), 0.12)
    t = np.arctan2(even[:, 1], even[:, 0])
    swell = np.sum([rng.normal(0, 0.008) * np.cos(k * t + rng.uniform(0, 6)) for k in (2, 3, 5)], axis=0)
    patch = canvas.patch(pose(even * (1 + swell)[:, None]))
    canvas.paint(patch, colour, gloss=0.42)
    canvas.level(patch)
    canvas.raise_round(patch, 0.095, edge=0.18, smooth=0.020)
    canvas.grain(patch, textured(canvas, patch, pose, "coating", 9, 2), colour=0.010, relief=0.0012)
    canvas.grain(patch, textured(canvas, patch, pose, "sugar", 120, 2), colour=0.012, relief=0.0002)
    return Body(canvas.full(patch), pose, colour, under)


def second_wheel(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A second, shrunken wheel baked onto the rim of the first."""
    scale = rng.uniform(0.22, 0.42) * (0.7 + 0.3 * strength)
    at = body.pose.at(0, 0, rng.uniform(0, 360)).at(RIM * rng.uniform(0.85, 1.1), 0, rng.uniform(0, 360), scale)
    canvas.classes[wheel(canvas, at, rng).cover > 0.3] = canvas.class_ids[name]


def broken_spoke(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A spoke broken away, wholly or in part."""
    start, end = HUB - 0.01, HUB + (INNER - HUB + 0.01) * (0.45 + 0.55 * min(1, strength))
    along = np.linspace(start, end, 10)
    spoke = ribbon(np.stack([along, rng.normal(0, 0.003, 10)], axis=1), 0.075)
    at = body.pose.at(0, 0, 60.0 * rng.integers(6))
    remove(canvas, body, name, at(spoke), at(spoke * (1.05, 1.0) - (0.004, 0)), FRYUM)


def closed_window(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A skin of batter that closes one of the windows."""
    patch = canvas.patch(body.pose(window(int(rng.integers(6)), rng) * 1.01)).without(body.cover)
    canvas.paint(patch, shift_colour(body.colour, rng), opacity=min(0.95, 0.45 + 0.4 * strength), gloss=0.2, lift=0.012)
    canvas.mark(patch, name)


def bitten(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A piece bitten out of the top: a rough hollow where the gum under the coating shows."""
    at = Pose(*pick(body, rng, 0.03, 0.12), rng.uniform(0, 180))
    patch = canvas.patch(at(blob(rng, rng.uniform(0.03, 0.06) * (0.6 + 0.4 * strength), 0.28))).within(body.cover)
    canvas.raise_round(patch, -0.020 - 0.020 * strength, edge=0.020, smooth=0.002)
    canvas.paint(patch, GUM, opacity=min(1, 0.5 + 0.5 * strength), gloss=0.02, mark=name)
    canvas.grain(patch, textured(canvas, patch, body.pose, "flesh", 90), colour=0.06, relief=0.0016)


def corner_off(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """One of the four corners broken off along a torn line."""
    sx, sy = rng.choice([-1, 1], 2)
    reach = rng.uniform(0.055, 0.095) * (0.6 + 0.4 * strength)  # from the round corner inwards
    angle = np.rad2deg(np.arctan2(sy, sx)) + rng.normal(0, 12)
    corner = body.pose.at(sx * (LENGTH / 2 - 0.035), sy * (WIDTH / 2 - 0.035), angle)
    line = jagged(rng, 0.5, 0.012)[:, ::-1]
    off = np.concatenate([line - (reach, 0), [(0.3, 0.25), (0.3, -0.25)]])
    remove(canvas, body, name, corner(off), corner(off - (0.016, 0)), GUM)


OBJECTS = {
    "fryum": SimpleNamespace(
        draw=near_middle(wheel, (44, 124, 92), 0.01, 0.5, (0, 4), (1.4, 0.02)),
        DEFECTS={
            "burnt": burnt,
            "corner or edge breakage": breakage((0.035, 0.065), FRYUM),
            "different colour spot": spot([(80, 40, 30), (170, 50, 40), (60, 70, 50)]),
            "fryum stuck together": second_wheel,
            "middle breakage": broken_spoke,
            "similar colour spot": similar_spot,
            "small scratches": scratches((186, 120, 60)),
            "other": defects.either(fibre, closed_window),
        },
    ),
    "cashew": SimpleNamespace(
        draw=near_middle(kernel, (70, 92, 112), 0.01, 0.58, (8, 5), (1.35, 0.03)),
        DEFECTS={
            "burnt": burnt,
            "corner or edge breakage": breakage((0.04, 0.07), KERNEL),
            "different colour spot": spot([(70, 40, 30), (150, 60, 40), (90, 100, 50)]),
            "middle breakage": defects.snapped(0.26, (0.012, 0.04), KERNEL, y=-0.09),
            "small holes": defects.holes,
            "small scratches": scratches((170, 128, 84)),
            "stuck together": defects.stuck_together(kernel, (0.55, 0.8), depth=0.004, outwards=0.035),
            "same colour spot": similar_spot,
            "other": fibre,
        },
        WEAR=1.7,
        STRENGTH=(0.2, 0.8),  # defects are easy to find on one kernel in the middle
    ),
    "chewinggum": SimpleNamespace(
        draw=near_middle(tablet, (44, 62, 92), 0.012, 0.5, (-14, 5), (1, 0.02)),
        DEFECTS={
            "chunk of gum missing": bitten,
            "corner missing": corner_off,
            "scratches": scratches((138, 138, 134), depth=0.005),
            "similar colour spot": spot([(180, 178, 166), (192, 182, 154), (172, 182, 188)]),
            "small cracks": defects.cracks((104, 102, 96)),
            "other": fibre,
        },
    ),
}
