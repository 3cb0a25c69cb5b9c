"""How fast mini-VisA is rendered: images a CPU second of one core, each object; goal at 256 px: 25.

    python benchmarks/synth.py --out runs/benchmarks/synth.json

`render` makes pixels and masks in memory; `write_images` is all that `visa synth` does: rendering, JPEG and PNG
encoding, files. An object's first picture, which also draws what all its pictures share, is not counted in `render`.
`whole` is the command itself with `--workers` processes, start and all: images a CPU second of all of them together.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import pandas as pd
from tqdm import tqdm

from visa.data.objects import OBJECTS
from visa.mini import MODULES, render, write_mini_visa
from visa.mini.writer import DEFAULTS
from visa.provenance import machine, write_text

IMAGES = DEFAULTS.normal + DEFAULTS.anomaly  # of an object, as the notebooks render it


def cpu_rate(name: str, size: int, images: int) -> float:
    """Images a CPU second, three normal ones for each anomalous one, as in mini-VisA."""
    render(name, "Normal", 0, size=size)
    started = time.process_time()
    for kind, count in (("Normal", 3 * images), ("Anomaly", images)):
        for index in range(count):
            render(name, kind, index, size=size)
    return 4 * images / (time.process_time() - started)


def write_rate(name: str, size: int, images: int) -> float:
    """The same for whole files."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.process_time()
        write_mini_visa(Path(scratch) / "mini", [name], 3 * images, images, size, workers=1)
        return 4 * images / (time.process_time() - started)


def whole_command(scale: float, workers: int) -> dict[str, float]:
    """All objects, by `workers` processes, whose CPU time counts as this one's does."""
    with tempfile.TemporaryDirectory() as scratch:
        before = os.times()[:4]
        root = write_mini_visa(Path(scratch) / "mini", list(MODULES), workers=workers, scale=scale)
        seconds = sum(os.times()[:4]) - sum(before)
        images = len(list(root.glob("*/Data/Images/*/*")))
    every = sum(about.normal + about.anomaly for about in OBJECTS.values())
    return {
        "scale": scale,
        "workers": workers,
        "images": images,
        "images_per_cpu_second": round(images / seconds, 1),
        "every_image": every,
        "every_image_cpu_minutes": round(every * seconds / images / 60, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--images", type=int, default=12, help="anomalous images an object; three times as many normal")
    parser.add_argument("--scale", type=float, default=0.05, help="of VisA, for the whole command; 0: leave it out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for size in map(int, options.sizes.split(",")):
        for name in tqdm(MODULES, desc=f"{size} px"):
            rates = {"render": cpu_rate(name, size, options.images), "write": write_rate(name, size, options.images)}
            rows.append({"object": name, "size": size, **{way: round(rate, 1) for way, rate in rates.items()}})
            rows[-1]["default_seconds"] = round(IMAGES / rates["write"], 1)
    whole = whole_command(options.scale, options.workers) if options.scale else None
    print(pd.DataFrame(rows).to_string(index=False))
    print("whole command:", whole)
    if options.out:
        facts = {"rows": rows, "whole": whole, "machine": machine()}
        write_text(options.out, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
