"""Things that look the same in every picture: drawn once in the middle of a canvas, then laid in any pose."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from visa.mini.canvas import Canvas, Colour, FloatMap, Patch
from visa.mini.shapes import Points, Pose


@dataclass(frozen=True)
class Stamp:
    """What was drawn inside an outline that reaches `reach` (x, y) units from the middle.

    `paint` (h, w, 4) is RGB times cover, and cover; `relief` (h, w, 2) height times cover, and gloss times cover.
    """

    reach: Points
    paint: FloatMap
    relief: FloatMap

    @classmethod
    def cut(cls, canvas: Canvas, outline: Points) -> "Stamp":
        """Cut `outline` out of a canvas on which nothing but the thing was drawn, in the middle and upright."""
        reach, middle = np.abs(outline).max(axis=0), canvas.side // 2
        x, y = np.minimum(np.ceil(reach * canvas.side).astype(int) + 3, middle)
        window = slice(middle - y, middle + y), slice(middle - x, middle + x)
        cover = canvas.full(canvas.patch(Pose()(outline)))[window]
        relief = np.dstack([canvas.height[window], canvas.gloss[window]])
        return cls(reach, np.dstack([canvas.albedo[window], cover]), relief)

    def lay(self, canvas: Canvas, pose: Pose, tone: npt.ArrayLike = (1.0, 1.0, 1.0)) -> Patch:
        """Lay it flat on what is there, its colour multiplied by `tone`; the patch that it covers now."""
        window, (paint, relief) = self._turned(canvas.side, pose)
        cover, (height, gloss) = cv2.extractChannel(paint, 3), cv2.split(relief)
        bare = 1 - cover
        canvas.albedo[window] *= cv2.merge([bare, bare, bare])
        canvas.albedo[window] += cv2.transform(paint, np.eye(3, 4) * np.reshape(tone, (3, 1)))
        ground = float(np.vdot(canvas.height[window], cover) / max(cover.sum(), 1e-6))
        canvas.height[window] *= bare
        canvas.height[window] += height + ground * cover
        canvas.gloss[window] *= bare
        canvas.gloss[window] += gloss
        return Patch(window, np.asarray(cover, np.float32))

    def _turned(self, side: int, pose: Pose) -> tuple[tuple[slice, slice], list[FloatMap]]:
        """The window that it takes up in this pose, and its maps there."""
        matrix = pose.matrix()
        half = np.abs(matrix[:, :2]) @ self.reach
        left, top = (min(max(int(p) - 2, 0), side - 1) for p in (matrix[:, 2] - half) * side)
        right, bottom = (min(max(int(p) + 3, 1), side) for p in (matrix[:, 2] + half) * side)
        middle = self.paint.shape[1] / 2 - 0.5, self.paint.shape[0] / 2 - 0.5
        matrix[:, 2] = matrix[:, 2] * side - 0.5 - matrix[:, :2] @ middle - (left, top)
        maps = [cv2.warpAffine(drawn, matrix, (right - left, bottom - top)) for drawn in (self.paint, self.relief)]
        return (slice(top, bottom), slice(left, right)), [np.asarray(m, np.float32) for m in maps]


def put(
    canvas: Canvas,
    outline: Points,
    colour: Colour,
    height: float = 0.0,
    gloss: float = 0.1,
    at: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    bevel: float = 0.004,
) -> Patch:
    """A flat piece `height` above what it lies on, `at` units from the middle of the canvas."""
    patch = canvas.patch(Pose().at(*at, angle)(outline))
    canvas.paint(patch, colour, gloss=gloss)
    canvas.raise_flat(patch, height, bevel)
    return patch


def letter(canvas: Canvas, text: str, height: float, colour: Colour, at: tuple[float, float] = (0.0, 0.0)) -> None:
    """Print `text`, its capitals `height` tall, `at` units from the middle of the canvas."""
    pixels, font, side = height * canvas.side, cv2.FONT_HERSHEY_SIMPLEX, canvas.side
    scale, weight = pixels / 21, max(1, round(pixels / 9))
    (width, tall), _ = cv2.getTextSize(text, font, scale, weight)
    ink = np.zeros((tall + 2 * weight + 4, width + 2 * weight + 4), np.uint8)
    cv2.putText(ink, text, (weight + 2, tall + weight + 2), font, scale, 255, weight, cv2.LINE_AA)
    left, top = (round((0.5 + p) * side - n / 2) for p, n in zip(at, ink.shape[::-1], strict=True))
    window = slice(max(top, 0), top + ink.shape[0]), slice(max(left, 0), left + ink.shape[1])
    seen = ink[window[0].start - top : side - top, window[1].start - left : side - left]
    canvas.paint(Patch(window, seen.astype(np.float32) / np.float32(255)), colour)
