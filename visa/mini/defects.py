"""Defects that several objects share; each function marks the pixels that it draws on.

Every function takes the canvas, the body that it spoils, the name of the class to mark, a generator and a strength
(about 0.5 for a subtle defect, 1 for a plain one), which sets the contrast and, less so, the size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from visa.mini.canvas import Canvas, Colour, FloatMap, textured
from visa.mini.shapes import Points, Pose, blob, ellipse, jagged, ribbon, wander


@dataclass(frozen=True)
class Part:
    """A piece of a body: its outline in its own coordinates, and where it lies."""

    outline: Points
    pose: Pose
    kind: str = ""

    def on_picture(self, grow: float = 1.0) -> Points:
        """Return the outline on the picture, `grow` times as large."""
        return self.pose(self.outline * grow)


@dataclass(frozen=True)
class Body:
    """What was drawn: the subpixels that it covers, where it lies, its colour, what lies under it, and its parts.

    For a circuit board, `under` is the board without parts, and `bench` is the picture without the board.
    """

    cover: FloatMap
    pose: Pose
    colour: Colour
    under: Canvas
    parts: Sequence[Part] = ()
    bench: Canvas | None = None


Defect = Callable[[Canvas, Body, str, np.random.Generator, float], None]
Lay = Callable[[Canvas, Pose, np.random.Generator], Body]  # draws a piece in a pose
STEP = 4  # subpixels between the places from which one is drawn


def pick(body: Body, rng: np.random.Generator, least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
    """Pick a random place on the body between `least` and `most` units from its edge (or the nearest there is)."""
    coarse = cv2.copyMakeBorder((body.cover[::STEP, ::STEP] > 0.5).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform(coarse, cv2.DIST_L2, 3)[1:-1, 1:-1] * STEP / len(body.cover)
    miss = np.where(depth > 0, np.maximum(np.maximum(least - depth, depth - most), 0), np.inf)
    rows, columns = np.nonzero(miss <= miss.min() + 1e-6)
    k = rng.integers(len(rows))
    return float((columns[k] + 0.5) * STEP / len(body.cover)), float((rows[k] + 0.5) * STEP / len(body.cover))


def spot(colours: Sequence[Colour]) -> Defect:
    """Make a stain of one of the colours, clearly different from the body's."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        x, y = pick(body, rng, 0.012)
        radius = rng.uniform(0.012, 0.03) * (0.6 + 0.4 * strength)
        patch = canvas.patch(Pose(x, y)(blob(rng, radius)), soft=0.003).within(body.cover)
        colour = colours[int(rng.integers(len(colours)))]
        canvas.paint(patch, colour, opacity=min(0.9, 0.25 + 0.55 * strength), mark=name)

    return draw


def similar_spot(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Draw a stain in a darker or paler shade of the body's own colour."""
    x, y = pick(body, rng, 0.015)
    radius = rng.uniform(0.022, 0.045) * (0.7 + 0.3 * strength)
    patch = canvas.patch(Pose(x, y)(blob(rng, radius)), soft=0.004).within(body.cover)
    shade = (0.78, 0.66, 0.52) if rng.random() < 0.7 else (1.28, 1.36, 1.5)  # darker, or paler
    canvas.stain(patch, shade, amount=0.45 + 0.55 * strength, mark=name)


def burnt(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Draw scorched places: brown to black, mottled, with a soft edge."""
    x, y = pick(body, rng, 0.0, 0.05)
    for _ in range(rng.integers(1, 4)):
        at = Pose(x + rng.normal(0, 0.025), y + rng.normal(0, 0.025))
        radius = rng.uniform(0.025, 0.055) * (0.6 + 0.4 * strength)
        patch = canvas.patch(at(blob(rng, radius, 0.35)), soft=0.008).within(body.cover)
        canvas.stain(patch, (0.20, 0.11, 0.07), amount=min(0.95, 0.3 + 0.55 * strength))
        canvas.grain(patch, textured(canvas, patch, body.pose, "char", 60), colour=0.25, relief=0.0006)
        canvas.mark(patch, name, least=0.25)


def scratches(
    colour: Colour, count: tuple[int, int] = (1, 4), depth: float = 0.004, width: tuple[float, float] = (0.003, 0.0055)
) -> Defect:
    """Make fine strokes, roughly side by side, that lay `colour` bare."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        x, y = pick(body, rng, 0.02)
        angle = rng.uniform(0, 180)
        for _ in range(rng.integers(count[0], count[1] + 1)):
            at = Pose(x + rng.normal(0, 0.015), y + rng.normal(0, 0.015), angle + rng.normal(0, 12))
            path = wander(rng, rng.uniform(0.06, 0.15))
            taper = rng.uniform(*width) * np.sin(np.linspace(0.35, 2.8, len(path)))
            patch = canvas.patch(at(ribbon(path, taper))).within(body.cover)
            canvas.paint(patch, colour, opacity=min(0.85, 0.25 + 0.5 * strength), lift=-depth * strength, mark=name)

    return draw


def holes(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Draw a few small deep holes, as an insect leaves them."""
    x, y = pick(body, rng, 0.03)
    for _ in range(rng.integers(2, 6)):
        at = Pose(x + rng.normal(0, 0.025), y + rng.normal(0, 0.025), rng.uniform(0, 180))
        outline = at(ellipse(r := rng.uniform(0.005, 0.010), r * rng.uniform(0.6, 1)))
        patch = canvas.patch(outline).within(body.cover)
        canvas.height[patch.window] -= 0.012 * patch.cover
        canvas.stain(patch, (0.25, 0.18, 0.12), amount=min(0.95, 0.4 + 0.5 * strength), mark=name)


def breakage(size: tuple[float, float], flesh: Colour, least: float = 0.0, most: float = 0.004) -> Defect:
    """Break out a piece of `size` (least and greatest radius), `least` to `most` units from the edge."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        x, y = pick(body, rng, least, most)
        outline = blob(rng, rng.uniform(*size) * (0.6 + 0.4 * strength), 0.22, waves=4)
        remove(canvas, body, name, Pose(x, y)(outline), Pose(x, y)(outline * 1.12), flesh)

    return draw


def snapped(length: float, width: tuple[float, float], flesh: Colour, y: float = 0.0) -> Defect:
    """Break the body in two by a torn gap of `width` right across it, along its own y axis about (0, `y`)."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        at = body.pose.at(rng.normal(0, 0.02), y, 90 + rng.normal(0, 10))
        path = jagged(rng, length, 0.02)
        gap = rng.uniform(*width) * (0.5 + 0.5 * strength)
        remove(canvas, body, name, at(ribbon(path, gap)), at(ribbon(path, gap + 0.012)), flesh)

    return draw


def stuck_together(lay: Lay, scales: tuple[float, float], depth: float, outwards: float = 0.0) -> Defect:
    """Stick a second, smaller piece to the first one, on its edge or `outwards` units from it."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        x, y = pick(body, rng, 0.0, depth)
        away = np.array([x - 0.5, y - 0.5]) / (np.hypot(x - 0.5, y - 0.5) + 1e-9) * outwards
        scale = rng.uniform(*scales) * (0.7 + 0.3 * strength)
        stuck = lay(canvas, Pose(x + away[0], y + away[1], rng.uniform(0, 360), scale), rng)
        canvas.classes[stuck.cover > 0.3] = canvas.class_ids[name]

    return draw


def remove(canvas: Canvas, body: Body, name: str, piece: Points, torn: Points, flesh: Colour) -> None:
    """Take `piece` out of the body down to what lies under it; `torn`, around it, shows the broken flesh."""
    face = canvas.patch(torn).within(body.cover)
    canvas.paint(face, flesh, opacity=0.55, gloss=0.0, mark=name)
    canvas.grain(face, textured(canvas, face, body.pose, "flesh", 90), colour=0.10, relief=0.001)
    canvas.lay_bare(canvas.patch(piece), body.under)


def fibre(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Lay a hair or a thread over the body."""
    x, y = pick(body, rng, 0.02)
    path = wander(rng, rng.uniform(0.12, 0.26), bend=1.1, n=40)
    patch = canvas.patch(Pose(x, y, rng.uniform(0, 360))(ribbon(path, rng.uniform(0.003, 0.006))))
    colour = ((40, 34, 34), (150, 40, 50), (60, 80, 150))[rng.integers(3)]
    canvas.paint(patch, colour, opacity=min(0.95, 0.35 + 0.5 * strength), gloss=0.1, lift=0.004, mark=name)


def cracks(colour: Colour, length: tuple[float, float] = (0.07, 0.16)) -> Defect:
    """Make a hair crack: a jagged dark line from which a shorter one or two fork."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        at = Pose(*pick(body, rng, 0.015), rng.uniform(0, 360))
        whole = rng.uniform(*length) * (0.7 + 0.3 * strength)
        trunk = jagged(rng, whole, 0.06 * whole)
        lines = [trunk]
        for _ in range(rng.integers(1, 3)):
            turn, fork = rng.choice([-1, 1]) * rng.uniform(30, 60), jagged(rng, 0.4 * whole, 0.04 * whole)
            lines.append(Pose(0, 0, turn)(fork - fork[0]) + trunk[rng.integers(3, 11)])
        for line in lines:
            width = rng.uniform(0.0025, 0.0042) * np.linspace(1, 0.4, len(line))
            patch = canvas.patch(at(ribbon(line, width))).within(body.cover)
            opacity = min(0.9, 0.3 + 0.5 * strength)
            canvas.paint(patch, colour, opacity, gloss=0.0, lift=-0.004 * strength, mark=name)

    return draw


def either(first: Defect, second: Defect) -> Defect:
    """Draw one of two defects, by chance."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        (first if rng.random() < 0.5 else second)(canvas, body, name, rng, strength)

    return draw


def on_one(defect: Defect) -> Defect:
    """Draw the defect on one of the body's parts that have no kind, in place of the body."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        parts = [part for part in body.parts if not part.kind]
        part = parts[int(rng.integers(len(parts)))]
        cover = canvas.full(canvas.patch(part.on_picture()).within(body.cover))
        defect(canvas, Body(cover, part.pose, body.colour, body.under, (part,)), name, rng, strength)

    return draw
