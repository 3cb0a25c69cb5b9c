"""A bent tube that lies on the bench, its ends open: pasta and pipe-shaped snacks."""

from dataclasses import dataclass, replace

import numpy as np

from visa.mini.canvas import Canvas, Colour, FloatMap, Patch, blur
from visa.mini.defects import Body, Defect, Part
from visa.mini.shapes import Points, Pose, ellipse

SAMPLES = 40


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
        """Own coordinates (n, 2) of places `along` the spine (-length/2 to length/2), `outwards` from it."""
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
        """Along and outwards of every subpixel in the patch's window."""
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
    """The defect anywhere but in the dark of the body's holes, where nobody would see it."""

    def draw(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
        cover = body.cover.copy()
        for part in body.parts:
            if part.kind == "hole":
                hole = canvas.patch(part.on_picture())
                cover[hole.window] *= 1 - hole.cover
        defect(canvas, replace(body, cover=cover), name, rng, strength)

    return draw
