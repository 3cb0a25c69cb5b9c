"""Reading photographs at 256 pixels against Pillow. Goal: 2.3 times open + resize a core, with the same pixels.

    VISA_ROOT=/data/VisA OMP_NUM_THREADS=1 python benchmarks/read_images.py --out runs/benchmarks/read_images.json

The first training images of an object, one after the other in one thread, by each way in turn, `--repeats` times;
a way's CPU seconds are the least of its repeats. `difference`: grey levels from Pillow's open + resize (bilinear, which
is antialiased), mean and largest. `cached` maps what an earlier `load_images` kept. Without VISA_ROOT mini-VisA is
rendered with pictures of 1,024 x 1,024 pixels, not counted.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from visa.data.dataset import load_images, read_image, resize_image
from visa.data.source import open_source
from visa.data.splits import Sample
from visa.mini.writer import write_mini_visa
from visa.provenance import machine, write_text

GOAL = 2.3

Way = Callable[[], np.ndarray]  # uint8 N,3,side,side


def pillow(file: Path, side: int, draft: bool) -> np.ndarray:
    with Image.open(file) as image:
        if draft:
            image.draft("RGB", (side, side))
        return np.array(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def ways(root: Path, samples: list[Sample], side: int) -> dict[str, Way]:
    files = [root / s.image for s in samples]
    return {
        "Pillow open + resize": lambda: np.stack([pillow(f, side, False) for f in files]),
        "Pillow draft + resize": lambda: np.stack([pillow(f, side, True) for f in files]),
        "visa": lambda: np.stack([resize_image(read_image(f), (side, side)).numpy() for f in files]),
        "visa, cached": lambda: load_images(root, samples, (side, side), workers=1).clone().numpy(),
    }


def measure(ways: dict[str, Way], repeats: int) -> list[dict[str, object]]:
    pixels = {name: way() for name, way in ways.items()}  # it fills the cache, too
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            taken[name].append(time.process_time() - start)
    reference = "Pillow open + resize"
    rows = []
    for name, seconds in taken.items():
        apart = np.abs(pixels[name].astype(int) - pixels[reference])
        rows.append(
            {
                "way": name,
                "images_per_cpu_second": len(pixels[name]) / min(seconds),
                "ratio": min(taken[reference]) / min(seconds),
                "mean_difference": float(apart.mean()),
                "largest_difference": int(apart.max()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--object", default="fryum")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="side of mini-VisA's pictures, where it is rendered")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VISA_DATA"] = str(Path(scratch) / "data")  # the cache begins empty
        root = os.environ.get("VISA_ROOT") or str(
            write_mini_visa(Path(scratch) / "mini", [options.object], options.images, 4, options.size)
        )
        source = open_source(root)
        samples = source.samples("1cls", object=options.object)[: options.images]
        with Image.open(source.root / samples[0].image) as image:
            size = image.size
        rows = measure(ways(source.root, samples, options.side), options.repeats)
    print(f"{len(samples)} images of {source.name}, {size[0]} x {size[1]}, at {options.side} x {options.side}")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format))
    print(f"goal: visa at least {GOAL} times Pillow open + resize")
    if options.out:
        asked = {name: str(value) for name, value in vars(options).items() if name != "out"}
        record = {"asked": asked, "data": source.name, "size": size, "goal": GOAL, "load": os.getloadavg()}
        write_text(options.out, json.dumps({**record, "rows": rows, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
