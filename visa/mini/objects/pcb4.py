"""PCB4: a large, dense green control board: processor, USB socket, relay, a row of LEDs and gold edge contacts."""

from visa.mini.board import Board
from visa.mini.board_defects import burnt, damage, dirt, extra, missing, scratched, wrong_place
from visa.mini.shapes import Pose

LAMPS = ("red lamp", "amber lamp", "green lamp", "green lamp", "green lamp", "green lamp")
LABELS = ("PWR", "RUN", "D1", "D2", "D3", "D4")
BOARD = Board(
    width=0.88,
    height=0.76,
    colour=(26, 96, 62),
    trace=(48, 128, 86),
    table=(178, 176, 178),
    tracks=90,
    vias=70,
    pose=Pose(0.5, 0.5, 0, 1.05),
    holes=((-0.410, -0.350), (0.410, -0.350), (-0.410, 0.290), (0.410, 0.290)),
    fingers=tuple((-0.345 + 0.030 * k, 0.348, 0.020, 0.056) for k in range(24)),
    parts=(
        ("processor", -0.020, 0.010, 0),
        ("usb", -0.400, -0.160, 0),
        ("relay", 0.318, -0.230, 0),
        ("driver", 0.300, -0.080, 0),
        ("choke", -0.280, 0.200, 0),
        ("crystal", -0.020, 0.178, 0),
        ("timer", 0.250, 0.220, 0),
        ("memory", -0.260, 0.040, 0),
        ("electrolytic", 0.135, -0.290, 0),
        ("small electrolytic", 0.040, -0.290, 0),
        ("small electrolytic", -0.370, 0.080, 0),
        *((lamp, -0.300 + 0.052 * k, -0.315, 90) for k, lamp in enumerate(LAMPS)),
        *(("resistor", -0.300 + 0.052 * k, -0.255, 90) for k in range(6)),
        *(("capacitor", -0.165, -0.090 + 0.048 * k, 0) for k in range(5)),
        *(("capacitor", 0.128, -0.090 + 0.048 * k, 0) for k in range(5)),
        *(("resistor", -0.110 + 0.036 * k, -0.165, 90) for k in range(6)),
        *(("resistor", 0.195 + 0.036 * k, 0.035, 90) for k in range(6)),
        *(("capacitor", 0.190 + 0.052 * k, 0.110, 0) for k in range(4)),
        *(("resistor", -0.140 + 0.048 * k, 0.250, 0) for k in range(6)),
        *(("resistor", 0.350, 0.180 + 0.034 * k, 0) for k in range(3)),
        *(("capacitor", -0.300 + 0.052 * k, -0.095, 90) for k in range(2)),
    ),
    printing=(
        ("PCB-4 REV C", -0.200, 0.297, 0.022),
        ("CONTROL UNIT", 0.160, 0.297, 0.018),
        ("USB", -0.390, -0.245, 0.016),
        *((text, -0.300 + 0.052 * k, -0.353, 0.0125) for k, text in enumerate(LABELS)),
        ("U1", -0.110, 0.150, 0.014),
        ("U2", 0.408, -0.080, 0.014),
        ("U3", 0.182, 0.220, 0.014),
        ("L1", -0.356, 0.200, 0.014),
        ("Y1", 0.065, 0.178, 0.014),
    ),
)
draw = BOARD.draw
DEFECTS = {
    "burnt": burnt,
    "scratch": scratched((206, 214, 196)),
    "missing": missing,
    "damage": damage,
    "extra": extra,
    "wrong place": wrong_place,
    "dirt": dirt,
}
