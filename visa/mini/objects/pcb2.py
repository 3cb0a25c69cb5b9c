"""PCB2: a narrow red board that looks for obstacles with two infrared LEDs, one clear and one black."""

from visa.mini.board import Board
from visa.mini.board_defects import soldered
from visa.mini.parts import LED, PIN
from visa.mini.shapes import Pose

BOARD = Board(
    width=0.64,
    height=0.32,
    colour=(168, 34, 38),
    trace=(194, 62, 60),
    table=(164, 174, 184),
    play=0.005,
    tracks=30,
    vias=24,
    pose=Pose(0.485, 0.5, 0, 1.08),
    holes=((-0.045, -0.128), (-0.045, 0.128)),
    parts=(
        ("clear led", 0.268 + LED / 2, -0.078, -90),
        ("black led", 0.268 + LED / 2, 0.078, -90),
        ("trimmer", 0.055, 0.0, 0),
        ("comparator", -0.125, 0.005, 0),
        ("red lamp", 0.170, -0.128, 0),
        ("green lamp", 0.170, 0.128, 0),
        *(("resistor", 0.150 + 0.034 * k, y, 90) for k in range(2) for y in (-0.060, 0.000, 0.060)),
        *(("resistor", -0.245 + 0.052 * k, -0.125, 0) for k in range(3)),
        *(("capacitor", -0.240 + 0.056 * k, 0.125, 0) for k in range(2)),
        *(("resistor", -0.145 + 0.040 * k, 0.090, 90) for k in range(2)),
        *(("pin", -0.292 - PIN / 2, 0.045 * k, 90) for k in (-1, 0, 1)),
        ("header3", -0.274, 0.000, 90),
    ),
    printing=(
        *((text, -0.225, 0.045 * k, 0.0135) for k, text in ((-1, "OUT"), (0, "GND"), (1, "VCC"))),
        ("IR-2", 0.060, 0.115, 0.022),
        ("SENS", 0.060, -0.115, 0.018),
    ),
)
draw = BOARD.draw
DEFECTS = soldered((226, 206, 196))
