"""Render one picture of mini-VisA: find the objects, choose an image's defects, and draw them."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any
from zlib import crc32

import numpy as np

from visa.mini import objects
from visa.mini.bench import wear
from visa.mini.canvas import Canvas, Image

VISA_COUNTS = {  # VisA's numbers of normal and anomalous images
    **{"pcb1": (1004, 100), "pcb2": (1001, 100), "pcb3": (1006, 100), "pcb4": (1005, 100)},
    **{"capsules": (602, 100), "candle": (1000, 100), "macaroni1": (1000, 100), "macaroni2": (1000, 100)},
    **{"cashew": (500, 100), "chewinggum": (503, 100), "fryum": (500, 100), "pipe_fryum": (500, 100)},
}


def find_modules() -> dict[str, Any]:
    """Find every object in the folder `objects`: VisA's in VisA's order, then others by name.

    A file defines one object, which has the file's name, unless its `OBJECTS` names several.
    """
    found: dict[str, Any] = {}
    for file in iter_modules(objects.__path__):
        module = import_module(f"{objects.__name__}.{file.name}")
        found |= getattr(module, "OBJECTS", {file.name: module})
    return {name: found[name] for name in (*VISA_COUNTS, *sorted(found.keys() - VISA_COUNTS))}


MODULES = find_modules()
KINDS = ("Normal", "Anomaly")
SECOND_CLASS = 0.2  # share of the anomalous images that show two classes
STRENGTH = (0.35, 1.10)  # of a defect, at difficulty 1
LEAST_AREA = 1.5e-4  # share of the picture: a defect that is marked on less is drawn again


def check_known(what: str, value: str, known: Iterable[str]) -> None:
    """Raise ValueError, listing the `known` values, unless `value` is one of them."""
    names = list(known)
    if value not in names:
        near = get_close_matches(value, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(names)}.{hint}")


def classes_of(name: str, index: int, seed: int = 0) -> tuple[str, ...]:
    """Return the defect classes of anomalous image `index`, in the order of their ids: one, sometimes two.

    All classes of the object take turns: each round of as many images as there are classes shows every class.
    """
    check_known("object of mini-VisA", name, MODULES)
    classes = tuple(MODULES[name].DEFECTS)
    turn, place = divmod(index, len(classes))
    first = classes[_rng(seed, name, "turn", turn).permutation(len(classes))[place]]
    rng = _rng(seed, name, "second", index)
    chosen = {first, rng.choice([c for c in classes if c != first])} if rng.random() < SECOND_CLASS else {first}
    return tuple(c for c in classes if c in chosen)


def render(
    name: str,
    kind: str,
    index: int,
    seed: int = 0,
    size: int = 256,
    difficulty: float = 1.0,
    defects: Sequence[str] | None = None,
) -> tuple[Image, Image]:
    """Render one specimen: its image (size, size, 3), uint8 RGB, and class ids (size, size), uint8.

    `kind` is Normal or Anomaly. An anomalous image shows `classes_of` it unless `defects` names others; with
    `defects=()` it is the same specimen without a defect. Pixels depend on the arguments alone.

    Raises ValueError for an unknown object, kind or defect, a `size` below 64 or a `difficulty` of 0 or less.
    """
    check_known("object of mini-VisA", name, MODULES)
    check_known("kind of image", kind, KINDS)
    if defects is None:
        defects = classes_of(name, index, seed) if kind == "Anomaly" else ()
    ids = {c: i for i, c in enumerate(MODULES[name].DEFECTS, start=1)}
    for defect in defects:
        check_known(f"defect of {name}", defect, ids)
    if size < 64 or difficulty <= 0:
        raise ValueError(f"size {size}, difficulty {difficulty}: mini-VisA needs at least 64 pixels and more than 0.")
    module = MODULES[name]
    for attempt in range(20):
        canvas = Canvas(size, ids)
        body = module.draw(canvas, _rng(seed, name, kind, index))
        wear(canvas, body, _rng(seed, name, kind, index, 2), getattr(module, "WEAR", 1.0))
        for defect in defects:
            rng = _rng(seed, name, kind, index, crc32(defect.encode()), attempt)
            strength = float(np.clip(rng.uniform(*getattr(module, "STRENGTH", STRENGTH)) / difficulty, 0.1, 1.5))
            module.DEFECTS[defect](canvas, body, defect, rng, strength)
        mask = canvas.class_mask()
        if all((mask == ids[d]).sum() >= LEAST_AREA * mask.size for d in defects):
            break
    return canvas.photograph(_rng(seed, name, kind, index, 1)), mask


def _rng(seed: int, name: str, what: str, *numbers: int) -> np.random.Generator:
    """Make a generator for each use, so that no picture depends on which were drawn before it."""
    return np.random.default_rng([seed, crc32(name.encode()), crc32(what.encode()), *numbers])
