"""PCB3: a black clock board with a coin cell, a controller that stands on its corner, and a row of labelled rings."""

from visa.mini.board import Board
from visa.mini.board_defects import soldered
from visa.mini.parts import PIN
from visa.mini.shapes import Pose

LABELS = ("32K", "SQW", "SCL", "SDA", "VCC", "GND", "D2", "D3", "D4", "D5", "RST", "3V3")
BOARD = Board(
    width=0.82,
    height=0.62,
    colour=(44, 46, 52),
    trace=(64, 67, 75),
    table=(196, 180, 156),
    tracks=60,
    pose=Pose(0.5, 0.46, 0, 1.05),
    holes=tuple((s * 0.380, t * 0.280) for s in (-1, 1) for t in (-1, 1)),
    rings=tuple((-0.286 + 0.052 * k, -0.275) for k in range(12)),
    parts=(
        ("cell", -0.200, 0.010, 0),
        ("controller", 0.110, -0.020, 45),
        ("watch crystal", 0.025, 0.170, 90),
        ("electrolytic", 0.310, 0.120, 0),
        ("button", 0.325, -0.130, 0),
        ("memory", 0.195, 0.185, 0),
        *(("resistor", 0.205 + 0.034 * k, -0.160, 90) for k in range(2)),
        *(("capacitor", 0.255, -0.075 + 0.042 * k, 0) for k in range(3)),
        *(("resistor", -0.010, -0.150 + 0.032 * k, 0) for k in range(3)),
        *(("capacitor", -0.010 + 0.055 * k, 0.105, 0) for k in range(2)),
        ("amber lamp", 0.335, -0.030, 90),
        *(("resistor", -0.355, y, 90) for y in (-0.150, 0.180)),
        *(("pin", -0.1125 + 0.045 * k, 0.282 + PIN / 2, 0) for k in range(6)),
        ("header6", 0.000, 0.264, 0),
    ),
    printing=(
        *((label, -0.286 + 0.052 * k, -0.245, 0.0125) for k, label in enumerate(LABELS)),
        ("RTC-3", 0.255, 0.262, 0.026),
        ("RESET", 0.325, -0.200, 0.014),
        ("BAT", -0.345, 0.230, 0.020),
    ),
)
draw = BOARD.draw
DEFECTS = soldered((196, 192, 180))
