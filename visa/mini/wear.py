"""What is no defect: dust, crumbs and natural blemishes, which every picture may show and no mask marks."""

import numpy as np

from visa.mini.canvas import Canvas, Patch
from visa.mini.defects import Body
from visa.mini.shapes import Pose, blob

DUST = ((226, 222, 214), (74, 68, 62))
LOW = 0.006  # height: what is below is bench
STEP = 4  # subpixels between the places of which one is drawn


def wear(canvas: Canvas, body: Body, rng: np.random.Generator, amount: float) -> None:
    """Uneven shade and freckles on the body, crumbs of it beside it, dust everywhere; `amount` 1 is the usual."""
    places = np.argwhere(body.cover[::STEP, ::STEP] > 0.5)
    for count, least, most, soft, spread in ((1.5, 0.025, 0.055, 0.014, 0.10), (2.5, 0.005, 0.013, 0.003, 0.22)):
        for _ in range(rng.poisson(count * amount)):
            y, x = (places[rng.integers(len(places))] * STEP / canvas.side).tolist()
            spot = canvas.patch(Pose(x, y)(blob(rng, rng.uniform(least, most))), soft).within(body.cover)
            canvas.stain(spot, _shade(rng, spread))
    for _ in range(rng.poisson(1.5 * amount)):
        crumb = canvas.patch(Pose(*rng.uniform(0.04, 0.96, 2))(blob(rng, rng.uniform(0.003, 0.008), 0.4)))
        crumb = Patch(crumb.window, crumb.cover * (canvas.height[crumb.window] < LOW))
        canvas.paint(crumb, body.colour, opacity=0.8, gloss=0.1)
        canvas.height[crumb.window] += 0.004 * crumb.cover
    for _ in range(rng.poisson(5 * amount)):
        speck = canvas.patch(Pose(*rng.uniform(0.02, 0.98, 2))(blob(rng, rng.uniform(0.0015, 0.0035), 0.4)))
        canvas.paint(speck, DUST[rng.integers(2)], opacity=rng.uniform(0.1, 0.5))


def _shade(rng: np.random.Generator, spread: float) -> tuple[float, float, float]:
    """A little darker or, less often, paler; browner where it is darker."""
    change = spread * (0.3 - rng.random())
    return 1 + 0.8 * change, 1 + change, 1 + 1.2 * change
