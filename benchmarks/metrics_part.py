"""One part of metrics.py in a process of its own, ours or a peer's: CPU seconds, peak memory and figures, as JSON.

    python benchmarks/metrics_part.py PART FOLDER

FOLDER holds maps.npy and masks.npy. Only what a part needs is imported: a peer's Python may know nothing of `visa`.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Part = Callable[[np.ndarray, np.ndarray], dict[str, Any]]


def exact() -> Part:
    from visa.metrics import pixel_metrics

    return pixel_metrics


def one_pass() -> Part:
    from visa.metrics import PixelMetrics

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
        found = PixelMetrics()
        found.update(maps, masks)
        return found.compute() | {"bounds": found.bounds()}

    return run


def reference() -> Part:
    """A plain sweep of the 202 thresholds that the reference tool sweeps."""

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
        scores, truth = maps.ravel(), masks.ravel() == 1
        inside, normal = scores[truth], ~truth
        spaced = np.linspace(inside.min(), inside.max(), 100)
        percentiles = np.percentile(inside, np.linspace(0, 100, 100))
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

    return run


def scikit_learn() -> Part:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return lambda maps, masks: {
        "auroc": roc_auc_score(masks.ravel(), maps.ravel()),
        "ap": average_precision_score(masks.ravel(), maps.ravel()),
    }


def anomalib() -> Part:
    import torch
    from anomalib.metrics.aupro import _AUPRO

    torch.set_num_threads(1)

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
        metric = _AUPRO(fpr_limit=0.3)
        metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
        return {"au_pro": metric.compute().item()}

    return run


def adeval() -> Part:
    np.trapz = np.trapezoid  # adeval 1.1 calls it by the name that NumPy 2.4 dropped
    from adeval import auroc_aupr_aupro

    return lambda maps, masks: dict(zip(("auroc", "au_pr", "au_pro"), auroc_aupr_aupro(maps, masks), strict=True))


PARTS = {part.__name__: part for part in (exact, one_pass, reference, scikit_learn, anomalib, adeval)}


def memory(which: str) -> int:
    """Bytes of this process, `VmRSS` now or `VmHWM` at most so far (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def main() -> None:
    run = PARTS[sys.argv[1]]()
    masks = np.stack([np.zeros((24, 24), np.uint8), np.eye(24, dtype=np.uint8)])
    run(np.random.default_rng(0).random(masks.shape, np.float32), masks)
    before = memory("VmRSS")  # with what the first call loads
    maps, masks = (np.load(Path(sys.argv[2]) / f"{name}.npy") for name in ("maps", "masks"))
    run(maps, masks)  # to warm up
    start = time.process_time()
    figures = run(maps, masks)
    seconds = time.process_time() - start
    peak = (memory("VmHWM") - before) / (maps.nbytes + masks.nbytes)
    plain = {k: v if isinstance(v, dict) else float(v) for k, v in figures.items()}
    print(json.dumps({"cpu_seconds": seconds, "memory_of_inputs": peak, "figures": plain}))


if __name__ == "__main__":
    main()
