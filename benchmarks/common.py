"""What several benchmarks share: parts that take turns, an object's images and features, records with provenance.

Rows that compare with anomalib need an environment that has both:

    python -m venv peers && peers/bin/pip install -e . anomalib
    peers/bin/python benchmarks/patchcore.py ...
"""

import json
import os
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd

from visa.provenance import machine, write_text

_UNSAID = ("out", "anomalib_python", "part")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def cpu_seconds(run):
    """CPU seconds of this process in `run()`, and what it returned."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def turns(runs, repeats):
    """Seconds of each of `runs` (name to a function that returns seconds), which take turns `repeats` times."""
    taken = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(run())
    return taken


def ratio(taken, part, whole):
    """Median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(taken[part], taken[whole], strict=True))


def anomalib_version():
    """None where anomalib is not installed, which is said."""
    try:
        return version("anomalib")
    except PackageNotFoundError:
        print("anomalib is not installed in this environment: its rows are left out.")
        return None


class Data:
    """An object's training and test images at one size, N,3,S,S bytes, with the truth, and a backbone."""

    def __init__(self, options, side=0):
        from visa.backbone import load_backbone
        from visa.data.dataset import load_images, load_masks
        from visa.data.source import open_source

        source = open_source()
        name = options.object or source.objects[0]
        self.size = (side or options.image_size,) * 2
        train, test = (source.samples("1cls", object=name, split=part) for part in ("train", "test"))
        self.train = load_images(source.root, train[: options.images], self.size)
        self.test = load_images(source.root, test, self.size)
        self.labels = np.array([s.label == "anomaly" for s in test])
        self.masks = load_masks(source.root, test, self.size)[0].numpy()
        self.backbone = load_backbone(options.arch, options.weights)
        self.about = {"data": source.name, "object": name, "images": len(self.train), "test": len(self.test)}

    def aurocs(self, scores, maps):
        """AU-ROC of the test images' scores and of their pixels."""
        from visa.metrics import image_metrics, pixel_metrics

        image, pixel = image_metrics(scores, self.labels), pixel_metrics(maps, self.masks)
        return {"image_auroc": float(image["auroc"]), "pixel_auroc": float(pixel["auroc"])}


def batches(images, count=16):
    """Images in [0,1], a few at a time."""
    for part in images.split(count):
        yield part.float() / 255


def add_options(parser):
    """What scripts on detectors' features ask for."""
    parser.add_argument("--object", default="", help="of VISA_ROOT, else of mini-VisA; default: the first")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--weights", type=Path, help="default: random ones")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, help="of the training images, the first so many")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file to write")


def show(rows, columns=None):
    """Print rows as a table."""
    frame = pd.DataFrame(rows, columns=columns)
    print(frame.map(lambda v: f"{v:.4g}" if isinstance(v, float) else v).to_string(index=False), flush=True)


def write_record(file, options, **results):
    """Write results, the options without a machine's folders, and the machine, to a JSON file where one is named."""
    if file is None:
        return
    plain = {k: v.name if isinstance(v, Path) else v for k, v in vars(options).items() if k not in _UNSAID}
    record = {**results, "asked": plain, "load": os.getloadavg(), "machine": machine()}
    write_text(file, json.dumps(record, indent=1) + "\n")
