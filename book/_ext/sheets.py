"""Contact sheets of mini-VisA: every object, sound and with each of its defects, as the page on it shows them."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from visa.mini import MODULES, render
from visa.provenance import code_digest, digest, file_digest

CELL, LABEL, COLUMNS = 220, 30, 6  # pixels
OUTLINE = (255, 0, 255)
Picture = NDArray[np.uint8]


def write_sheets(folder: Path) -> None:
    """Make `folder` hold one sheet an object, <object>.webp; nothing is drawn again while the renderer is the same."""
    folder.mkdir(parents=True, exist_ok=True)
    key, stamp = digest([code_digest("mini"), file_digest(Path(__file__))]), folder / "key.txt"
    sheets = {name: folder / f"{name}.webp" for name in MODULES}
    if stamp.is_file() and stamp.read_text() == key and all(file.is_file() for file in sheets.values()):
        return
    for name, file in sheets.items():
        sheet(name).save(file, quality=82)
    stamp.write_text(key)


def sheet(name: str) -> PIL.Image.Image:
    """Two sound specimens, then each class: the picture, and below it the same with the mask's outline."""
    cells = list(_cells(name))
    rows = -(-len(cells) // COLUMNS)
    whole = PIL.Image.new("RGB", (COLUMNS * CELL, rows * (LABEL + 2 * CELL)), "white")
    draw, font = PIL.ImageDraw.Draw(whole), PIL.ImageFont.load_default(15)
    for k, (label, picture, outlined) in enumerate(cells):
        x, y = k % COLUMNS * CELL, k // COLUMNS * (LABEL + 2 * CELL)
        draw.text((x + CELL / 2, y + LABEL / 2), label, "black", font, anchor="mm")
        whole.paste(PIL.Image.fromarray(picture), (x, y + LABEL))
        whole.paste(PIL.Image.fromarray(outlined), (x, y + LABEL + CELL))
    return whole


def _cells(name: str) -> Iterator[tuple[str, Picture, Picture]]:
    for k in range(2):
        first, second = (render(name, "Normal", index, size=CELL)[0] for index in (2 * k, 2 * k + 1))
        yield "normal", first, second
    for k, defect in enumerate(MODULES[name].DEFECTS):
        picture, mask = render(name, "Anomaly", k, size=CELL, defects=(defect,))
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outlined = cv2.drawContours(picture.copy(), outlines, -1, OUTLINE, 1)
        yield _short(defect), picture, np.asarray(outlined, np.uint8)


def _short(defect: str, most: int = 30) -> str:
    return defect if len(defect) <= most else defect[: most - 1] + "…"
