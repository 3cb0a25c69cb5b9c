"""A VisA root of a few pixels that a test may break."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visa.data.objects import SPLIT_TYPES

HEIGHT, WIDTH = 8, 12
CLASSES = {0: "burnt", 1: "corner or edge breakage", 2: "other"}  # of fryum: class ids 1, 2 and 8
IDS = {0: 1, 1: 2, 2: 8}


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """Object fryum with normal images 000 to 003 and anomalies 000 to 002; candle is in the split files only."""
    root = tmp_path / "tiny"
    write_images(root)
    write_tables(root)
    return root


def write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, count in (("Images/Normal", 4), ("Images/Anomaly", 3), ("Masks/Anomaly", 3)):
        folder = root / "fryum" / "Data" / kind
        folder.mkdir(parents=True)
        for i in range(count):
            if kind.startswith("Images"):
                pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03}.JPG", quality=95)
            else:
                mask = np.zeros((HEIGHT, WIDTH), np.uint8)
                mask[2:4, 3 : 5 + i] = IDS[i]
                Image.fromarray(mask).save(folder / f"{i:03}.png")


def write_tables(root: Path) -> None:
    normal = [f"fryum/Data/Images/Normal/{i:03}.JPG" for i in range(4)]
    anomaly = [(f"fryum/Data/Images/Anomaly/{i:03}.JPG", f"fryum/Data/Masks/Anomaly/{i:03}.png") for i in range(3)]
    rows = ["image,label,mask", *(f"{image},normal," for image in normal)]
    rows += [f"{image},{CLASSES[i]},{mask}" for i, (image, mask) in enumerate(anomaly)]
    (root / "fryum" / "image_anno.csv").write_text("\n".join(rows) + "\n")
    (root / "dataset.json").write_text('{"synthetic": true}')
    (root / "split_csv").mkdir()
    for setup in SPLIT_TYPES:
        rows = ["object,split,label,image,mask", "candle,train,normal,candle/Data/Images/Normal/0000.JPG,"]
        rows += [f"fryum,{'train' if i < 2 else 'test'},normal,{image}," for i, image in enumerate(normal)]
        for i, (image, mask) in enumerate(anomaly):
            part = "train" if i == 0 and setup != "1cls" else "test"
            rows.append(f"fryum,{part},anomaly,{image},{mask}")
        (root / "split_csv" / f"{setup}.csv").write_text("\n".join(rows) + "\n")
