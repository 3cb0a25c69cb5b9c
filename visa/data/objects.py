"""The twelve objects of VisA: names, groups, counts and defect classes (paper, table 1 and the data's README)."""

from dataclasses import dataclass

SPLIT_TYPES = ("1cls", "2cls_highshot", "2cls_fewshot")


@dataclass(frozen=True)
class VisaObject:
    """One object: its id in paths, its name and group in the paper, image counts, and classes (mask ids 1..n)."""

    id: str
    name: str
    group: str
    normal: int
    anomaly: int
    classes: tuple[str, ...]


_PCB = ("bent", "melt", "scratch", "missing")
_COMPLEX, _MULTIPLE, _SINGLE = "complex structure", "multiple instances", "single instance"

OBJECTS: dict[str, VisaObject] = {
    o.id: o
    for o in (
        VisaObject("pcb1", "PCB1", _COMPLEX, 1004, 100, _PCB),
        VisaObject("pcb2", "PCB2", _COMPLEX, 1001, 100, _PCB),
        VisaObject("pcb3", "PCB3", _COMPLEX, 1006, 100, _PCB),
        VisaObject(
            "pcb4",
            "PCB4",
            _COMPLEX,
            1005,
            100,
            ("burnt", "scratch", "missing", "damage", "extra", "wrong place", "dirt"),
        ),
        VisaObject("capsules", "Capsules", _MULTIPLE, 602, 100, ("bubble", "discolor", "scratch", "leak", "misshape")),
        VisaObject(
            "candle",
            "Candles",
            _MULTIPLE,
            1000,
            100,
            (
                "chunk of wax missing",
                "damaged corner of packaging",
                "weird candle wick",
                "different colour spot",
                "extra wax in candle",
                "foreign particals on candle",
                "wax melded out of the candle",
                "other",
            ),
        ),
        VisaObject(
            "macaroni1",
            "Macaroni1",
            _MULTIPLE,
            1000,
            100,
            (
                "chip around edge and corner",
                "different colour spot",
                "middle breakage",
                "similar colour spot",
                "small cracks",
                "small scratches",
                "other",
            ),
        ),
        VisaObject(
            "macaroni2",
            "Macaroni2",
            _MULTIPLE,
            1000,
            100,
            (
                "breakage down the middle",
                "color spot similar to the object",
                "different color spot",
                "small chip around edge",
                "small cracks",
                "small scratches",
                "other",
            ),
        ),
        VisaObject(
            "cashew",
            "Cashew",
            _SINGLE,
            500,
            100,
            (
                "burnt",
                "corner or edge breakage",
                "different colour spot",
                "middle breakage",
                "small holes",
                "small scratches",
                "stuck together",
                "same colour spot",
                "other",
            ),
        ),
        VisaObject(
            "chewinggum",
            "Chewing gum",
            _SINGLE,
            503,
            100,
            ("chunk of gum missing", "corner missing", "scratches", "similar colour spot", "small cracks", "other"),
        ),
        VisaObject(
            "fryum",
            "Fryum",
            _SINGLE,
            500,
            100,
            (
                "burnt",
                "corner or edge breakage",
                "different colour spot",
                "fryum stuck together",
                "middle breakage",
                "similar colour spot",
                "small scratches",
                "other",
            ),
        ),
        VisaObject(
            "pipe_fryum",
            "Pipe fryum",
            _SINGLE,
            500,
            100,
            (
                "burnt",
                "corner and edge breakage",
                "different colour spot",
                "middle breakage",
                "similar colour spot",
                "small scratches",
                "stuck together",
                "small cracks",
                "other",
            ),
        ),
    )
}
