"""A small renderer: colour, height and gloss maps, lit from one side and photographed.

Everything is drawn at twice the picture's size. Shading, highlights and soft shadows are computed from the height map,
so that a dent, a scratch or a missing piece looks right without a drawing of its own. Things that look the same in
every picture are drawn once, as a stamp, and then laid in any pose.
"""

import copy
import math
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import cv2
import numpy as np
import numpy.typing as npt

from visa.mini.shapes import Points, Pose

FloatMap = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]

SUPER = 2  # supersampling
LAMP_AZIMUTH, LAMP_ELEVATION, AMBIENT = -128.0, 38.0, 0.38  # degrees; the light comes from the upper left


@dataclass(frozen=True)
class Patch:
    """A shape on the canvas: its window (rows, columns) and the share of every subpixel in it that it covers."""

    window: tuple[slice, slice]
    cover: FloatMap

    def within(self, cover: FloatMap) -> "Patch":
        """Return the part of it inside a full-size cover map."""
        return Patch(self.window, self.cover * cover[self.window])

    def without(self, cover: FloatMap) -> "Patch":
        """Return the part of it outside a full-size cover map."""
        return Patch(self.window, self.cover * (1 - cover[self.window]))


class Canvas:
    """The maps of one picture of `size` x `size` pixels.

    `albedo` is linear RGB in [0, 1], `height` in units of the picture's side, `gloss` in [0, 1], `classes` the ids
    of `class_ids`, 0 where nothing is wrong. All are SUPER times larger than the picture.
    """

    def __init__(self, size: int, class_ids: dict[str, int]) -> None:
        self.size, self.side, self.class_ids = size, SUPER * size, class_ids
        self.albedo: FloatMap = np.zeros((self.side, self.side, 3), np.float32)
        self.height: FloatMap = np.zeros((self.side, self.side), np.float32)
        self.gloss: FloatMap = np.zeros((self.side, self.side), np.float32)
        self.classes: Image = np.zeros((self.side, self.side), np.uint8)

    def layer(self) -> "Canvas":
        """Return a copy of what is drawn so far, for `lay_bare`."""
        return copy.deepcopy(self)

    def patch(self, outline: Points, soft: float = 0.0) -> Patch:
        """Return the shape inside `outline`; `soft` blurs its edge by that many units."""
        pixels = np.asarray(outline) * self.side
        pad = 2 + int(3 * soft * self.side)
        low = np.clip(np.floor(pixels.min(axis=0)).astype(int) - pad, 0, self.side - 1)
        high = np.clip(np.ceil(pixels.max(axis=0)).astype(int) + pad, low + 1, self.side)
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(mask, [np.round((pixels - low - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        cover: FloatMap = mask.astype(np.float32) / np.float32(255)
        if soft > 0:
            cover = blur(cover, soft * self.side)
        return Patch((slice(low[1], high[1]), slice(low[0], high[0])), cover)

    def full(self, patch: Patch) -> FloatMap:
        """Return the cover of `patch` as a full-size map."""
        cover = np.zeros((self.side, self.side), np.float32)
        cover[patch.window] = patch.cover
        return cover

    def paint(
        self, patch: Patch, colour: Colour, opacity: float = 1, gloss: float = math.nan, lift: float = 0, mark: str = ""
    ) -> None:
        """Cover the patch with a colour (display RGB, 0 to 255), `lift` it, and mark it as a defect of class `mark`."""
        weight = opacity * patch.cover
        albedo = self.albedo[patch.window]
        albedo += weight[..., None] * (linear(colour) - albedo)
        if not math.isnan(gloss):
            shine = self.gloss[patch.window]
            shine += weight * (gloss - shine)
        self.height[patch.window] += lift * patch.cover
        if mark:
            self.mark(patch, mark)

    def stain(self, patch: Patch, factor: Colour, amount: float = 1.0, mark: str = "") -> None:
        """Multiply what is there by a `factor` per channel, as a transparent stain does; `mark` as in `paint`."""
        change = 1 + amount * patch.cover[..., None] * (np.asarray(factor, np.float32) - 1)
        self.albedo[patch.window] *= change
        if mark:
            self.mark(patch, mark)

    def grain(self, patch: Patch, texture: FloatMap, colour: float = 0.0, relief: float = 0.0) -> None:
        """Let a texture (as wide as the patch, about unit variance) vary the brightness and the height."""
        weighted = patch.cover * texture
        self.albedo[patch.window] *= np.clip(1 + colour * weighted, 0.05, 3)[..., None]
        self.height[patch.window] += relief * weighted

    def level(self, patch: Patch, to: FloatMap | float | None = None) -> None:
        """Make the patch flat, or as high as `to` says: the relief below does not show through what comes on top."""
        height = self.height[patch.window]
        height += patch.cover * ((height.mean() if to is None else to) - height)

    def raise_flat(self, patch: Patch, height: float, bevel: float = 0.004) -> None:
        """Raise the patch to a plateau; `bevel` is the width of its slope."""
        self.height[patch.window] += height * blur(patch.cover, bevel * self.side) * patch.cover

    def raise_round(self, patch: Patch, height: float, edge: float, smooth: float = 0.006) -> None:
        """Raise the patch to a dome that is `height` tall from `edge` units inside its outline on."""
        depth = cv2.distanceTransform((patch.cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / self.side
        inward = np.clip(depth / edge, 0, 1)
        dome = height * np.sqrt(np.clip(1 - (1 - inward) ** 2, 0, 1)).astype(np.float32)
        self.height[patch.window] += blur(dome, smooth * self.side) * patch.cover

    def lay_bare(self, patch: Patch, under: "Canvas") -> None:
        """Take away what was drawn in the patch since `under`."""
        here, cover = patch.window, patch.cover
        self.albedo[here] += cover[..., None] * (under.albedo[here] - self.albedo[here])
        self.height[here] += cover * (under.height[here] - self.height[here])
        self.gloss[here] += cover * (under.gloss[here] - self.gloss[here])

    def mark(self, patch: Patch, name: str, least: float = 0.3) -> None:
        """Mark the patch as a defect of the class `name`, where it covers at least `least` of a subpixel."""
        self.classes[patch.window][patch.cover > least] = self.class_ids[name]

    def class_mask(self) -> Image:
        """Return the class ids at the picture's size (size, size): a pixel is marked if any of its subpixels is."""
        rows = np.maximum(self.classes[0::SUPER], self.classes[1::SUPER])
        return np.maximum(rows[:, 0::SUPER], rows[:, 1::SUPER])

    def photograph(self, rng: np.random.Generator) -> Image:
        """Take the picture (size, size, 3), uint8 RGB, under a lamp whose place, strength and colour vary a little."""
        azimuth = math.radians(LAMP_AZIMUTH + rng.normal(0, 2.0))
        elevation = math.radians(LAMP_ELEVATION + rng.normal(0, 1.0))
        exposure = (1 + rng.normal(0, 0.02)) * (1 + rng.normal(0, 0.008, 3))
        shade, shine = self._light(azimuth, elevation)
        lit = cv2.multiply(self.albedo, cv2.merge([shade, shade, shade])) + cv2.merge([shine, shine, shine])
        picture = blur(cv2.resize(lit, (self.size, self.size), interpolation=cv2.INTER_AREA), 0.55 * self.size / 256)
        y, x = np.mgrid[0 : self.size, 0 : self.size].astype(np.float32) / self.size - 0.5
        falloff = 1.04 - 0.10 * (x + y) - 0.22 * (x * x + y * y)  # darker away from the lamp and in the corners
        picture *= falloff[..., None] * exposure.astype(np.float32)
        display = np.sqrt(np.clip(picture, 0, 1))
        display += rng.standard_normal(display.shape, np.float32) * (0.006 + 0.008 * display)  # read and shot noise
        return np.asarray(np.clip(display * 255 + 0.5, 0, 255), np.uint8)

    def _light(self, azimuth: float, elevation: float) -> tuple[FloatMap, FloatMap]:
        """Compute shading (1 on a flat, unshadowed place) and highlights of the height map."""
        flat, up = math.cos(elevation), math.sin(elevation)
        lamp = (flat * math.cos(azimuth), flat * math.sin(azimuth), up)
        scale = self.side / 8  # Sobel's weights sum to 8 per step
        gx, gy = cv2.Sobel(self.height, -1, 1, 0, scale=scale), cv2.Sobel(self.height, -1, 0, 1, scale=scale)
        norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
        facing = np.maximum((lamp[2] - gx * lamp[0] - gy * lamp[1]) * norm, 0)
        shadow = self._shadow(azimuth, elevation)
        shade = AMBIENT + (1 - AMBIENT) / up * facing * shadow
        halfway = math.sqrt(2 + 2 * up)  # length of lamp + (0, 0, 1), the direction that mirrors the lamp
        mirror = np.maximum((1 + up - gx * lamp[0] - gy * lamp[1]) * (norm / halfway), 0)
        for _ in range(5):  # to the 32nd power
            mirror *= mirror
        return np.asarray(shade, np.float32), self.gloss * mirror * shadow

    def _shadow(self, azimuth: float, elevation: float, reach: float = 0.09, steps: int = 8) -> FloatMap:
        """Compute the shadow: 1 where the lamp is seen, towards 0 where it is hidden; soft, with dark creases."""
        low = cv2.resize(self.height, (self.size, self.size), interpolation=cv2.INTER_AREA)
        hidden = np.zeros_like(low)
        for distance in (reach * k / steps for k in range(1, steps + 1)):
            shift = -distance * self.size
            matrix = np.array([[1, 0, shift * math.cos(azimuth)], [0, 1, shift * math.sin(azimuth)]])
            moved = cv2.warpAffine(low, matrix, (self.size, self.size), borderMode=cv2.BORDER_REPLICATE)
            np.maximum(hidden, moved - low - distance * math.tan(elevation), out=hidden)
        crease = np.clip(blur(low, 0.02 * self.size) - low, 0, 0.02) / 0.02
        open_sky = (1 - 0.9 * np.clip(hidden / 0.010, 0, 1)) * (1 - 0.35 * crease)
        return np.asarray(cv2.resize(blur(open_sky, 0.006 * self.size), (self.side, self.side)), np.float32)


def blur(image: npt.ArrayLike, sigma: float) -> FloatMap:
    """Blur with a Gaussian of `sigma` pixels; below 0.2 nothing changes."""
    image = np.asarray(image, np.float32)
    if sigma < 0.2:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def linear(colour: Colour) -> FloatMap:
    """Turn a display colour (0 to 255) into linear light in [0, 1], with a gamma of 2."""
    return np.asarray(np.square(np.asarray(colour) / 255), np.float32)


def shift_colour(colour: Colour, rng: np.random.Generator, spread: float = 0.015) -> Colour:
    """Draw the colour of one specimen: brightness and hue vary by `spread`."""
    r, g, b = np.asarray(colour) * (1 + rng.normal(0, spread)) * (1 + rng.normal(0, spread / 2, 3))
    return float(r), float(g), float(b)


@lru_cache(maxsize=64)
def texture(name: str, side: int, cells: int, octaves: int = 3) -> FloatMap:
    """Make fractal noise of unit variance (side, side), its coarsest spots `cells` a side; the name is its seed."""
    rng = np.random.default_rng(crc32(name.encode()))
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        n = min(cells * 2**octave, side)
        grid = rng.standard_normal((n, n), np.float32)
        total += cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    total = (total - total.mean()) / total.std()
    total.setflags(write=False)
    return np.asarray(total, np.float32)


def textured(canvas: Canvas, patch: Patch, pose: Pose, name: str, cells: int, octaves: int = 3) -> FloatMap:
    """Return the texture `name` in the patch's window; it moves and turns with the object's pose."""
    source = texture(name, canvas.side, cells, octaves)
    matrix = pose.matrix()
    matrix[:, 2] = matrix[:, 2] * canvas.side - matrix[:, :2] @ (canvas.side / 2, canvas.side / 2)
    matrix[:, 2] -= patch.window[1].start, patch.window[0].start
    shape = patch.cover.shape[::-1]
    return np.asarray(cv2.warpAffine(source, matrix, shape, borderMode=cv2.BORDER_REFLECT), np.float32)


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
        """Lay it flat on what is there, its colour multiplied by `tone`; return the patch that it covers."""
        matrix, side = pose.matrix(), canvas.side
        half = np.abs(matrix[:, :2]) @ self.reach
        left, top = (min(max(int(p) - 2, 0), side - 1) for p in (matrix[:, 2] - half) * side)
        right, bottom = (min(max(int(p) + 3, 1), side) for p in (matrix[:, 2] + half) * side)
        middle = self.paint.shape[1] / 2 - 0.5, self.paint.shape[0] / 2 - 0.5
        matrix[:, 2] = matrix[:, 2] * side - 0.5 - matrix[:, :2] @ middle - (left, top)
        window = slice(top, bottom), slice(left, right)
        paint, relief = (cv2.warpAffine(m, matrix, (right - left, bottom - top)) for m in (self.paint, self.relief))
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
    """Lay a flat piece `height` above what it lies on, `at` units from the middle of the canvas."""
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
