"""A VisA root of a few pixels that a test may break."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visa.data.objects import SPLIT_TYPES

HEIGHT, WIDTH = 8, 12
DEFECTS = {"burnt": 1, "corner or edge breakage": 2, "other": 8}  # of fryum, with their class ids


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """Object fryum with normal images 000 to 003 and anomalies 000 to 002; candle is in the split files only."""
    root = tmp_path / "tiny"
    rng = np.random.default_rng(0)
    for kind in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
        (root / "fryum/Data" / kind).mkdir(parents=True)
    normal = [f"fryum/Data/Images/Normal/{i:03}.JPG" for i in range(4)]
    anomaly = [(f"fryum/Data/Images/Anomaly/{i:03}.JPG", f"fryum/Data/Masks/Anomaly/{i:03}.png") for i in range(3)]
    for image in (*normal, *(image for image, _ in anomaly)):
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(root / image, quality=95)
    rows = ["image,label,mask", *(f"{image},normal," for image in normal)]
    for i, ((image, mask), (defect, class_id)) in enumerate(zip(anomaly, DEFECTS.items(), strict=True)):
        rows.append(f"{image},{defect},{mask}")
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        pixels[2:4, 3 : 5 + i] = class_id
        Image.fromarray(pixels).save(root / mask)
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
    return root
