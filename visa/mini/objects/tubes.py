"""Bent tubes with open ends: four elbow macaroni (1: in rows, 2: each turned at random), one pipe fryum."""

from dataclasses import dataclass, replace
from itertools import product
from types import SimpleNamespace

import numpy as np

from visa.mini import bench, defects
from visa.mini.canvas import Canvas, Colour, FloatMap, Patch, blur, shift_colour, textured
from visa.mini.defects import Body, Defect, Part, on_one, pick, remove
from visa.mini.shapes import Points, Pose, blob, ellipse, jagged, ribbon

DOUGH, CUT, PIPE = (226, 182, 92), (240, 212, 142), (252, 222, 150)  # of macaroni; the pipe's cut ends
SAMPLES, RIDGES = 40, 15


@dataclass(frozen=True)
class Tube:
    """The shape: `length` along the spine, `width`, height `tall`, `bend` in radians from end to end (more than 0).

    `tips` is how far the start and the end open towards the viewer: the depth of the opening's oval, as a share of
    its width. An end of a negative tip faces away and shows no opening.
    """

    length: float
    width: float
    tall: float
    bend: float
    tips: tuple[float, float]

    def point(self, along: np.ndarray, outwards: np.ndarray) -> Points:
        """Return own coordinates (n, 2) of places `along` the spine (-length/2 to length/2), `outwards` from it."""
        spine, angle = self.length / self.bend, along / self.length * self.bend
        sag = spine * (1 - np.cos(self.bend / 2)) / 2
        radius = spine + outwards
        return np.stack([radius * np.sin(angle), spine - radius * np.cos(angle) - sag], axis=1)

    def outline(self) -> Points:
        """The outline: two long sides between two oval ends."""
        t, half = np.linspace(-np.pi / 2, np.pi / 2, 16), self.length / 2
        side = np.linspace(-half, half, SAMPLES)
        edge = np.full(SAMPLES, self.width / 2)
        start, end = (abs(tip) * self.width / 2 * np.cos(t) for tip in self.tips)
        across = self.width / 2 * np.sin(t)
        along = np.concatenate([side, half + end[::-1], side[::-1], -half - start])
        return self.point(along, np.concatenate([edge, across[::-1], -edge, across]))

    def mouth(self, end: int, scale: float = 1.0, inwards: float = 0.0) -> Points:
        """The oval of the opening at the start (-1) or the end (1), `scale` times as large."""
        oval = ellipse(abs(self.tips[end > 0]) * self.width / 2, self.width / 2) * scale
        return self.point(end * (self.length / 2 - inwards) + oval[:, 0], oval[:, 1])

    def coordinates(self, canvas: Canvas, patch: Patch, pose: Pose) -> tuple[FloatMap, FloatMap]:
        """Return the coordinates along and outwards of every subpixel in the patch's window."""
        rows, columns = ((np.arange(s.start, s.stop) + 0.5) / canvas.side for s in patch.window)
        x, y = np.meshgrid(columns - pose.x, rows - pose.y)
        a = np.deg2rad(pose.angle)
        u, v = (x * np.cos(a) + y * np.sin(a)) / pose.scale, (y * np.cos(a) - x * np.sin(a)) / pose.scale
        spine = self.length / self.bend
        up = spine - spine * (1 - np.cos(self.bend / 2)) / 2 - v
        return (spine * np.arctan2(u, up)).astype(np.float32), (np.hypot(u, up) - spine).astype(np.float32)

    def holes(self, pose: Pose) -> list[Part]:
        """The openings that can be seen."""
        return [Part(self.mouth(end, 0.68), pose, "hole") for end in (-1, 1) if self.tips[end > 0] > 0]

    def draw(
        self, canvas: Canvas, pose: Pose, colour: Colour, wall: Colour, ridges: float, gloss: float, relief: float
    ) -> Patch:
        """Lay the tube on the canvas: `ridges` along it (waves around the whole tube), `wall` its cut ends' colour."""
        patch = canvas.patch(pose(self.outline()))
        _, outwards = self.coordinates(canvas, patch, pose)
        across = np.clip(outwards / (self.width / 2), -1, 1)
        wave = np.cos(ridges * np.arcsin(across))
        canvas.paint(patch, colour, gloss=gloss)
        canvas.grain(patch, wave, colour=0.05)
        canvas.stain(Patch(patch.window, patch.cover * across**6), (0.80, 0.72, 0.60))
        canvas.level(patch)
        ground = float(canvas.height[patch.window].mean())
        height = self.tall / 2 * (1 + np.sqrt(1 - across * across)) + relief * wave
        canvas.height[patch.window] += pose.scale * patch.cover * blur(height, 0.0025 * canvas.side)
        for end in (-1, 1):
            if self.tips[end > 0] > 0:
                self._open(canvas, pose, end, ground, colour, wall)
        return patch

    def _open(self, canvas: Canvas, pose: Pose, end: int, ground: float, colour: Colour, wall: Colour) -> None:
        """Cut the end open: a slanting ring of wall around a hole, darkest towards the inside."""
        face, hole = canvas.patch(pose(self.mouth(end))), canvas.patch(pose(self.mouth(end, 0.68)))
        deep = self.tips[end > 0] * self.width / 2
        along, _ = self.coordinates(canvas, face, pose)
        slant = self.tall / 2 * (1 - (end * along - self.length / 2) / deep)
        canvas.level(face, ground + pose.scale * slant)
        canvas.height[hole.window] -= 0.25 * self.tall * pose.scale * hole.cover
        canvas.level(face, blur(canvas.height[face.window], 0.003 * canvas.side))
        canvas.paint(face, wall, gloss=0.05)
        r, g, b = colour
        canvas.paint(hole, (0.62 * r, 0.55 * g, 0.45 * b), gloss=0.0)
        dark = canvas.patch(pose(self.mouth(end, 0.54, 0.12 * deep)), soft=0.08 * deep)
        canvas.paint(dark, (0.22 * r, 0.16 * g, 0.12 * b))


def on_skin(defect: Defect) -> Defect:
    """Draw the defect anywhere but in the body's holes, which are so dark that it could not be seen."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        cover = body.cover.copy()
        for part in body.parts:
            if part.kind == "hole":
                hole = canvas.patch(part.on_picture())
                cover[hole.window] *= 1 - hole.cover
        defect(canvas, replace(body, cover=cover), name, rng, strength)

    return draw


def draw_rows(canvas: Canvas, rng: np.random.Generator) -> Body:
    """Macaroni1: two rows of two, each piece a little out of line."""
    frame = Pose(0.5 + rng.normal(0, 0.004), 0.5 + rng.normal(0, 0.004), rng.normal(0, 1))
    poses = [
        frame.at(x + rng.normal(0, 0.005), y + rng.normal(0, 0.006), rng.normal(0, 3), rng.normal(1.07, 0.012))
        for y, x in product((-0.20, 0.20), (-0.238, 0.238))
    ]
    return _lay(canvas, rng, (40, 66, 84), poses)


def draw_loose(canvas: Canvas, rng: np.random.Generator) -> Body:
    """Macaroni2: one piece in each quarter, far enough from the others not to touch however it is turned."""
    frame, near, turn = Pose(0.5, 0.5, rng.normal(0, 3)), (-0.025, 0.025), (-40, 40)
    poses = [
        frame.at(x + rng.uniform(*near), y + rng.uniform(*near), rng.uniform(*turn), rng.normal(0.9, 0.012))
        for y, x in product((-0.25, 0.25), repeat=2)
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
        own = pose.at(*rng.uniform((-0.2, -0.2, 0), (0.2, 0.2, 360)).tolist())  # no two pieces are mottled alike
        canvas.grain(patch, textured(canvas, patch, own, "macaroni", 26, 4), colour=0.04, relief=0.0003)
        np.maximum(cover, canvas.full(patch), out=cover)
        parts += [Part(tube.outline(), pose), *tube.holes(pose)]
    return Body(cover, Pose(), colour, under, parts)


def pipe(canvas: Canvas, pose: Pose, rng: np.random.Generator) -> Body:
    """A pipe fryum, blistered and open towards the viewer at one end."""
    under, colour = canvas.layer(), shift_colour((236, 160, 62), rng, 0.025)
    tip = rng.uniform(0.42, 0.56)
    tube = Tube(rng.normal(0.50, 0.015), rng.normal(0.27, 0.006), 0.10, rng.uniform(0.05, 0.25), (tip, -tip))
    patch = tube.draw(canvas, pose, colour, PIPE, ridges=17, gloss=0.30, relief=0.0035)
    own = pose.at(*rng.uniform((-0.2, -0.2, 0), (0.2, 0.2, 360)).tolist())  # no two pipes are fried alike
    canvas.grain(patch, textured(canvas, patch, own, "pipe", 26, 4), colour=0.06, relief=0.0012)
    brown = np.clip(0.22 * textured(canvas, patch, own, "toast", 5, 4), 0, 1)
    canvas.stain(Patch(patch.window, patch.cover * brown), (0.55, 0.36, 0.22))
    return Body(canvas.full(patch), pose, colour, under, tube.holes(pose))


@on_one
def crumb(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A crumb of another piece, stuck to this one."""
    x, y = pick(body, rng, 0.0, 0.02)
    patch = canvas.patch(Pose(x, y)(blob(rng, rng.uniform(0.020, 0.034) * (0.7 + 0.3 * strength), 0.3)))
    canvas.paint(patch, shift_colour(body.colour, rng, 0.03), gloss=0.1, mark=name)
    canvas.raise_round(patch, 0.03, edge=0.02, smooth=0.003)
    canvas.grain(patch, textured(canvas, patch, body.pose, "flesh", 90), colour=0.08, relief=0.001)


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
OBJECTS = {  # faint defects among four pieces would be too hard to find, above all if the pieces are turned at random
    "macaroni1": SimpleNamespace(draw=draw_rows, DEFECTS=ROWS, WEAR=0.3, STRENGTH=(0.7, 1.4)),
    "macaroni2": SimpleNamespace(draw=draw_loose, DEFECTS=LOOSE, WEAR=0.1, STRENGTH=(1.2, 1.5)),
    "pipe_fryum": SimpleNamespace(
        draw=bench.near_middle(pipe, (44, 116, 100), 0.012, 0.5, (-24, 5), (1, 0.02)),
        DEFECTS={
            "burnt": on_skin(defects.burnt),
            "corner and edge breakage": defects.breakage((0.04, 0.075), PIPE),
            "different colour spot": on_skin(defects.spot([(70, 34, 26), (150, 40, 34), (90, 100, 50)])),
            "middle breakage": defects.snapped(0.40, (0.014, 0.045), PIPE),
            "similar colour spot": on_skin(defects.similar_spot),
            "small scratches": on_skin(defects.scratches((252, 208, 128))),
            "stuck together": defects.stuck_together(pipe, (0.32, 0.5), depth=0.01),
            "small cracks": on_skin(defects.cracks((96, 40, 12))),
            "other": defects.fibre,
        },
    ),
}
