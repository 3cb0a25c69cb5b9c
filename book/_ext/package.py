"""What the package holds, as pages show it: objects, classes of defects, mini-VisA's pictures, the API."""

import pkgutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

import visa
from visa.data.objects import OBJECTS
from visa.mini import MODULES, render
from visa.report import tables

PUBLIC = ("visa.metrics",)  # packages whose names are used from the package itself
AUTOMODULE = """**`{module}`**

```{{eval-rst}}
.. automodule:: {module}
{options}```
"""
CELL, COLUMNS, OUTLINE = 220, 6, (255, 0, 255)  # pixels, pictures a row, colour of a mask's outline
SHEET = """:::{{figure}} generated/{id}.webp
:alt: Rendered {name}: two normal images and one of each defect class, with the outline of its mask.

Mini-VisA's `{id}`, from left to right: {labels}. Below each class the same with its mask's outline.
:::
"""


def objects(page: Any) -> str:
    """A row an object of VisA with its numbers of images, and their sum."""
    rows = [(o.group, o.name, f"`{o.id}`", o.normal, o.anomaly, len(o.classes)) for o in OBJECTS.values()]
    table = pd.DataFrame(rows, columns=["group", "object", "id", "normal", "anomalous", "classes"])
    table.loc[len(table)] = ["**all**", "", "", table["normal"].sum(), table["anomalous"].sum(), ""]
    return tables.to_markdown(table)


def classes(page: Any) -> str:
    """A row an object with its classes of defects and their ids in masks."""
    rows = [(o.id, ", ".join(f"{i}\N{NBSP}{c}" for i, c in enumerate(o.classes, 1))) for o in OBJECTS.values()]
    return tables.to_markdown(pd.DataFrame(rows, columns=["object", "class ids in masks"]))


def api(page: Any) -> str:
    """The reference of the named modules and packages, each package followed by its modules."""
    parts = []
    for name in modules(page.arguments[0].split()):
        options = "" if name in PUBLIC else "   :ignore-module-all:\n"  # a name stands where it is written
        members = "" if name.rpartition(".")[0] in PUBLIC else "   :members:\n"  # or with its package, for users
        parts.append(AUTOMODULE.format(module=name, options=members + (members and options)))
    return "\n".join(parts)


def modules(names: list[str]) -> list[str]:
    """Dotted names of `names` of visa, each package followed by its modules and packages."""
    found = []
    for name in names:
        inside = pkgutil.walk_packages([str(Path(visa.__file__).parent / name)], f"visa.{name}.")
        found += [f"visa.{name}", *(m.name for m in inside)]
    return found


def mini_sheets(page: Any) -> str:
    """A figure an object of mini-VisA, drawn when the page is read: once, and again when the renderer changes."""
    parts = []
    for source in Path(render.__code__.co_filename).parent.rglob("*.py"):
        page.env.note_dependency(str(source))
    for name, module in MODULES.items():
        Image.fromarray(sheet(name)).save(page.file(f"generated/{name}.webp"), quality=70)
        labels = ", ".join(["normal", "normal", *module.DEFECTS])
        parts.append(SHEET.format(name=OBJECTS[name].name if name in OBJECTS else name, id=name, labels=labels))
    return "\n".join(parts)


def sheet(name: str) -> NDArray[np.uint8]:
    """Two pairs of sound specimens, then each class: the picture, and below it the same with the mask's outline."""
    cells = [np.concatenate([render(name, "Normal", k + i, size=CELL)[0] for i in (0, 1)]) for k in (0, 2)]
    for k, defect in enumerate(MODULES[name].DEFECTS):
        picture, mask = render(name, "Anomaly", k, size=CELL, defects=(defect,))
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cells.append(np.concatenate([picture, cv2.drawContours(picture.copy(), outlines, -1, OUTLINE, 1)]))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % COLUMNS)
    rows = [np.concatenate(cells[k : k + COLUMNS], axis=1) for k in range(0, len(cells), COLUMNS)]
    return np.concatenate(rows)
