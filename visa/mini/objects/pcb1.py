"""PCB1: a blue distance sensor's board with two round transducers, a crystal, chips and a row of pins."""

from visa.mini.board import Board
from visa.mini.board_defects import soldered
from visa.mini.parts import PIN
from visa.mini.shapes import Pose

BOARD = Board(
    width=0.88,
    height=0.44,
    colour=(26, 70, 148),
    trace=(44, 98, 180),
    pose=Pose(0.5, 0.45, 0, 1.06),
    holes=tuple((s * 0.41, t * 0.19) for s in (-1, 1) for t in (-1, 1)),
    parts=(
        ("can", -0.275, -0.020, 0),
        ("can", 0.275, -0.020, 0),
        ("crystal", 0.000, -0.160, 0),
        ("chip", 0.000, 0.010, 0),
        *(("resistor", -0.095 + 0.038 * k, -0.090, 90) for k in range(6)),
        *(("capacitor", side * 0.112, -0.015 + 0.045 * k, 0) for side in (-1, 1) for k in range(3)),
        *(("resistor", -0.075 + 0.05 * k, 0.110, 0) for k in range(4)),
        *(("pin", -0.0675 + 0.045 * k, 0.192 + PIN / 2, 0) for k in range(4)),
        ("header4", 0.000, 0.174, 0),
    ),
    printing=(("T", -0.275, 0.155, 0.026), ("R", 0.275, 0.155, 0.026)),
)
draw = BOARD.draw
DEFECTS = soldered((205, 208, 206))
