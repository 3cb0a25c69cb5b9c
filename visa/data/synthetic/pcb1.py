"""PCB1: a distance sensor's board with two round transducers, a crystal, chips and a row of pins."""

from functools import lru_cache

import cv2
import numpy as np

from visa.data.synthetic import bench
from visa.data.synthetic.canvas import Canvas, FloatMap, blur, linear, shift_colour, textured
from visa.data.synthetic.defects import Body, Defect, Part, scratches
from visa.data.synthetic.shapes import Points, Pose, blob, ellipse, rectangle, ribbon

WIDTH, HEIGHT, CAN, PIN = 0.88, 0.44, 0.122, 0.130  # the board, radius of a transducer, length of a pin
BOARD, TIN, GOLD, SILK, BLACK = (26, 70, 148), (198, 200, 202), (216, 186, 110), (222, 226, 228), (38, 38, 42)
PARTS = (  # kind, x, y, angle, from the middle of the board
    ("can", -0.275, -0.020, 0),
    ("can", 0.275, -0.020, 0),
    ("crystal", 0.000, -0.160, 0),
    ("chip", 0.000, 0.010, 0),
    *(("resistor", -0.095 + 0.038 * k, -0.090, 90) for k in range(6)),
    *(("capacitor", side * 0.112, -0.015 + 0.045 * k, 0) for side in (-1, 1) for k in range(3)),
    *(("resistor", -0.075 + 0.05 * k, 0.110, 0) for k in range(4)),
    *(("pin", -0.0675 + 0.045 * k, 0.192 + PIN / 2, 0) for k in range(4)),
)
OUTLINES = {
    "can": ellipse(CAN),
    "crystal": rectangle(0.112, 0.046, 0.022),
    "chip": rectangle(0.124, 0.066),
    "resistor": rectangle(0.036, 0.018),
    "capacitor": rectangle(0.038, 0.026),
    "pin": rectangle(0.016, PIN, 0.003),
}


def draw(canvas: Canvas, rng: np.random.Generator) -> Body:
    """The board in the middle, straight but for a degree or so; its `under` is the board without its parts."""
    bench.table(canvas, rng, (190, 184, 172))
    pose = Pose(0.5 + rng.normal(0, 0.002), 0.45 + rng.normal(0, 0.002), rng.normal(0, 0.3), rng.normal(1.06, 0.002))
    colour = shift_colour(BOARD, rng)
    cover = _board(canvas, pose, tuple(np.divide(colour, BOARD)))
    under = canvas.layer()
    parts = [Part(OUTLINES[kind], pose.at(x, y, angle), kind) for kind, x, y, angle in PARTS]
    for part in parts:
        _place(canvas, part)
    header = canvas.patch(pose.at(0, 0.174)(rectangle(0.190, 0.038, 0.004)))
    canvas.paint(header, BLACK, gloss=0.15)
    canvas.raise_flat(header, 0.022)
    return Body(cover, pose, colour, under, parts)


def _board(canvas: Canvas, pose: Pose, tone: tuple[float, ...]) -> FloatMap:
    patch = canvas.patch(pose(rectangle(WIDTH, HEIGHT, 0.012)))
    albedo, height = _artwork(canvas.size)
    matrix = pose.matrix()
    matrix[:, 2] = matrix[:, 2] * canvas.side - matrix[:, :2] @ (canvas.side / 2, canvas.side / 2)
    frame = (canvas.side, canvas.side)
    printed = cv2.warpAffine(albedo, matrix, frame)[patch.window] * np.asarray(tone, np.float32)
    here = canvas.albedo[patch.window]
    here += patch.cover[..., None] * (printed - here)
    canvas.gloss[patch.window] += 0.12 * patch.cover
    canvas.level(patch)
    canvas.height[patch.window] += patch.cover * cv2.warpAffine(height, matrix, frame)[patch.window]
    canvas.raise_flat(patch, 0.016, bevel=0.002)
    return canvas.full(patch)


@lru_cache(maxsize=2)
def _artwork(size: int) -> tuple[FloatMap, FloatMap]:
    """Colour and relief of the bare board, unturned, in the middle: traces, vias, pads and printing."""
    canvas, middle, rng = Canvas(size, {}), Pose(), np.random.default_rng(1)
    canvas.albedo[:] = linear(BOARD)
    for _ in range(46):  # traces turn by 45 degrees
        path = np.cumsum([rng.uniform((-0.42, -0.20), (0.42, 0.20)), *_steps(rng)], axis=0)
        canvas.paint(trace := canvas.patch(middle(ribbon(path, 0.006))), (44, 98, 180))
        canvas.raise_flat(trace, 0.0006, 0.001)
    for x, y in rng.uniform((-0.41, -0.20), (0.41, 0.20), (40, 2)):
        canvas.paint(canvas.patch(middle.at(x, y)(ellipse(0.0065))), (150, 160, 150))
        canvas.paint(canvas.patch(middle.at(x, y)(ellipse(0.003))), (16, 24, 40))
    for x, y in ((s * 0.41, t * 0.19) for s in (-1, 1) for t in (-1, 1)):
        canvas.paint(canvas.patch(middle.at(x, y)(ellipse(0.020))), GOLD)
        canvas.paint(canvas.patch(middle.at(x, y)(ellipse(0.013))), (40, 36, 32))
    for kind, x, y, angle in PARTS:
        if kind != "pin":
            _pads(canvas, Part(OUTLINES[kind], middle.at(x, y, angle), kind))
    return canvas.albedo, canvas.height


def _steps(rng: np.random.Generator) -> list[tuple[float, float]]:
    turn = np.deg2rad(45 * rng.integers(8)) + np.deg2rad(45) * np.cumsum(rng.integers(-1, 2, 4))
    return [(0.05 * np.cos(a), 0.05 * np.sin(a)) for a in turn]


def _pads(canvas: Canvas, part: Part) -> None:
    """Tinned pads at both ends and a printed frame, which a missing part leaves to be seen."""
    width, height = np.ptp(part.outline, axis=0)
    frame = canvas.patch(part.pose(rectangle(width + 0.014, height + 0.014)))
    inner = canvas.patch(part.pose(rectangle(width + 0.008, height + 0.008)))
    if part.kind != "can":
        canvas.paint(frame.without(canvas.full(inner)), SILK, opacity=0.8)
    for x in (-0.38, 0.38):
        canvas.paint(canvas.patch(part.pose.at(x * width, 0)(rectangle(0.2 * width, 0.7 * height))), TIN)


def _place(canvas: Canvas, part: Part) -> None:
    """One part, as it is mounted."""
    patch = canvas.patch(part.on_picture())
    width, height = np.ptp(part.outline, axis=0)
    match part.kind:
        case "can":
            _can(canvas, part)
        case "crystal":
            canvas.paint(patch, TIN, gloss=0.5)
            canvas.raise_round(patch, 0.020, edge=0.012)
        case "chip":
            for x in np.linspace(-0.4, 0.4, 7):
                leg = canvas.patch(part.pose.at(x * width, 0)(rectangle(0.008, height + 0.022)))
                canvas.paint(leg, TIN, gloss=0.3)
            canvas.paint(patch, BLACK, gloss=0.12)
            canvas.raise_flat(patch, 0.010)
            canvas.paint(canvas.patch(part.pose.at(-0.4 * width, 0.3 * height)(ellipse(0.005))), (90, 90, 94))
        case "resistor" | "capacitor":
            canvas.paint(patch, TIN, gloss=0.3)
            core = canvas.patch(part.pose(rectangle(0.58 * width, height)))
            canvas.paint(core, BLACK if part.kind == "resistor" else (176, 134, 92), gloss=0.1)
            canvas.raise_flat(patch, 0.007)
        case "pin":
            _pin(canvas, part.on_picture())


def _can(canvas: Canvas, part: Part) -> None:
    """A transducer: a tin can with a wire mesh over a dark opening."""
    for radius, colour, height in ((CAN, TIN, 0.050), (0.80 * CAN, (150, 152, 154), -0.006), (0.74 * CAN, BLACK, 0)):
        ring = canvas.patch(part.pose(ellipse(radius)))
        canvas.paint(ring, colour, gloss=0.35)
        canvas.raise_flat(ring, height, bevel=0.003)
    mesh = canvas.patch(part.pose(ellipse(0.72 * CAN)))
    rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) / canvas.side for s in mesh.window)
    x, y = np.meshgrid(columns - part.pose.x, rows - part.pose.y)
    a = np.deg2rad(part.pose.angle)
    u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    wires = np.maximum(np.cos(2 * np.pi * u / 0.0165), np.cos(2 * np.pi * v / 0.0165))
    grid = mesh.cover * np.clip((wires - 0.45) * 2.5, 0, 1).astype(np.float32)
    canvas.paint(type(mesh)(mesh.window, grid), (168, 168, 166), gloss=0.4)


def _pin(canvas: Canvas, outline: Points) -> FloatMap:
    patch = canvas.patch(outline)
    canvas.paint(patch, GOLD, gloss=0.5)
    canvas.height[patch.window] = np.maximum(canvas.height[patch.window], 0.016 * patch.cover)
    return canvas.full(patch)


def _some(body: Body, rng: np.random.Generator, *kinds: str) -> Part:
    """One of the parts of these kinds; every kind is as likely."""
    kind = kinds[rng.integers(len(kinds))]
    parts = [part for part in body.parts if part.kind == kind]
    return parts[rng.integers(len(parts))]


def _bent(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A pin of the header bent to one side; where it should be is marked too."""
    part = _some(body, rng, "pin")
    straight = canvas.patch(part.on_picture())
    canvas.lay_bare(canvas.patch(part.pose(part.outline * (1.4, 1.0))), body.under)
    t = np.linspace(0, 1, 20)
    knee, turn = rng.uniform(0.15, 0.5), np.deg2rad(rng.choice([-1, 1]) * rng.uniform(35, 70) * (0.4 + 0.6 * strength))
    heading = turn * np.clip((t - knee) / 0.2, 0, 1)
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0) * PIN / len(t)
    bent = _pin(canvas, part.pose(ribbon(path - (0, PIN / 2), 0.016)))
    canvas.mark(straight, name)
    canvas.classes[bent > 0.3] = canvas.class_ids[name]


def _melt(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A part that has run: its colours flow into each other, browned, under a glossy skin."""
    part = _some(body, rng, "resistor", "capacitor", "chip", "crystal", "can")
    spread = 0.35 * np.ptp(part.outline, axis=0)
    at = part.pose.at(*(rng.uniform(-1, 1, 2) * spread))
    patch = canvas.patch(at(blob(rng, rng.uniform(0.030, 0.055) * (0.7 + 0.3 * strength), 0.3)), soft=0.002)
    here = canvas.albedo[patch.window]
    here += patch.cover[..., None] * (blur(here, 0.014 * canvas.side) - here)
    height = canvas.height[patch.window]
    height += patch.cover * (blur(height, 0.016 * canvas.side) - height)
    canvas.stain(patch, (0.75, 0.55, 0.40), amount=min(1, 0.3 + 0.5 * strength))
    canvas.grain(patch, textured(canvas, patch, body.pose, "melt", 36), colour=0.08, relief=0.0012)
    canvas.gloss[patch.window] += 0.3 * patch.cover
    canvas.mark(patch, name)


def _missing(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """A part that was never mounted: only its pads are there; the weaker, the smaller the part."""
    kinds = ("resistor", "capacitor") if strength < 0.75 else ("capacitor", "crystal", "chip", "pin")
    part = _some(body, rng, *kinds)
    patch = canvas.patch(part.on_picture(1.05 if part.kind != "chip" else 1.35))
    canvas.lay_bare(patch, body.under)
    canvas.mark(patch, name)


DEFECTS: dict[str, Defect] = {
    "bent": _bent,
    "melt": _melt,
    "scratch": scratches((205, 208, 206), count=(1, 3), depth=0.002, width=(0.004, 0.007)),
    "missing": _missing,
}
