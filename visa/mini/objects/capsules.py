"""Capsules: a handful of soft, translucent capsules scattered on a pale table."""

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, Colour, FloatMap, shift_colour, textured
from visa.mini.defects import Body, Defect, Part, scratches
from visa.mini.shapes import Points, Pose, blob, ellipse, rectangle, ribbon

LENGTH, WIDTH = 0.232, 0.118
GEL = (158, 150, 58)
WEAR, STRENGTH = 0.2, (1.1, 1.5)  # faint defects on six capsules would be too hard to find


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """Six capsules in any pose, one in each of six fields."""
    bench.table(canvas, rng, (206, 203, 196))
    under, colour = canvas.layer(), shift_colour(GEL, rng, 0.006)
    outline = rectangle(LENGTH, WIDTH, WIDTH / 2 - 0.001)
    shifts = rng.uniform((-0.028, -0.05, 0), (0.028, 0.05, 360), (6, 3)).tolist()  # too little for two to touch
    fields = [(x, y) for y in (0.30, 0.70) for x in (0.19, 0.5, 0.81)]
    parts = [Part(outline, Pose(x + dx, y + dy, turn)) for (x, y), (dx, dy, turn) in zip(fields, shifts, strict=True)]
    cover = np.zeros((canvas.side, canvas.side), np.float32)
    for part in parts:
        np.maximum(cover, _capsule(canvas, part, shift_colour(colour, rng, 0.008)), out=cover)
    return Body(cover, Pose(), colour, under, parts)


def _capsule(canvas: Canvas, part: Part, colour: Colour) -> FloatMap:
    patch = canvas.patch(part.on_picture())
    cover = canvas.full(patch)
    canvas.paint(patch, colour, gloss=0.5)
    # the gel gathers light on the side away from the lamp
    far_side = Pose(part.pose.x + 0.016, part.pose.y + 0.019, part.pose.angle)
    glow = canvas.patch(far_side(ellipse(LENGTH * 0.36, WIDTH * 0.25)), soft=0.014).within(cover)
    canvas.paint(glow, (216, 208, 92), opacity=0.7)
    canvas.level(patch)
    canvas.raise_round(patch, 0.050, edge=0.050, smooth=0.005)
    seam = ribbon(np.array([[-LENGTH / 2, 0.006], [0, 0.009], [LENGTH / 2, 0.006]]), 0.004)
    canvas.stain(canvas.patch(part.pose(seam)).within(cover), (0.72, 0.72, 0.6))
    canvas.grain(patch, textured(canvas, patch, part.pose, "gel", 30), colour=0.03)
    return cover


def _bubble(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """An air bubble inside: a dark ring with a bright middle and a highlight."""
    part = body.parts[int(rng.integers(6))]
    at = part.pose.at(rng.uniform(-0.06, 0.06), rng.normal(0, 0.009))
    r = rng.uniform(0.028, 0.042) * (0.7 + 0.3 * strength)
    ring = canvas.patch(at(ellipse(r, r * 0.92)), soft=0.0012).within(body.cover)
    canvas.stain(ring, (0.25, 0.25, 0.2), amount=min(1, 0.3 + 0.5 * strength), mark=name)
    middle = canvas.patch(at(ellipse(r * 0.75, r * 0.68)), soft=0.002).within(body.cover)
    canvas.paint(middle, (228, 224, 150), opacity=min(0.9, 0.35 + 0.4 * strength))
    canvas.paint(canvas.patch(Pose(at.x - 0.3 * r, at.y - 0.35 * r)(ellipse(r * 0.2))), (255, 255, 245), opacity=0.9)


def _discolor(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A capsule whose gel has turned, from one end on: brown, pale or reddish."""
    part = body.parts[int(rng.integers(6))]
    factor = ((0.42, 0.26, 0.24), (1.6, 1.6, 3.2), (1.15, 0.42, 0.4))[rng.integers(3)]
    end = part.pose.at(rng.choice([-1, 1]) * LENGTH * rng.uniform(0.1, 0.4), 0)
    patch = canvas.patch(end(ellipse(LENGTH * 0.62, WIDTH)), soft=0.008)
    patch = patch.within(canvas.full(canvas.patch(part.on_picture())))
    canvas.stain(patch, factor, amount=min(1, 0.35 + 0.6 * strength), mark=name)


def _leak(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Oil that has run out of one end onto the table: a glossy, tinted puddle."""
    part = body.parts[int(rng.integers(6))]
    end = part.pose.at(rng.choice([-1, 1]) * LENGTH * 0.5, rng.normal(0, 0.016))
    puddle = canvas.patch(end(blob(rng, rng.uniform(0.050, 0.075) * (0.7 + 0.3 * strength), 0.2)), soft=0.002)
    puddle = puddle.without(body.cover)
    canvas.stain(puddle, (0.42, 0.26, 0.10), amount=min(1, 0.35 + 0.6 * strength), mark=name)
    canvas.gloss[puddle.window] += 0.25 * puddle.cover
    canvas.raise_round(puddle, 0.005, edge=0.010)


def _misshape(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A capsule pinched, bent or swollen in place of the sound one."""
    part = body.parts[int(rng.integers(6))]
    sound = canvas.patch(part.on_picture(1.02))
    canvas.lay_bare(sound, body.under)
    t = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 48))
    pinch, bend = rng.uniform(0.35, 0.6) * strength, rng.uniform(-0.03, 0.03) * (1 + strength)
    width = WIDTH * np.sqrt(np.clip(1 - np.abs(t) ** 3.5, 0.02, 1)) * (1 - pinch * np.exp(-((3 * (t - 0.2)) ** 2)))
    spine: Points = np.stack([t * LENGTH / 2 * rng.uniform(0.85, 1.0), bend * (1 - 2 * t * t)], axis=1)
    cover = _capsule(canvas, Part(ribbon(spine, width), part.pose), body.colour)
    canvas.mark(sound, name)
    canvas.classes[cover > 0.3] = canvas.class_ids[name]


DEFECTS: dict[str, Defect] = {
    "bubble": _bubble,
    "discolor": _discolor,
    "scratch": scratches((236, 232, 186), count=(2, 4), depth=0.003, width=(0.005, 0.009)),
    "leak": _leak,
    "misshape": _misshape,
}
