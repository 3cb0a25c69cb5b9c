"""Circuit boards PCB1 to PCB4, each described: size, colours, components in the order of mounting, and printing."""

from visa.mini.board import Board, burnt, damage, dirt, extra, missing, scratched, soldered, wrong_place
from visa.mini.parts import LED, PIN
from visa.mini.shapes import Pose

PCB1 = Board(  # a blue distance sensor's board with two round transducers, a crystal, chips and a row of pins
    size=(0.88, 0.44),
    colour=(26, 70, 148),
    trace=(44, 98, 180),
    pose=Pose(0.5, 0.45, 0, 1.06),
    holes=tuple((s * 0.41, t * 0.19) for s in (-1, 1) for t in (-1, 1)),
    parts=(
        *(("can", x, -0.020, 0) for x in (-0.275, 0.275)),
        ("crystal", 0.000, -0.160, 0),
        ("chip", 0.000, 0.010, 0),
        *(("resistor", -0.095 + 0.038 * k, -0.090, 90) for k in range(6)),
        *(("capacitor", side * 0.112, -0.015 + 0.045 * k, 0) for side in (-1, 1) for k in range(3)),
        *(("resistor", -0.075 + 0.05 * k, 0.110, 0) for k in range(4)),
        *(("pin", -0.0675 + 0.045 * k, 0.192 + PIN / 2, 0) for k in range(4)),
        ("header4", 0.000, 0.174, 0),
    ),
    printing=(("T", -0.275, 0.155, 0.026), ("R", 0.275, 0.155, 0.026)),
    DEFECTS=soldered((205, 208, 206)),
)

PCB2 = Board(  # a narrow red board that looks for obstacles with two infrared LEDs, one clear and one black
    size=(0.64, 0.32),
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
    DEFECTS=soldered((226, 206, 196)),
)

RINGS = ("32K", "SQW", "SCL", "SDA", "VCC", "GND", "D2", "D3", "D4", "D5", "RST", "3V3")
PCB3 = Board(  # a black clock board with a coin cell, a controller on its corner, and a row of labelled rings
    size=(0.82, 0.62),
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
        *((label, -0.286 + 0.052 * k, -0.245, 0.0125) for k, label in enumerate(RINGS)),
        ("RTC-3", 0.255, 0.262, 0.026),
        ("RESET", 0.325, -0.200, 0.014),
        ("BAT", -0.345, 0.230, 0.020),
    ),
    DEFECTS=soldered((196, 192, 180)),
)

MARKS = (("U1", -0.11, 0.15), ("U2", 0.408, -0.08), ("U3", 0.182, 0.22), ("L1", -0.356, 0.2), ("Y1", 0.065, 0.178))
LAMPS = ("red lamp", "amber lamp", "green lamp", "green lamp", "green lamp", "green lamp")
LABELS = ("PWR", "RUN", "D1", "D2", "D3", "D4")
PCB4 = Board(  # a large, dense green control board: processor, USB socket, relay, a row of LEDs and gold edge contacts
    size=(0.88, 0.76),
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
        *((text, x, y, 0.014) for text, x, y in MARKS),
    ),
    DEFECTS={
        "burnt": burnt,
        "scratch": scratched((206, 214, 196)),
        "missing": missing,
        "damage": damage,
        "extra": extra,
        "wrong place": wrong_place,
        "dirt": dirt,
    },
)

OBJECTS = {"pcb1": PCB1, "pcb2": PCB2, "pcb3": PCB3, "pcb4": PCB4}
