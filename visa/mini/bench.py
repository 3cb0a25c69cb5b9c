"""The plain benches that the objects lie on; one bench is the same in every picture but for a slight shift."""

from functools import lru_cache

import cv2
import numpy as np

from visa.mini.canvas import Canvas, Colour, FloatMap, linear, texture


def mat(canvas: Canvas, rng: np.random.Generator, colour: Colour, pitch: float = 0.022, relief: float = 0.0011) -> None:
    """A rubber mat with rows of dimples `pitch` apart."""
    _lay(canvas, rng, _mat(canvas.side, colour, pitch, relief), gloss=0.04)


def table(canvas: Canvas, rng: np.random.Generator, colour: Colour, relief: float = 0.0003) -> None:
    """A smooth, slightly mottled table top."""
    _lay(canvas, rng, _table(canvas.side, colour, relief), gloss=0.02)


def _lay(canvas: Canvas, rng: np.random.Generator, bench: tuple[FloatMap, FloatMap], gloss: float) -> None:
    albedo, height = bench
    dy, dx = rng.integers(0, len(height) - canvas.side + 1, 2)
    window = slice(dy, dy + canvas.side), slice(dx, dx + canvas.side)
    canvas.albedo[:] = albedo[window]
    canvas.height[:] = height[window]
    canvas.gloss[:] = gloss


@lru_cache(maxsize=8)
def _mat(side: int, colour: Colour, pitch: float, relief: float) -> tuple[FloatMap, FloatMap]:
    side += max(2, side // 64)  # room for the shift
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side / pitch * np.pi
    dimples = np.clip(np.cos(x) * np.cos(y), -0.2, 1)
    height = relief * dimples + 0.0002 * texture("mat", side, 24)
    mottle = 1 + 0.05 * texture("mat mottle", side, 5, 4) - 0.06 * np.maximum(dimples, 0)
    return (linear(colour) * mottle[..., None]).astype(np.float32), height.astype(np.float32)


@lru_cache(maxsize=8)
def _table(side: int, colour: Colour, relief: float) -> tuple[FloatMap, FloatMap]:
    side += max(2, side // 64)
    fibre = cv2.GaussianBlur(texture("fibre", side, side // 2, 1), (0, 0), side / 64, sigmaY=side / 800)
    mottle = 1 + 0.025 * texture("table mottle", side, 6, 4) + 0.15 * fibre
    height = relief * texture("table relief", side, 64, 2)
    return (linear(colour) * mottle[..., None]).astype(np.float32), height.astype(np.float32)
