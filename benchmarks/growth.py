"""CPU seconds and peak memory of the pixel metrics against the number of images, up to all 2,162 test images of VisA.

    OMP_NUM_THREADS=1 python benchmarks/growth.py --out book/results/growth

Scores are made up image by image, and making them is not counted. Each row runs in a process of its own; its peak
memory is what came on top of the imports and of a small first call. Writes metrics.csv (what, images, pixels,
cpu_seconds, peak_bytes) and metrics.json into `--out`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from metrics_part import memory

from visa.metrics import ExactPixelMetrics, PixelMetrics, pixel_metrics
from visa.provenance import machine, write_rows, write_text

COLUMNS = ("what", "images", "pixels", "cpu_seconds", "peak_bytes")
FULL = (1000, 1500)
CASES = {  # what: (images, size)
    "one pass": [*((150, (s, s)) for s in (56, 112, 224, 448)), *((n, FULL) for n in (20, 60, 200, 600, 2162))],
    "two passes, exact": [*((150, (s, s)) for s in (56, 112, 224, 448)), *((n, FULL) for n in (20, 60, 200))],
    "in memory, exact": [*((150, (s, s)) for s in (56, 112, 224, 448)), *((n, FULL) for n in (20, 60, 150))],
}
Batch = tuple[np.ndarray, np.ndarray]
Batches = Callable[[], Iterator[Batch]]
Clock = dict[str, float]


def images(count: int, size: tuple[int, int]) -> Iterator[Batch]:
    """Maps and masks (1, H, W), every second image with two blobs, 1 % of the pixels anomalous."""
    rng = np.random.default_rng(0)
    coarse = rng.gamma(4, 1, (4, 28, 42)).astype(np.float32)
    height, width = size[0] // 10, size[1] // 10
    for i in range(count):
        image = cv2.resize(coarse[i % 4] * np.float32(1 + rng.random() / 10), size[::-1])
        mask = np.zeros(size, np.uint8)
        for _ in range(2 if i % 2 else 0):
            y, x = rng.integers(0, size[0] - height), rng.integers(0, size[1] - width)
            mask[y : y + height, x : x + width] = 1
            image[y : y + height, x : x + width] += 4
        yield image[None], mask[None]


def timed(clock: Clock, call: Callable[..., Any], *arguments: Any) -> Any:
    start = time.process_time()
    result = call(*arguments)
    clock["seconds"] = clock.get("seconds", 0) + time.process_time() - start
    return result


def one_pass(batches: Batches, clock: Clock) -> None:
    found = PixelMetrics()
    for maps, masks in batches():
        timed(clock, found.update, maps, masks)
    timed(clock, lambda: (found.compute(), found.bounds()))


def two_passes(batches: Batches, clock: Clock) -> None:
    found = ExactPixelMetrics()
    for maps, masks in batches():
        timed(clock, found.collect, maps, masks)
    for maps, _ in batches():
        timed(clock, found.count, maps)
    timed(clock, found.compute)


def in_memory(batches: Batches, clock: Clock) -> None:
    drawn = list(batches())
    n, size = len(drawn), drawn[0][0].shape[1:]
    maps, masks = np.empty((n, *size), np.float32), np.empty((n, *size), np.uint8)
    for i in reversed(range(n)):
        maps[i : i + 1], masks[i : i + 1] = drawn.pop()
    timed(clock, pixel_metrics, maps, masks)


RUNS = dict(zip(CASES, (one_pass, two_passes, in_memory), strict=True))


def one_row(what: str, count: int, size: tuple[int, int]) -> dict[str, Any]:
    RUNS[what](lambda: images(2, (20, 30)), {})  # loads compiled loops, once a process
    next(images(1, size))  # what is loaded with the first image is not the metrics'
    before, clock = memory("VmRSS"), Clock()
    RUNS[what](lambda: images(count, size), clock)
    peak = memory("VmHWM") - before
    pixels = count * size[0] * size[1]
    return dict(zip(COLUMNS, (what, count, pixels, round(clock["seconds"], 4), peak), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a folder to write into")
    parser.add_argument("--most", type=float, default=float("inf"), help="leave out cases with more pixels")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # one row, as JSON
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_row(*json.loads(options.case))))
        return
    rows = []
    for what, cases in CASES.items():
        for count, size in cases:
            if count * size[0] * size[1] <= options.most:
                command = [sys.executable, __file__, "--case", json.dumps([what, count, size])]
                env = os.environ | {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
                rows.append(json.loads(done.stdout))
                print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_rows(options.out / "metrics.csv", COLUMNS, rows)
        record = {"script": "benchmarks/growth.py", "data": "made up", "threads": 1, "machine": machine()}
        write_text(options.out / "metrics.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
