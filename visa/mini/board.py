"""Draw circuit boards from a description (size, colours, parts, printing), and the defects of boards."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import cv2
import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, Colour, Patch, Stamp, blur, letter, linear, put, shift_colour, textured
from visa.mini.defects import Body, Defect, Part, pick, remove, scratches
from visa.mini.parts import GOLD, KINDS, PIN, TIN, stamp
from visa.mini.shapes import Pose, blob, ellipse, jagged, rectangle, ribbon

SILK = (222, 226, 228)
Place = tuple[str, float, float, float]  # what; x, y from the middle of the board; angle, or height of the print
SMALL = 0.0015  # largest area of the outline of a small part
scratched = partial(scratches, count=(1, 3), depth=0.002, width=(0.004, 0.007))  # broad, down to the copper
LAMINATE, CERAMIC, SOOT, ASH = (196, 190, 150), (150, 146, 140), (26, 20, 18), (128, 120, 112)


@dataclass(frozen=True)
class Board:
    """A board of `size` (width, height) before it is scaled by `pose`.

    `parts` are kinds of `parts.KINDS`, in the order of mounting; `printing` is text, its place and its height;
    `play` is the standard deviation of the board's place; `holes` are for screws, `rings` for wires, `fingers`
    (x, y, width, height) are gold contacts; `DEFECTS` draw the board's defects.
    """

    size: tuple[float, float]
    colour: Colour
    trace: Colour
    parts: tuple[Place, ...]
    pose: Pose = field(default_factory=Pose)
    table: Colour = (190, 184, 172)
    play: float = 0.002
    tracks: int = 46
    vias: int = 40
    holes: tuple[tuple[float, float], ...] = ()
    rings: tuple[tuple[float, float], ...] = ()
    fingers: tuple[tuple[float, float, float, float], ...] = ()
    printing: tuple[Place, ...] = ()
    DEFECTS: dict[str, Defect] = field(default_factory=dict, compare=False)

    def draw(self, canvas: Canvas, rng: np.random.Generator) -> Body:
        """Draw the board on its table, turned by a degree or so, with each part slightly out of place."""
        bench.table(canvas, rng, self.table)
        empty, at = canvas.layer(), self.pose
        x, y, turn = rng.normal(0, self.play), rng.normal(0, self.play), rng.normal(0, 150 * self.play)
        pose = Pose(at.x + x, at.y + y, turn, at.scale * rng.normal(1, 0.002))
        colour = shift_colour(self.colour, rng)
        cover = _bare(self, canvas.size).lay(canvas, pose, np.divide(colour, self.colour))
        under = canvas.layer()
        slack = rng.normal(0, (0.0006, 0.0006, 0.4), (len(self.parts), 3)).tolist()
        parts = [
            mount(canvas, kind, pose.at(x + dx, y + dy, angle + turn))
            for (kind, x, y, angle), (dx, dy, turn) in zip(self.parts, slack, strict=True)
        ]
        return Body(canvas.full(cover), pose, colour, under, parts, bench=empty)


def mount(canvas: Canvas, kind: str, pose: Pose) -> Part:
    """Lay a component on what is drawn so far."""
    stamp(kind, canvas.size).lay(canvas, pose)
    return Part(KINDS[kind].outline, pose, kind)


@lru_cache(maxsize=16)
def _bare(board: Board, size: int) -> Stamp:
    """Draw the board without its parts: traces, vias, pads and printing."""
    canvas, rng = Canvas(size, {}), np.random.default_rng(1)
    canvas.albedo[:] = linear(board.colour)
    reach = np.array(board.size) / 2 - 0.02
    for _ in range(board.tracks):  # traces turn by 45 degrees
        start = rng.uniform(-reach, reach)
        turn = np.deg2rad(45 * rng.integers(8)) + np.deg2rad(45) * np.cumsum(rng.integers(-1, 2, 4))
        path = np.cumsum([start, *(0.05 * np.stack([np.cos(turn), np.sin(turn)], axis=1))], axis=0)
        put(canvas, ribbon(path, 0.006), board.trace, 0.0006, gloss=0.12, bevel=0.001)
    for hole in board.holes:
        _ring(canvas, hole, 0.020, GOLD, 0.65)
    for ring in board.rings:
        _ring(canvas, ring, 0.015, GOLD, 0.55)
    for x, y, width, height in board.fingers:
        put(canvas, rectangle(width, height, 0.2 * width), GOLD, 0.001, gloss=0.3, at=(x, y))
    for place in board.parts:
        _footprint(canvas, place)
    for text, x, y, height in board.printing:
        letter(canvas, text, height, SILK, (x, y))
    for x, y in rng.uniform(-reach * 0.97, reach * 0.97, (board.vias, 2)):
        if canvas.albedo[canvas.patch(Pose().at(x, y)(ellipse(0.012))).window].max() < 0.4:  # clear of pads and print
            _ring(canvas, (x, y), 0.0065, (150, 160, 150))
    outline = rectangle(*board.size, 0.012)
    patch = canvas.patch(Pose()(outline))
    canvas.gloss[:] = np.maximum(canvas.gloss, 0.12)
    canvas.raise_flat(patch, 0.016, bevel=0.002)
    full = canvas.full(patch)
    canvas.albedo *= full[..., None]
    canvas.height *= full
    canvas.gloss *= full
    return Stamp.cut(canvas, outline)


def _ring(canvas: Canvas, at: tuple[float, float], radius: float, colour: Colour, opening: float = 0.46) -> None:
    """Draw a plated hole."""
    put(canvas, ellipse(radius), colour, gloss=0.3, at=at)
    put(canvas, ellipse(opening * radius), (34, 32, 30), gloss=0.0, at=at)


def _footprint(canvas: Canvas, place: Place) -> None:
    """Draw tinned pads and a printed frame, which show if the part is missing."""
    name, x, y, angle = place
    kind, pose = KINDS[name], Pose().at(x, y, angle)
    if kind.framed:
        size = np.ptp(kind.body, axis=0)
        frame, inner = (canvas.patch(pose(kind.body * (size + margin) / size)) for margin in (0.014, 0.008))
        canvas.paint(frame.without(canvas.full(inner)), SILK, opacity=0.8)
    for pad in kind.pads:
        canvas.paint(canvas.patch(pose(pad)), TIN, gloss=0.3)


def soldered(copper: Colour) -> dict[str, Defect]:
    """Return the defects of PCB1 to PCB3; scratches lay `copper` bare."""
    return {"bent": bent, "melt": melt, "scratch": scratched(copper), "missing": missing}


def bent(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Bend a pin to one side, or push over a part on wires; mark its proper place, too."""
    part = _some([p for p in body.parts if KINDS[p.kind].foot is not None], rng)
    turn = rng.choice([-1, 1]) * (0.4 + 0.6 * strength)
    if part.kind == "pin":
        knee, turn = rng.uniform(0.15, 0.5), turn * np.deg2rad(rng.uniform(35, 70))
        heading = turn * np.clip((np.linspace(0, 1, 20) - knee) / 0.2, 0, 1)
        path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0) * PIN / 20
        patch = canvas.patch(part.pose(ribbon(path - (0, PIN / 2), 0.016)))
        canvas.mark(_take_off(canvas, body, part), name)
        canvas.paint(patch, GOLD, gloss=0.5, mark=name)
        canvas.height[patch.window] = np.maximum(canvas.height[patch.window], 0.018 * patch.cover)
        return
    foot = KINDS[part.kind].foot or 0.0
    hinge = part.pose.at(0, foot, turn * rng.uniform(14, 34))
    _move(canvas, body, name, part, hinge.at(0, -foot))


def melt(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Melt a part: its colours flow into each other, browned, under a glossy skin."""
    part = _some([p for p in body.parts if p.kind != "pin"], rng)
    spread = 0.35 * np.ptp(part.outline, axis=0)
    at = part.pose.at(*(rng.uniform(-1, 1, 2) * spread))
    solid = np.maximum(body.cover, canvas.full(canvas.patch(part.on_picture())))
    patch = canvas.patch(at(blob(rng, rng.uniform(0.030, 0.055) * (0.7 + 0.3 * strength), 0.3)), soft=0.002)
    patch = patch.within(solid)
    here = canvas.albedo[patch.window]
    here += patch.cover[..., None] * (blur(here, 0.014 * canvas.side) - here)
    canvas.level(patch, blur(canvas.height[patch.window], 0.016 * canvas.side))
    canvas.stain(patch, (0.75, 0.55, 0.40), amount=min(1, 0.3 + 0.5 * strength), mark=name)
    canvas.grain(patch, textured(canvas, patch, body.pose, "melt", 36), colour=0.08, relief=0.0012)
    canvas.gloss[patch.window] += 0.3 * patch.cover


def missing(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Take a part away, so that only its pads are there; a smaller part at a lower strength."""
    canvas.mark(_take_off(canvas, body, _loose(body, rng, strength < 0.75)), name)


def wrong_place(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Mount a part beside its pads and askew; mark its bare pads, too."""
    part = _loose(body, rng, strength < 0.75)
    far = np.minimum((0.35 + 0.40 * strength) * rng.uniform(0.8, 1.2) * np.ptp(part.outline, axis=0), 0.055)
    way = rng.uniform(0, 2 * np.pi)
    turn = rng.choice([-1, 1]) * rng.uniform(15, 50) * (0.4 + 0.6 * strength)
    _move(canvas, body, name, part, part.pose.at(far[0] * np.cos(way), far[1] * np.sin(way), turn))


def extra(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Add a component too many, or spilt solder."""
    if rng.random() < 0.5:
        kind = str(rng.choice(["resistor", "capacitor", "timer"][: 2 if strength < 0.75 else 3]))
        pose = Pose(*_free(body, rng, 0.035), rng.uniform(0, 360), body.pose.scale)
        canvas.mark(canvas.patch(mount(canvas, kind, pose).on_picture()), name)
        return
    x, y = _free(body, rng, 0.02)
    for _ in range(rng.integers(1, 4)):
        at = Pose(x + rng.normal(0, 0.016), y + rng.normal(0, 0.016))
        patch = canvas.patch(at(blob(rng, radius := rng.uniform(0.008, 0.018) * (0.6 + 0.4 * strength), 0.15, waves=3)))
        patch = patch.within(body.cover)
        canvas.paint(patch, TIN, gloss=0.7, mark=name)
        canvas.level(patch)
        canvas.raise_round(patch, 0.7 * radius, edge=radius, smooth=0.002)


def damage(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Break a piece from the board's edge, or crack and chip a part."""
    if rng.random() < 0.4 and body.bench:
        x, y = pick(body, rng, 0.0, 0.004)
        piece = blob(rng, rng.uniform(0.025, 0.05) * (0.6 + 0.4 * strength), 0.25, waves=4)
        bare = replace(body, under=body.bench)
        remove(canvas, bare, name, Pose(x, y)(piece), Pose(x, y)(piece * 1.22), LAMINATE)
        return
    part = _loose(body, rng, small=False)
    cover = canvas.full(canvas.patch(part.on_picture()))
    width, height = np.ptp(part.outline, axis=0)
    at = part.pose.at(rng.normal(0, 0.1) * width, rng.normal(0, 0.1) * height, rng.uniform(0, 180))
    line = jagged(rng, 1.5 * max(width, height), 0.10 * min(width, height))
    torn, crack = (canvas.patch(at(ribbon(line, w))).within(cover) for w in (0.006 + 0.005 * strength, 0.004))
    corner = part.pose.at(*(rng.choice([-1, 1], 2) * (width, height) * 0.42))
    piece = blob(rng, rng.uniform(0.014, 0.026) * (0.5 + 0.5 * strength), 0.3, waves=4)
    chip = canvas.patch(corner(piece)).within(cover)
    for patch, colour, depth in ((torn, CERAMIC, 0.002), (crack, SOOT, 0.006), (chip, CERAMIC, 0.008)):
        canvas.paint(patch, colour, opacity=min(0.95, 0.45 + 0.45 * strength), gloss=0.0, lift=-depth, mark=name)


def burnt(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Burn a part: charred in the middle, the board around it browned by the heat."""
    part = _loose(body, rng, rng.random() < 0.5)
    radius = rng.uniform(0.030, 0.055) * (0.6 + 0.4 * strength)
    at = part.pose.at(*(rng.uniform(-0.3, 0.3, 2) * np.ptp(part.outline, axis=0)))
    halo = canvas.patch(at(blob(rng, 1.2 * radius, 0.2)), soft=0.006).within(body.cover)
    canvas.stain(halo, (0.46, 0.28, 0.20), amount=min(0.95, 0.35 + 0.5 * strength), mark=name)
    core = canvas.patch(at(blob(rng, 0.75 * radius, 0.35)), soft=0.005).within(body.cover)
    canvas.paint(core, SOOT, opacity=min(0.92, 0.35 + 0.5 * strength), gloss=0.0, mark=name)
    char = textured(canvas, core, body.pose, "char", 60)
    ash = replace(core, cover=core.cover * np.clip(2 * char - 1.2, 0, 1))
    canvas.paint(ash, ASH, opacity=min(0.8, 0.2 + 0.5 * strength))
    canvas.grain(core, char, colour=0.15, relief=0.0010)


def dirt(canvas: Canvas, body: Body, name: str, rng: np.random.Generator, strength: float) -> None:
    """Draw a smear of grime, a sprinkling of dust, or both."""
    x, y = pick(body, rng, 0.03)
    colour = ((150, 138, 112), (104, 88, 64), (172, 168, 158))[rng.integers(3)]
    if smeared := rng.random() < 0.65:
        path = Pose(x, y, rng.uniform(0, 180))(blob(rng, rng.uniform(0.03, 0.06), 0.3) * (1.5, 0.7))
        smear = canvas.patch(path, soft=0.007).within(body.cover)
        streaks = np.clip(0.75 + 0.35 * textured(canvas, smear, body.pose, "grime", 40), 0.3, 1)
        canvas.paint(replace(smear, cover=smear.cover * streaks), colour, min(0.8, 0.2 + 0.45 * strength), gloss=0.02)
        canvas.mark(smear, name)
    if not smeared or rng.random() < 0.5:
        for dx, dy in rng.normal(0, 0.035, (rng.integers(10, 24), 2)):
            outline = Pose(x + dx, y + dy)(blob(rng, rng.uniform(0.003, 0.007) * (0.7 + 0.3 * strength)))
            speck = canvas.patch(outline).within(body.cover)
            canvas.paint(speck, colour, min(0.95, 0.4 + 0.5 * strength), gloss=0.0, lift=0.002, mark=name)


def _move(canvas: Canvas, body: Body, name: str, part: Part, pose: Pose) -> None:
    """Mount a part elsewhere."""
    canvas.mark(_take_off(canvas, body, part), name)
    canvas.mark(canvas.patch(mount(canvas, part.kind, pose).on_picture()), name)


def _take_off(canvas: Canvas, body: Body, part: Part) -> Patch:
    """Take a part off the board; return the patch that it leaves."""
    size = np.ptp(part.outline, axis=0)
    patch = canvas.patch(part.pose(part.outline * (size + 0.006) / size))
    canvas.lay_bare(patch, body.under)
    return patch


def _loose(body: Body, rng: np.random.Generator, small: bool) -> Part:
    """Pick a part that is soldered to the board, from the small ones or from the others."""
    parts = [p for p in body.parts if KINDS[p.kind].loose]
    return _some([p for p in parts if (np.prod(np.ptp(p.outline, axis=0)) < SMALL) == small], rng)


def _some(parts: Sequence[Part], rng: np.random.Generator) -> Part:
    """Pick one of the parts; each kind is equally likely."""
    kinds = sorted({p.kind for p in parts})
    kind = kinds[rng.integers(len(kinds))]
    same = [p for p in parts if p.kind == kind]
    return same[rng.integers(len(same))]


def _free(body: Body, rng: np.random.Generator, radius: float) -> tuple[float, float]:
    """Find a place `radius` units away from every part, or the best of 30 tries."""
    outlines = [part.on_picture().astype(np.float32) for part in body.parts]
    best, room = (0.5, 0.5), -1.0
    for _ in range(30):
        place = pick(body, rng, radius)
        here = min(-cv2.pointPolygonTest(outline, place, True) for outline in outlines)
        if here > room:
            best, room = place, here
        if room > radius:
            break
    return best
