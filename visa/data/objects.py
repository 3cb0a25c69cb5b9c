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


_COMPLEX, _MULTIPLE, _SINGLE = "complex structure", "multiple instances", "single instance"
_COUNTS = (
    ("pcb1", "PCB1", _COMPLEX, 1004, 100),
    ("pcb2", "PCB2", _COMPLEX, 1001, 100),
    ("pcb3", "PCB3", _COMPLEX, 1006, 100),
    ("pcb4", "PCB4", _COMPLEX, 1005, 100),
    ("capsules", "Capsules", _MULTIPLE, 602, 100),
    ("candle", "Candles", _MULTIPLE, 1000, 100),
    ("macaroni1", "Macaroni1", _MULTIPLE, 1000, 100),
    ("macaroni2", "Macaroni2", _MULTIPLE, 1000, 100),
    ("cashew", "Cashew", _SINGLE, 500, 100),
    ("chewinggum", "Chewing gum", _SINGLE, 503, 100),
    ("fryum", "Fryum", _SINGLE, 500, 100),
    ("pipe_fryum", "Pipe fryum", _SINGLE, 500, 100),
)
_CLASSES = {
    **dict.fromkeys(("pcb1", "pcb2", "pcb3"), "bent, melt, scratch, missing"),
    "pcb4": "burnt, scratch, missing, damage, extra, wrong place, dirt",
    "capsules": "bubble, discolor, scratch, leak, misshape",
    "candle": "chunk of wax missing, damaged corner of packaging, weird candle wick, different colour spot, "
    "extra wax in candle, foreign particals on candle, wax melded out of the candle, other",
    "macaroni1": "chip around edge and corner, different colour spot, middle breakage, similar colour spot, "
    "small cracks, small scratches, other",
    "macaroni2": "breakage down the middle, color spot similar to the object, different color spot, "
    "small chip around edge, small cracks, small scratches, other",
    "cashew": "burnt, corner or edge breakage, different colour spot, middle breakage, small holes, small scratches, "
    "stuck together, same colour spot, other",
    "chewinggum": "chunk of gum missing, corner missing, scratches, similar colour spot, small cracks, other",
    "fryum": "burnt, corner or edge breakage, different colour spot, fryum stuck together, middle breakage, "
    "similar colour spot, small scratches, other",
    "pipe_fryum": "burnt, corner and edge breakage, different colour spot, middle breakage, similar colour spot, "
    "small scratches, stuck together, small cracks, other",
}
OBJECTS = {
    id: VisaObject(id, name, group, normal, anomaly, tuple(_CLASSES[id].split(", ")))
    for id, name, group, normal, anomaly in _COUNTS
}
