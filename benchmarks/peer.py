"""What patchcore.py and padim.py share: anomalib in its own environment, features of an object, and a fair clock."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from visa.backbone import load_backbone
from visa.data.dataset import load_images, load_masks
from visa.data.source import open_source
from visa.metrics import image_metrics, pixel_metrics


class Anomalib:
    """A process of another Python that answers with anomalib's parts; `about` is None where it has no anomalib."""

    def __init__(self, python):
        script = Path(__file__).with_name("anomalib_parts.py")
        self.process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        line = self.process.stdout.readline()
        self.about = json.loads(line) if line else None
        if not self.about:
            print("anomalib is not to be had (--peer-python, a Python that has it): its rows are left out.")

    def __call__(self, part, **arguments):
        request = {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()}
        self.process.stdin.write(json.dumps({"part": part, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"anomalib failed at {part}.")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Data:
    """Training and test images of an object at one size, in [0, 1] in batches, with the truth, and a backbone."""

    def __init__(self, options):
        source = open_source()
        self.object = options.object or source.objects[0]
        self.size = (options.image_size, options.image_size)
        train, test = (source.samples("1cls", object=self.object, split=part) for part in ("train", "test"))
        self.train = load_images(source.root, train[: options.images], self.size)
        self.test = load_images(source.root, test, self.size)
        self.labels = np.array([s.label == "anomaly" for s in test])
        self.masks = load_masks(source.root, test, self.size)[0].numpy()
        self.backbone = load_backbone(options.arch, options.weights)
        self.about = {"data": source.name, "object": self.object, "images": len(self.train), "test": len(self.test)}

    def figures(self, scores, maps):
        """Image and pixel AU-ROC."""
        image, pixel = image_metrics(scores, self.labels), pixel_metrics(maps, self.masks)
        return {"image_auroc": float(image["auroc"]), "pixel_auroc": float(pixel["auroc"])}


def batches(images, count=16):
    for part in images.split(count):
        yield part.float() / 255


def add_options(parser):
    parser.add_argument("--object", default="", help="of VISA_ROOT, else of mini-VisA; default: the first")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--weights", type=Path, help="default: random ones")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, help="of the training images, the first so many")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has anomalib")
    parser.add_argument("--out", type=Path, help="a JSON file to write")


def asked(options):
    """The options, without a machine's folders."""
    return {
        k: v.name if isinstance(v, Path) else v for k, v in vars(options).items() if k not in ("out", "peer_python")
    }


def cpu_seconds(run):
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def turns(runs, repeats):
    """CPU seconds of each of `runs`, name to function returning seconds, which take turns after a first go."""
    taken = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(run())
    return taken


def ratio(taken, part, whole):
    """Median of the repeats' ratios."""
    return statistics.median(a / b for a, b in zip(taken[part], taken[whole], strict=True))


def one_thread():
    torch.set_num_threads(1)
