"""Circuit boards: a description (size, colours, parts, printing) becomes a bare board and what is mounted on it."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from visa.mini import bench
from visa.mini.canvas import Canvas, Colour, linear, shift_colour
from visa.mini.defects import Body, Part
from visa.mini.parts import GOLD, KINDS, TIN, stamp
from visa.mini.shapes import Points, Pose, ellipse, rectangle, ribbon
from visa.mini.stamp import Stamp, letter, put

SILK = (222, 226, 228)
Place = tuple[str, float, float, float]  # what; x, y from the middle of the board; angle, or height of the print


@dataclass(frozen=True)
class Board:
    """A board of `width` x `height` before it is scaled by `pose`.

    `parts` are kinds of `parts.KINDS`, in the order of mounting; `printing` is text, its place and its height;
    `play` is how far off its place it lies; `holes` are for screws, `rings` for wires, `fingers` (x, y, width, height)
    gold contacts.
    """

    width: float
    height: float
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

    def draw(self, canvas: Canvas, rng: np.random.Generator) -> "Assembly":
        """The board on its table, straight but for a degree or so, every part mounted a hair out of place."""
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
        return Assembly(canvas.full(cover), pose, colour, under, parts, bench=empty)

    def outline(self) -> Points:
        """The board's edge."""
        return rectangle(self.width, self.height, 0.012)


@dataclass(frozen=True, kw_only=True)
class Assembly(Body):
    """A board with its parts: `under` is the board without them, `bench` the picture without the board."""

    bench: Canvas


def mount(canvas: Canvas, kind: str, pose: Pose) -> Part:
    """A component laid on what is there."""
    stamp(kind, canvas.size).lay(canvas, pose)
    return Part(KINDS[kind].outline, pose, kind)


@lru_cache(maxsize=16)
def _bare(board: Board, size: int) -> Stamp:
    """The board without its parts: traces, vias, pads and printing."""
    canvas, rng = Canvas(size, {}), np.random.default_rng(1)
    canvas.albedo[:] = linear(board.colour)
    reach = np.array([board.width / 2 - 0.02, board.height / 2 - 0.02])
    for _ in range(board.tracks):  # traces turn by 45 degrees
        path = np.cumsum([rng.uniform(-reach, reach), *_steps(rng)], axis=0)
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
    outline = board.outline()
    patch = canvas.patch(Pose()(outline))
    canvas.gloss[:] = np.maximum(canvas.gloss, 0.12)
    canvas.raise_flat(patch, 0.016, bevel=0.002)
    full = canvas.full(patch)
    canvas.albedo *= full[..., None]
    canvas.height *= full
    canvas.gloss *= full
    return Stamp.cut(canvas, outline)


def _steps(rng: np.random.Generator) -> list[tuple[float, float]]:
    turn = np.deg2rad(45 * rng.integers(8)) + np.deg2rad(45) * np.cumsum(rng.integers(-1, 2, 4))
    return [(0.05 * np.cos(a), 0.05 * np.sin(a)) for a in turn]


def _ring(canvas: Canvas, at: tuple[float, float], radius: float, colour: Colour, opening: float = 0.46) -> None:
    """A plated hole."""
    put(canvas, ellipse(radius), colour, gloss=0.3, at=at)
    put(canvas, ellipse(opening * radius), (34, 32, 30), gloss=0.0, at=at)


def _footprint(canvas: Canvas, place: Place) -> None:
    """Tinned pads and a printed frame, which a missing part leaves to be seen."""
    name, x, y, angle = place
    kind, pose = KINDS[name], Pose().at(x, y, angle)
    if kind.framed:
        size = np.ptp(kind.body, axis=0)
        frame, inner = (canvas.patch(pose(kind.body * (size + margin) / size)) for margin in (0.014, 0.008))
        canvas.paint(frame.without(canvas.full(inner)), SILK, opacity=0.8)
    for pad in kind.pads:
        canvas.paint(canvas.patch(pose(pad)), TIN, gloss=0.3)
