"""Candles: four tealights, each in its fluted metal cup, on a dark bench."""

from functools import lru_cache

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, Colour, FloatMap, Patch, Stamp, blur, linear, shift_colour, textured
from visa.mini.defects import Body, Defect, Part, either, fibre, on_one, pick, scratches, spot
from visa.mini.shapes import Points, Pose, blob, ellipse, ribbon, wander

CUP, RIM, FOOT = 0.210, 0.180, 0.054  # radii of the cup, of the wax in it, and of the wick's foot
TALL, SUNK = 0.055, 0.012  # height of the cup; depth of the wax below its rim
FLUTES = 64
WAX, METAL, WICK, SOOT = (222, 216, 202), (150, 152, 157), (208, 190, 150), (58, 48, 42)


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """Draw two rows of two tealights, each turned at random."""
    bench.table(canvas, rng, (62, 60, 64))
    under, colour = canvas.layer(), shift_colour(WAX, rng, 0.012)
    tone = linear(colour) / linear(WAX)
    frame = Pose(0.5 + rng.normal(0, 0.004), 0.5 + rng.normal(0, 0.004), rng.normal(0, 1))
    cover = np.zeros((canvas.side, canvas.side), np.float32)
    candles, wicks = [], []
    for x, y in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        at = frame.at(0.232 * x + rng.normal(0, 0.005), 0.232 * y + rng.normal(0, 0.005), rng.uniform(0, 360))
        candles.append(Part(ellipse(RIM), at))
        _tealight(canvas.size).lay(canvas, at, tone * (1 + rng.normal(0, 0.008)))
        wax = canvas.patch(candles[-1].on_picture())
        own = at.at(*rng.uniform(-0.2, 0.2, 2))  # no two are mottled alike
        canvas.grain(wax, textured(canvas, wax, own, "wax", 8, 3), colour=0.015, relief=0.0009)
        np.maximum(cover[wax.window], wax.cover, out=cover[wax.window])
        lean = at.at(0, 0, rng.uniform(0, 360))
        path = np.linspace((-0.006, 0), (rng.uniform(0.030, 0.042), rng.normal(0, 0.006)), 12)
        wicks.append(_wick(canvas, lean, path))
    return Body(cover, frame, colour, under, (*candles, *wicks))


@lru_cache(maxsize=4)
def _tealight(size: int) -> Stamp:
    """Draw a tealight without its wick."""
    canvas, pose = Canvas(size, {}), Pose()
    cup = canvas.patch(pose(_fluted(CUP)))
    rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) / canvas.side - 0.5 for s in cup.window)
    angle = np.arctan2(*np.meshgrid(columns, rows)[::-1])
    flutes = np.cos(FLUTES * angle)
    canvas.paint(cup, METAL, gloss=0.6)
    mirrored = 0.5 * np.cos(3 * angle + 1) + 0.5 * np.cos(7 * angle) + 0.4 * flutes  # bright and dark by turns
    canvas.grain(cup, mirrored, colour=0.30)
    canvas.raise_flat(cup, TALL, bevel=0.006)
    canvas.grain(cup, flutes, relief=0.0010)
    wax = canvas.patch(pose(ellipse(RIM)))
    canvas.paint(wax, WAX, gloss=0.2)
    canvas.level(wax, TALL - SUNK)
    canvas.raise_flat(wax, -0.004, bevel=0.03)
    _foot(canvas, pose, WAX, only=np.ones_like(canvas.height))
    return Stamp.cut(canvas, _fluted(CUP))


def _fluted(radius: float) -> Points:
    t = np.linspace(0, 2 * np.pi, 8 * FLUTES, endpoint=False)
    return ellipse(radius, n=len(t)) * (1 + 0.006 * np.cos(FLUTES * t))[:, None]


def _foot(canvas: Canvas, pose: Pose, colour: Colour, only: FloatMap) -> None:
    """The clean dip in the wax around the wick, with the wick's tin foot showing through, `only` in a part of it."""
    dip = canvas.patch(pose(ellipse(FOOT)), soft=0.007).within(only)
    tin = canvas.patch(pose(ellipse(0.034)), soft=0.006).within(only)
    canvas.paint(dip, colour, gloss=0.2)
    canvas.level(dip, TALL - SUNK - 0.008)
    canvas.stain(tin, (0.74, 0.75, 0.77))


def _wick(canvas: Canvas, pose: Pose, path: Points) -> Part:
    """A waxed cotton wick along `path`, its tip sooty."""
    part = Part(ribbon(path, np.linspace(0.021, 0.013, len(path))), pose, "wick")
    wick = canvas.patch(part.on_picture())
    canvas.paint(wick, WICK, gloss=0.1)
    tip = canvas.patch(pose(ellipse(0.013) + path[-1]), soft=0.003).within(canvas.full(wick))
    canvas.paint(tip, SOOT)
    canvas.raise_flat(wick, 0.022, bevel=0.003)
    return part


def _chunk(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A lump broken out of the wax: a rough hollow, grey where the cup's bottom is near."""
    x, y = pick(body, rng, 0.010, 0.10)
    patch = canvas.patch(Pose(x, y)(blob(rng, rng.uniform(0.024, 0.05) * (0.6 + 0.4 * strength), 0.3)))
    patch = patch.within(body.cover)
    canvas.raise_round(patch, -0.014 - 0.016 * strength, edge=0.014, smooth=0.002)
    canvas.stain(patch, (0.78, 0.77, 0.74), amount=min(1, 0.3 + 0.6 * strength), mark=name)
    canvas.grain(patch, textured(canvas, patch, body.pose, "flesh", 90), colour=0.05, relief=0.0014)


def _dented(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """The cup's rim knocked in: the bench shows where it was, crumpled metal lies over the wax's edge."""
    deep = rng.uniform(0.016, 0.034) * (0.6 + 0.4 * strength)
    half = np.sqrt(2 * CUP * deep)
    at = body.pose.at(0, 0, rng.uniform(0, 360)).at(CUP - deep, 0)
    y = np.linspace(-half, half, 24)
    chord = np.stack([rng.normal(0, 0.0025, 24) - 0.3 * deep * np.cos(y / half * np.pi / 2), y], axis=1)
    whole = canvas.full(canvas.patch(body.pose(_fluted(CUP))))
    gone = canvas.patch(at(np.concatenate([chord, [(2 * deep, half), (2 * deep, -half)]]))).within(whole)
    fold = canvas.patch(at(ribbon(chord - (0.010, 0), 0.026 + rng.normal(0, 0.003, 24)))).within(whole)
    canvas.lay_bare(gone, body.under)
    canvas.paint(fold, METAL, gloss=0.6, mark=name)
    canvas.raise_flat(fold, 0.008, bevel=0.003)
    canvas.grain(fold, textured(canvas, fold, at, "crumple", 26, 2), colour=0.25, relief=0.0036)
    canvas.mark(gone, name)


def _weird_wick(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """The wick is too long and curled over, doubled, off its place, or not there at all."""
    sound = [part for part in body.parts if part.kind == "wick"][int(rng.integers(4))]
    gone = canvas.patch(sound.on_picture(1.15))
    _foot(canvas, Pose(sound.pose.x, sound.pose.y), body.colour, canvas.full(gone))
    canvas.mark(gone, name)
    at = sound.pose.at(0, 0, rng.uniform(90, 270))
    long = wander(rng, rng.uniform(0.08, 0.14) * (0.7 + 0.3 * strength), bend=1.3)
    long -= long[0]
    wicks: list[tuple[Pose, Points]] = []
    match rng.integers(4):
        case 0:
            wicks = [(at, long)]
        case 1:
            wicks = [(at.at(0, 0, turn), long[:12]) for turn in (0, rng.uniform(60, 180))]
        case 2:
            wicks = [(at.at(rng.uniform(0.04, 0.10), 0, rng.uniform(0, 360)), long[:10])]
    for pose, path in wicks:
        canvas.mark(canvas.patch(_wick(canvas, pose, path).on_picture()), name)


def _extra_wax(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Drops of wax set on top of the wax."""
    x, y = pick(body, rng, 0.05, 0.11)
    for _ in range(rng.integers(1, 4)):
        at = Pose(x + rng.normal(0, 0.022), y + rng.normal(0, 0.022))
        drop = canvas.patch(at(blob(rng, rng.uniform(0.016, 0.034) * (0.7 + 0.3 * strength), 0.08, waves=3)))
        canvas.paint(drop, body.colour, opacity=0.7, gloss=0.25, mark=name)
        canvas.raise_round(drop, 0.006 + 0.014 * strength, edge=0.02, smooth=0.005)


def _particles(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Grit, lint or crumbs that fell on the candle."""
    x, y = pick(body, rng, 0.06)
    colour = ((52, 44, 40), (120, 70, 40), (60, 84, 60), (130, 40, 50))[rng.integers(4)]
    for _ in range(rng.integers(4, 11)):
        at = Pose(x + rng.normal(0, 0.035), y + rng.normal(0, 0.035), rng.uniform(0, 180))
        speck = canvas.patch(at(blob(rng, rng.uniform(0.0035, 0.008) * (0.7 + 0.3 * strength), 0.4)))
        canvas.paint(speck, colour, opacity=min(0.95, 0.35 + 0.6 * strength), gloss=0.05, lift=0.005, mark=name)


def _run_out(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Wax that has melted over the rim and set on the cup and the bench."""
    at = body.pose.at(0, 0, rng.uniform(0, 360))
    pool = canvas.full(canvas.patch(at(blob(rng, 0.034, 0.15, waves=3) * (0.7, 1.2) + (RIM, 0))))
    for turn in rng.uniform(-14, 14, rng.integers(1, 4)).tolist():
        path = wander(rng, CUP - RIM + 0.030 + rng.uniform(0.012, 0.044) * (0.6 + 0.4 * strength), bend=0.5)
        t = np.linspace(-1, 1, len(path))
        width = rng.uniform(0.026, 0.042) * (0.95 + 0.25 * t) * np.sqrt(1.01 - t**8)
        run = canvas.patch(at.at(0, 0, turn)(ribbon(path - path[0] + (RIM - 0.030, 0), width)))
        pool[run.window] = np.maximum(pool[run.window], run.cover)
    y, x = (slice(max(hit.min() - 2, 0), hit.max() + 3) for hit in np.nonzero(pool))
    wax = Patch((y, x), blur(np.clip(2 * blur(pool[y, x], 0.005 * canvas.side) - 0.5, 0, 1), 0.0012 * canvas.side))
    canvas.paint(wax, body.colour, opacity=min(1, 0.6 + 0.4 * strength), gloss=0.2, mark=name)
    canvas.raise_round(wax, 0.012, edge=0.014, smooth=0.003)


DEFECTS: dict[str, Defect] = {
    "chunk of wax missing": on_one(_chunk),
    "damaged corner of packaging": on_one(_dented),
    "weird candle wick": _weird_wick,
    "different colour spot": on_one(spot([(214, 150, 120), (150, 170, 196), (190, 176, 96), (120, 90, 70)])),
    "extra wax in candle": on_one(_extra_wax),
    "foreign particals on candle": on_one(_particles),
    "wax melded out of the candle": on_one(_run_out),
    "other": on_one(either(fibre, scratches((176, 170, 156), depth=0.006))),  # a hair, or marks of a fingernail
}
