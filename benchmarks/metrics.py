"""Exact pixel metrics of 150 maps against the reference tool's sweep, scikit-learn and anomalib, in CPU seconds.

    python benchmarks/metrics.py --scores runs/.../scores.npz --full --out book/results/benchmarks/metrics.json

`--scores`: a scores.npz of notebook 04; without it, maps with blobs are made up. Every part runs in a process of its
own on one thread, once to warm up and once for the clock; parts take turns, `--repeats` times. Times are medians,
ratios medians of the repeats' ratios to ours. Memory is the peak over imports and a tiny first call, in sizes of the
inputs. `--full` measures ours at 1,000 x 1,500 pixels, too. Goals: 10 times the sweep, 5 times anomalib's AU-PRO alone;
anomalib is left out where it is not installed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from common import THREADS, ratio, show, write_record
from sklearn.metrics import average_precision_score, roc_auc_score

from visa.detect.scores import load_scores
from visa.metrics import pixel_metrics
from visa.provenance import write_rows

COLUMNS = ("size", "part", "cpu_seconds", "ratio", "memory_of_inputs", "repeats", "auroc", "au_pr", "ap", "au_pro")


def reference(maps, masks):
    """A plain sweep of the 202 thresholds that the reference tool sweeps."""
    scores, truth = maps.ravel(), masks.ravel() == 1
    inside, normal = scores[truth], ~truth
    spaced, percentiles = np.linspace(inside.min(), inside.max(), 100), np.percentile(inside, np.linspace(0, 100, 100))
    thresholds = np.sort(np.concatenate([spaced, percentiles, [scores.min(), scores.max()]]))[::-1]
    tpr, fpr, precision = [], [], []
    for threshold in thresholds:
        called = scores > threshold
        tp, fp = (called & truth).sum(), (called & normal).sum()
        fn, tn = (~called & truth).sum(), (~called & normal).sum()
        tpr.append(tp / (tp + fn))
        fpr.append(fp / (fp + tn))
        precision.append(tp / (tp + fp) if tp + fp else 1.0)
    return {"auroc": np.trapezoid(tpr, fpr), "au_pr": np.trapezoid(precision, tpr)}


def scikit_learn(maps, masks):
    truth, scores = masks.ravel(), maps.ravel()
    return {"auroc": roc_auc_score(truth, scores), "ap": average_precision_score(truth, scores)}


def anomalib(maps, masks):
    import torch
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=0.3)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
    return {"au_pro": metric.compute().item()}


PARTS = {"exact": pixel_metrics, "reference": reference, "scikit_learn": scikit_learn, "anomalib": anomalib}


def measure_here(part, folder):
    """CPU seconds, peak memory and metrics of a part on the maps and masks in `folder`."""
    run = PARTS[part]
    masks = np.stack([np.zeros((24, 24), np.uint8), np.eye(24, dtype=np.uint8)])
    run(np.random.default_rng(0).random(masks.shape, np.float32), masks)
    before = _memory("VmRSS")  # with what the first call loads
    maps, masks = (np.load(folder / f"{name}.npy") for name in ("maps", "masks"))
    run(maps, masks)  # to warm up
    start = time.process_time()
    metrics = {k: float(v) for k, v in run(maps, masks).items()}
    seconds = time.process_time() - start
    peak = (_memory("VmHWM") - before) / (maps.nbytes + masks.nbytes)
    return {"cpu_seconds": seconds, "memory_of_inputs": peak, "metrics": metrics}


def _memory(which):
    """Bytes of this process: `VmRSS` now, `VmHWM` at most so far (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def measure(part, folder):
    """What `measure_here` finds in a new process."""
    command = [sys.executable, __file__, "--part", part, folder]
    one_thread = os.environ | dict.fromkeys(THREADS, "1")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=one_thread)
    return json.loads(done.stdout.splitlines()[-1])


def made_up(images):
    """Smooth maps at 224 px, two thirds of them with blobs that score higher, and their masks."""
    rng = np.random.default_rng(0)
    coarse = rng.gamma(4, 1, (images, 28, 28)).astype(np.float32)
    masks = np.zeros((images, 224, 224), np.uint8)
    for i in range(2 * images // 3):
        for y, x in rng.integers(0, 25, (2, 2)):
            coarse[i, y : y + 2, x : x + 2] += 4
            masks[i, 8 * y : 8 * y + 16, 8 * x : 8 * x + 16] = 1
    return np.stack([cv2.resize(c, (224, 224)) for c in coarse]), masks


def save_at(size, maps, masks, folder):
    """Write maps (bilinear) and masks (nearest) at `size` without holding them all."""
    for name, arrays, how in (("maps", maps, cv2.INTER_LINEAR), ("masks", masks, cv2.INTER_NEAREST)):
        shape = (len(arrays), *size)
        target = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype=arrays.dtype, shape=shape)
        for i, array in enumerate(arrays):
            target[i] = cv2.resize(array, size[::-1], interpolation=how)
        target.flush()


def rows_at(size, parts, maps, masks, repeats):
    """A row a part."""
    found = {part: [] for part in parts}
    with tempfile.TemporaryDirectory() as folder:
        save_at(size, maps, masks, Path(folder))
        for _ in range(repeats):
            for part in parts:
                found[part].append(measure(part, folder))
    taken = {part: [result["cpu_seconds"] for result in results] for part, results in found.items()}
    for part, results in found.items():
        yield {
            "size": f"{size[0]} x {size[1]}",
            "part": part,
            "cpu_seconds": statistics.median(taken[part]),
            "ratio": ratio(taken, part, "exact"),
            "memory_of_inputs": max(result["memory_of_inputs"] for result in results),
            "repeats": repeats,
            **{name: results[0]["metrics"].get(name, "") for name in COLUMNS[-4:]},
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, help="a scores.npz of notebook 04")
    parser.add_argument("--images", type=int, default=150, help="made-up ones, without --scores")
    parser.add_argument("--full", action="store_true", help="ours at 1,000 x 1,500, too (2 GB of disk)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file to write, and a CSV beside it")
    parser.add_argument("--part", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        return print(json.dumps(measure_here(options.part[0], Path(options.part[1]))))
    if options.scores:
        scores = load_scores(options.scores)
        maps, masks = scores.maps[scores.known], scores.masks[scores.known]
    else:
        maps, masks = made_up(options.images)
    peer = version("anomalib") if find_spec("anomalib") else None
    parts = [part for part in PARTS if part != "anomalib" or peer]
    rows = list(rows_at((224, 224), parts, maps, masks, options.repeats))
    if options.full:
        rows += rows_at((1000, 1500), ["exact"], maps, masks, options.repeats)
    show(rows)
    if options.out:
        write_record(options.out, options, rows=rows, peer=peer, images=len(maps))
        write_rows(options.out.with_suffix(".csv"), COLUMNS, rows)


if __name__ == "__main__":
    main()
