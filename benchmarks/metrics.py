"""Pixel metrics of 150 maps against the reference tool's sweep, scikit-learn, anomalib and adeval, in CPU seconds.

    python benchmarks/metrics.py --scores runs/.../scores.npz --peer-python ../peers/bin/python --full --out out.json

`--scores`: a scores.npz of notebook 04; without it, maps with blobs are made up. `--peer-python`: a Python that has
anomalib and adeval, else their rows are left out. Every part runs in a process of its own on one thread, once to warm
up and once for the clock; the parts take turns, `--repeats` times. Times are medians, ratios medians of the repeats'
ratios to ours: `exact` at 224 px, `one_pass` at 1,000 x 1,500. Memory is the peak over the imports and a tiny first
call, in sizes of the inputs. Goals: 25 times the sweep, 30 times anomalib, and with `--full` 3 times adeval within 1.2
times the memory of the inputs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from visa.detect.scores import load_scores
from visa.provenance import machine, write_text

PART = Path(__file__).with_name("metrics_part.py")
PEERS = ("anomalib", "adeval")
SIZES = {  # label: height and width, our part, the others
    "224 x 224": ((224, 224), "exact", ("one_pass", "reference", "scikit_learn", "anomalib", "adeval")),
    "1000 x 1500": ((1000, 1500), "one_pass", ("exact", "adeval")),
}
GOALS = {("224 x 224", "reference"): 25, ("224 x 224", "anomalib"): 30, ("1000 x 1500", "adeval"): 3}


def made_up(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth maps at 224 px, two thirds of them with blobs that score higher."""
    rng = np.random.default_rng(0)
    coarse = rng.gamma(4, 1, (images, 28, 28)).astype(np.float32)
    masks = np.zeros((images, 224, 224), np.uint8)
    for i in range(2 * images // 3):
        for _ in range(2):
            y, x = rng.integers(0, 25, 2)
            coarse[i, y : y + 2, x : x + 2] += 4
            masks[i, 8 * y : 8 * y + 16, 8 * x : 8 * x + 16] = 1
    return np.stack([cv2.resize(c, (224, 224)) for c in coarse]), masks


def scored(file: Path) -> tuple[np.ndarray, np.ndarray]:
    scores = load_scores(file)
    if scores.maps is None or scores.masks is None:
        sys.exit(f"{file} holds no maps: name the scores of a detector that makes some.")
    return scores.maps[scores.known], scores.masks[scores.known]


def save_at(size: tuple[int, int], maps: np.ndarray, masks: np.ndarray, folder: Path) -> None:
    """Write maps (bilinear) and masks (nearest) at `size` without holding them all."""
    for name, arrays, how in (("maps", maps, cv2.INTER_LINEAR), ("masks", masks, cv2.INTER_NEAREST)):
        shape = (len(arrays), *size)
        target = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype=arrays.dtype, shape=shape)
        for i, array in enumerate(arrays):
            target[i] = cv2.resize(array, size[::-1], interpolation=how)
        target.flush()


def measure(part: str, folder: Path, peer_python: Path | None) -> dict[str, Any] | None:
    """What metrics_part.py prints; None where a peer is absent."""
    python = str(peer_python) if part in PEERS else sys.executable
    env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")
    done = subprocess.run([python, str(PART), part, str(folder)], capture_output=True, text=True, env=env)
    if part in PEERS and "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        sys.exit(f"{part} failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rows_at(label: str, folder: Path, repeats: int, peer_python: Path | None) -> list[dict[str, Any]]:
    _, ours, others = SIZES[label]
    taken: dict[str, list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for part in (ours, *others):
            if part in PEERS and peer_python is None:
                continue
            result = measure(part, folder, peer_python)
            if result is not None:
                taken.setdefault(part, []).append(result)
    for part in set(others) - set(taken):
        print(f"{label}: {part} is not there (--peer-python names a Python that has it): its row is left out.")
    return [row(label, part, taken[ours], results) for part, results in taken.items()]


def row(label: str, part: str, ours: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = [r["cpu_seconds"] / o["cpu_seconds"] for r, o in zip(results, ours, strict=True)]
    return {
        "size": label,
        "part": part,
        "cpu_seconds": statistics.median(r["cpu_seconds"] for r in results),
        "ratio": statistics.median(ratios),
        "goal": GOALS.get((label, part), ""),
        "memory_of_inputs": max(r["memory_of_inputs"] for r in results),
        "repeats": len(results),
        **{k: results[0]["figures"].get(k, "") for k in ("auroc", "au_pr", "ap", "au_pro")},
        "bounds": results[0]["figures"].get("bounds", ""),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, help="a scores.npz of notebook 04")
    parser.add_argument("--images", type=int, default=150, help="made-up ones, without --scores")
    parser.add_argument("--full", action="store_true", help="at 1,000 x 1,500 too (2 GB of disk, 2 GB of memory)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--out", type=Path, help="a JSON file to write, and a CSV beside it")
    options = parser.parse_args()
    maps, masks = scored(options.scores) if options.scores else made_up(options.images)
    rows: list[dict[str, Any]] = []
    for label, (size, _, _) in SIZES.items():
        if size == (224, 224) or options.full:
            with tempfile.TemporaryDirectory() as folder:
                save_at(size, maps, masks, Path(folder))
                rows += rows_at(label, Path(folder), options.repeats, options.peer_python)
    table = pd.DataFrame(rows).drop(columns="bounds")
    print(table.map(lambda v: f"{v:.4g}" if isinstance(v, float) else v).to_string(index=False))
    for bounded in (r for r in rows if r["bounds"]):
        widths = {name: high - low for name, (low, high) in bounded["bounds"].items()}
        print(f"{bounded['size']}, one pass: error at most " + ", ".join(f"{k} {v:.1e}" for k, v in widths.items()))
    if options.out:
        data = options.scores.name if options.scores else "made up"
        asked = {"data": data, "images": len(maps), "positive_share": float(masks.mean()), "repeats": options.repeats}
        write_text(options.out, json.dumps({"asked": asked, "rows": rows, "machine": machine()}, indent=1) + "\n")
        write_text(options.out.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
