"""Components of circuit boards: how each looks from above, its pads, and the defects that it may have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from visa.mini.canvas import Canvas, Colour, Patch, Stamp, letter, put
from visa.mini.shapes import Points, Pose, ellipse, rectangle

TIN, GOLD, BLACK, PRINT = (198, 200, 202), (216, 186, 110), (38, 38, 42), (150, 152, 156)
CAN, CELL, PIN, LED = 0.122, 0.150, 0.130, 0.165  # radii of a transducer and a coin cell, lengths of a pin and a LED
Piece = Callable[[Canvas], object]


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    `outline` is its silhouette, legs and all; `body` the silhouette without legs, which the printed frame follows.
    `pieces`, each laid on the ones before, draw it upright in the middle of a canvas; `pads` are the tinned places
    below it.
    """

    pieces: Sequence[Piece]
    outline: Points
    body: Points
    pads: tuple[Points, ...] = ()
    framed: bool = True
    loose: bool = True  # it may be missing or in the wrong place
    foot: float | None = None  # a part on wires may be bent about this place on its y axis


@lru_cache(maxsize=128)
def stamp(kind: str, size: int) -> Stamp:
    """Draw the component once, as a stamp for pictures of `size` pixels."""
    canvas = Canvas(size, {})
    for lay in KINDS[kind].pieces:
        lay(canvas)
    return Stamp.cut(canvas, KINDS[kind].outline)


def _piece(*arguments: Any, **settings: Any) -> Piece:
    """A flat piece, as `put` lays it."""
    return lambda canvas: put(canvas, *arguments, **settings)


def _print(text: str, height: float, y: float = 0.0, colour: Colour = PRINT) -> Piece:
    return lambda canvas: letter(canvas, text, height, colour, (0, y))


def _round(outline: Points, colour: Colour, tall: float, edge: float, gloss: float) -> Piece:
    return lambda canvas: canvas.raise_round(put(canvas, outline, colour, gloss=gloss), tall, edge)


def _two_pads(width: float, height: float) -> tuple[Points, ...]:
    return tuple(Pose(x * width, 0)(rectangle(0.28 * width, 0.86 * height)) for x in (-0.44, 0.44))


def _ends(core: Colour, width: float, height: float, lens: Colour | None = None) -> Kind:
    """A block between two tinned ends: a resistor, a capacitor or, with a lens, a LED."""
    outline = rectangle(width, height)
    pieces = [_piece(outline, TIN, 0.007, gloss=0.3), _piece(rectangle(0.58 * width, height), core)]
    if lens is not None:
        pieces.append(_piece(ellipse(0.36 * height), lens, 0.003, gloss=0.6))
    return Kind(pieces, outline, outline, _two_pads(width, height))


def _legged(
    width: float, height: float, along: int, across: int = 0, length: float = 0.013, wide: float = 0.5
) -> tuple[Points, tuple[Points, ...]]:
    """A chip's silhouette and its legs: `along` on its long sides, `across` on the others."""
    outline, legs = [], []
    for quarter, (w, h, count) in enumerate(2 * [(width, height, along), (height, width, across)]):
        half, turned = wide * 0.42 * w / max(count - 1, 1), Pose(0, 0, 90 * quarter)
        leg = np.array([[-half, 0], [-half, -length], [half, -length], [half, 0]])
        side = [turned(Pose(x, -h / 2)(leg)) for x in np.linspace(-0.42 * w, 0.42 * w, count)]
        outline += [turned(np.array([[-w / 2, -h / 2]])), *side]
        legs += side
    return np.concatenate(outline), tuple(legs)


def _chip(text: str, width: float, height: float, along: int, across: int = 0) -> Kind:
    (outline, _), body = _legged(width, height, along, across), rectangle(width, height)
    pieces = (
        _piece(outline, TIN, 0.004, gloss=0.3, bevel=0.002),
        _piece(body, BLACK, 0.008, gloss=0.12),
        _piece(ellipse(0.005), (90, 90, 94), at=(-0.5 * width + 0.013, 0.5 * height - 0.013)),
        _print(text, 0.016),
    )
    return Kind(pieces, outline, body, _legged(width, height, along, across, 0.019, 0.62)[1])


def _can() -> Kind:
    """A transducer: a tin can with a wire mesh over a dark opening."""
    steps = ((1.0, TIN, 0.050), (0.80, (150, 152, 154), -0.006), (0.74, BLACK, 0.0))
    can = [_piece(ellipse(share * CAN), colour, high, gloss=0.35, bevel=0.003) for share, colour, high in steps]

    def mesh(canvas: Canvas) -> None:
        mesh = canvas.patch(Pose()(ellipse(0.72 * CAN)))
        rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) / canvas.side - 0.5 for s in mesh.window)
        x, y = np.meshgrid(columns, rows)
        wires = np.maximum(np.cos(2 * np.pi * x / 0.0165), np.cos(2 * np.pi * y / 0.0165))
        canvas.paint(Patch(mesh.window, mesh.cover * np.clip((wires - 0.45) * 2.5, 0, 1)), (168, 168, 166), gloss=0.4)

    return Kind((*can, mesh), ellipse(CAN), ellipse(CAN), framed=False, loose=False)


def _lying(width: float, flange: float, wires: float, length: float, *inside: Piece) -> Kind:
    """A LED or a cylinder that lies flat, y pointing from its two `wires`, which enter the board, to its tip."""
    foot, low, high, x, half = -length / 2, wires - length / 2, length / 2, 0.26 * width, 0.0045
    t = np.linspace(np.pi, 0, 24)
    tip = np.stack([0.5 * width * np.cos(t), high - 0.5 * width * (1 - np.sin(t))], axis=1)
    base = np.array([[0.5 * width, low + 0.014], [flange, low + 0.014], [flange, low]])
    legs = np.array([[x + half, low], [x + half, foot], [x - half, foot], [x - half, low]])
    bulb = np.concatenate([tip, base, base[::-1] * (-1, 1)])
    outline = np.concatenate([tip, base, legs, legs[::-1] * (-1, 1), base[::-1] * (-1, 1)])
    shell = _piece(outline, TIN, 0.006, gloss=0.4, bevel=0.002), _round(bulb, BLACK, 0.028, 0.5 * width, gloss=0.0)
    pads = tuple(Pose(s * x, foot)(ellipse(0.012)) for s in (-1, 1))
    return Kind((*shell, *inside), outline, bulb, pads, framed=False, foot=foot)


CLEAR = (  # water-clear resin, through which the two posts inside are seen
    _piece(rectangle(0.078, 0.122, 0.039), (206, 214, 222), gloss=0.8, at=(0, 0.020)),
    _piece(rectangle(0.090, 0.014, 0.004), (188, 198, 208), gloss=0.6, at=(0, -0.034)),
    _piece(rectangle(0.022, 0.052, 0.004), (128, 134, 142), gloss=0.5, at=(-0.015, 0.004)),
    _piece(rectangle(0.010, 0.052, 0.004), (128, 134, 142), gloss=0.5, at=(0.018, 0.004)),
    _piece(ellipse(0.026, 0.020), (236, 240, 244), gloss=0.9, at=(0, 0.052)),
)
DARK = (  # resin that lets nothing but infrared light through
    _piece(rectangle(0.078, 0.122, 0.039), (34, 28, 40), gloss=0.9, at=(0, 0.020)),
    _piece(rectangle(0.090, 0.014, 0.004), (40, 34, 46), gloss=0.7, at=(0, -0.034)),
)
CYLINDER = _piece(rectangle(0.038, 0.088, 0.010), (206, 208, 212), gloss=0.6, at=(0, 0.012))


def _trimmer() -> Kind:
    """A square blue potentiometer with a slotted brass screw."""
    outline = rectangle(0.112, 0.112, 0.005)
    pieces = (
        _piece(outline, (38, 92, 178), 0.022, gloss=0.25),
        _piece(ellipse(0.040), (30, 74, 150), -0.003, gloss=0.2),
        _piece(ellipse(0.033), (206, 170, 84), 0.006, gloss=0.6),
        _piece(rectangle(0.056, 0.011, 0.002), (92, 68, 32), -0.006, angle=35, bevel=0.002),
        _print("103", 0.013, -0.046, (190, 206, 226)),
    )
    pads = tuple(Pose(x, y)(ellipse(0.013)) for x, y in ((-0.036, -0.03), (0.0, 0.03), (0.036, -0.03)))
    return Kind(pieces, outline, outline, pads)


def _electrolytic(radius: float, text: str) -> Kind:
    """A round aluminium capacitor on a black base; its dark segment is the negative side."""
    base = rectangle(2.2 * radius, 2.2 * radius, 0.4 * radius)

    def top(canvas: Canvas) -> None:
        top = put(canvas, ellipse(radius), (206, 208, 210), 0.020, gloss=0.4)
        segment = canvas.patch(Pose()(rectangle(radius, 3 * radius) - (1.02 * radius, 0))).within(canvas.full(top))
        canvas.paint(segment, (46, 46, 52), gloss=0.3)

    pieces = _piece(base, BLACK, 0.006), top, _print(text, 0.42 * radius, colour=(70, 72, 78))
    return Kind(pieces, base, base, _two_pads(2.5 * radius, 1.1 * radius))


def _button() -> Kind:
    """A push button: a tin frame on four legs with a black plunger."""
    (outline, _), body = _legged(0.078, 0.078, 2, wide=0.16), rectangle(0.078, 0.078)
    pieces = (
        _piece(outline, TIN, 0.004, gloss=0.3, bevel=0.002),
        _piece(body, (186, 188, 190), 0.010, gloss=0.35),
        *(_piece(ellipse(0.0055), BLACK, at=(s * 0.029, t * 0.029)) for s in (-1, 1) for t in (-1, 1)),
        _piece(ellipse(0.023), (44, 44, 48), 0.008, gloss=0.3),
    )
    return Kind(pieces, outline, body, _legged(0.078, 0.078, 2, 0, 0.019, 0.22)[1])


def _cell() -> Kind:
    """A coin cell in its holder: stamped steel below two tongues."""
    texts = (("+", 0.034, -0.070), ("CR2032", 0.030, 0.0), ("3V", 0.026, 0.052))
    pieces = (
        _piece(ellipse(CELL), (168, 170, 174), 0.008, gloss=0.4),
        _piece(ellipse(0.90 * CELL), (204, 206, 208), 0.007, gloss=0.45),
        _piece(ellipse(0.78 * CELL), (196, 198, 200), -0.0015, gloss=0.35),
        *(_print(text, height, y, (124, 126, 132)) for text, height, y in texts),
    )
    return Kind(pieces, ellipse(CELL), ellipse(CELL), (ellipse(0.55 * CELL),))


def _usb() -> Kind:
    """A USB socket, its mouth at the left: folded sheet steel with two spring tongues."""
    outline = rectangle(0.130, 0.120, 0.004)
    pieces = [
        _piece(outline, (182, 185, 188), 0.022, gloss=0.4),
        _piece(rectangle(0.012, 0.116), (206, 208, 210), 0.002, gloss=0.5, at=(-0.058, 0)),
    ]
    for y in (-0.030, 0.030):
        pieces.append(_piece(rectangle(0.050, 0.018, 0.003), (120, 122, 126), -0.004, at=(-0.012, y), bevel=0.002))
        pieces.append(_piece(rectangle(0.040, 0.010, 0.002), (176, 178, 182), 0.003, at=(-0.016, y), bevel=0.002))
    pieces.append(_piece(rectangle(0.003, 0.116), (128, 130, 134), -0.003, at=(0.040, 0), bevel=0.002))
    return Kind(pieces, outline, outline, loose=False)


def _block(width: float, height: float, colour: Colour, tall: float, texts: tuple[str, ...], ink: Colour) -> Kind:
    """A moulded case with printing: a relay or a choke."""
    outline = rectangle(width, height, 0.006)
    printing = (_print(text, 0.019, 0.036 * (row - (len(texts) - 1) / 2), ink) for row, text in enumerate(texts))
    pieces = _piece(outline, colour, tall, gloss=0.25), *printing
    return Kind(pieces, outline, outline, _two_pads(0.9 * width, 0.8 * height))


def _header(pins: int) -> Kind:
    """The black strip that holds a row of pins 0.045 apart."""
    outline, notch = rectangle(0.045 * pins + 0.010, 0.038, 0.004), rectangle(0.003, 0.038)
    places = [(0.045 * (k - pins / 2), 0) for k in range(1, pins)]
    notches = (_piece(notch, (24, 24, 28), -0.003, at=at, bevel=0.001) for at in places)
    pieces = _piece(outline, BLACK, 0.022, gloss=0.15), *notches
    return Kind(pieces, outline, outline, framed=False, loose=False)


CAP, NEEDLE = rectangle(0.112, 0.046, 0.022), rectangle(0.016, PIN, 0.003)  # of a crystal and of a pin
LENSES = {"red": (216, 60, 50), "green": (90, 200, 90), "amber": (232, 168, 50)}
KINDS: dict[str, Kind] = {
    "resistor": _ends(BLACK, 0.036, 0.018),
    "capacitor": _ends((176, 134, 92), 0.038, 0.026),
    **{f"{name} lamp": _ends((226, 220, 212), 0.038, 0.022, lens) for name, lens in LENSES.items()},
    "crystal": Kind([_round(CAP, TIN, 0.020, 0.012, gloss=0.5)], CAP, CAP, _two_pads(0.112, 0.046)),
    "watch crystal": _lying(0.038, 0.019, 0.026, 0.115, CYLINDER),
    "clear led": _lying(0.078, 0.045, 0.042, LED, *CLEAR),
    "black led": _lying(0.078, 0.045, 0.042, LED, *DARK),
    "chip": _chip("", 0.124, 0.066, 7),
    "comparator": _chip("LM393", 0.104, 0.074, 4),
    "timer": _chip("555", 0.088, 0.060, 4),
    "memory": _chip("24C32", 0.104, 0.062, 4),
    "driver": _chip("ULN2003", 0.160, 0.066, 8),
    "controller": _chip("MCU32", 0.125, 0.125, 8, 8),
    "processor": _chip("V-SA 4", 0.205, 0.205, 12, 12),
    "can": _can(),
    "trimmer": _trimmer(),
    "electrolytic": _electrolytic(0.046, "220"),
    "small electrolytic": _electrolytic(0.034, "47"),
    "button": _button(),
    "cell": _cell(),
    "usb": _usb(),
    "relay": _block(0.190, 0.140, (40, 84, 168), 0.028, ("RELAY", "5VDC"), (208, 218, 234)),
    "choke": _block(0.096, 0.096, (70, 72, 76), 0.018, ("100",), (196, 198, 200)),
    "pin": Kind([_piece(NEEDLE, GOLD, 0.014, gloss=0.5)], NEEDLE, NEEDLE, framed=False, foot=-PIN / 2),
    **{f"header{n}": _header(n) for n in (3, 4, 6)},
}
