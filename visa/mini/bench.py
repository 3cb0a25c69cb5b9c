"""Draw what is neither object nor defect: the benches that the objects lie on, dust, crumbs and natural blemishes."""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from visa.mini.canvas import Canvas, Colour, FloatMap, Patch, linear, texture
from visa.mini.defects import STEP, Body, Lay
from visa.mini.shapes import Pose, blob

DUST = ((226, 222, 214), (74, 68, 62))
LOW = 0.006  # the bench is lower than this height
Normal = tuple[float, float]  # mean and standard deviation
Drawing = Callable[[Canvas, np.random.Generator], Body]


def mat(canvas: Canvas, rng: np.random.Generator, colour: Colour) -> None:
    """Lay a rubber mat with rows of dimples."""
    _lay(canvas, rng, _bench(canvas.side, colour, dimpled=True), gloss=0.04)


def table(canvas: Canvas, rng: np.random.Generator, colour: Colour) -> None:
    """Lay a smooth, slightly mottled table top."""
    _lay(canvas, rng, _bench(canvas.side, colour, dimpled=False), gloss=0.02)


def _lay(canvas: Canvas, rng: np.random.Generator, bench: tuple[FloatMap, FloatMap], gloss: float) -> None:
    albedo, height = bench
    dy, dx = rng.integers(0, len(height) - canvas.side + 1, 2)
    window = slice(dy, dy + canvas.side), slice(dx, dx + canvas.side)
    canvas.albedo[:] = albedo[window]
    canvas.height[:] = height[window]
    canvas.gloss[:] = gloss


@lru_cache(maxsize=16)
def _bench(side: int, colour: Colour, dimpled: bool) -> tuple[FloatMap, FloatMap]:
    side += max(2, side // 64)  # room for the shift
    if dimpled:
        y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side / 0.022 * np.pi
        dimples = np.clip(np.cos(x) * np.cos(y), -0.2, 1)
        height = 0.0011 * dimples + 0.0002 * texture("mat", side, 24)
        mottle = 1 + 0.05 * texture("mat mottle", side, 5, 4) - 0.06 * np.maximum(dimples, 0)
    else:
        fibre = cv2.GaussianBlur(texture("fibre", side, side // 2, 1), (0, 0), side / 64, sigmaY=side / 800)
        height = 0.0003 * texture("table relief", side, 64, 2)
        mottle = 1 + 0.025 * texture("table mottle", side, 6, 4) + 0.15 * fibre
    return (linear(colour) * mottle[..., None]).astype(np.float32), height.astype(np.float32)


def near_middle(lay: Lay, colour: Colour, off: float, y: float, angle: Normal, scale: Normal) -> Drawing:
    """Put one piece on a mat of a colour: about `off` units from (0.5, `y`); turned and scaled at random."""

    def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
        mat(canvas, rng, colour)
        x = 0.5 + rng.normal(0, off)
        pose = Pose(x, y + rng.normal(0, off), angle[0] + rng.normal(0, angle[1]), rng.normal(*scale))
        return lay(canvas, pose, rng)

    return draw


def wear(canvas: Canvas, body: Body, rng: np.random.Generator, amount: float) -> None:
    """Draw uneven shade and freckles on the body, its crumbs beside it, dust everywhere; `amount` is usually 1."""
    places = np.argwhere(body.cover[::STEP, ::STEP] > 0.5)
    for count, least, most, soft, spread in ((1.5, 0.025, 0.055, 0.014, 0.10), (2.5, 0.005, 0.013, 0.003, 0.22)):
        for _ in range(rng.poisson(count * amount)):
            y, x = (places[rng.integers(len(places))] * STEP / canvas.side).tolist()
            spot = canvas.patch(Pose(x, y)(blob(rng, rng.uniform(least, most))), soft).within(body.cover)
            canvas.stain(spot, _shade(rng, spread))
    for _ in range(rng.poisson(1.5 * amount)):
        crumb = canvas.patch(Pose(*rng.uniform(0.04, 0.96, 2))(blob(rng, rng.uniform(0.003, 0.008), 0.4)))
        crumb = Patch(crumb.window, crumb.cover * (canvas.height[crumb.window] < LOW))
        canvas.paint(crumb, body.colour, opacity=0.8, gloss=0.1, lift=0.004)
    for _ in range(rng.poisson(5 * amount)):
        speck = canvas.patch(Pose(*rng.uniform(0.02, 0.98, 2))(blob(rng, rng.uniform(0.0015, 0.0035), 0.4)))
        canvas.paint(speck, DUST[rng.integers(2)], opacity=rng.uniform(0.1, 0.5))


def _shade(rng: np.random.Generator, spread: float) -> tuple[float, float, float]:
    """Draw a factor per channel: a little darker and browner or, less often, paler."""
    change = spread * (0.3 - rng.random())
    return 1 + 0.8 * change, 1 + change, 1 + 1.2 * change
