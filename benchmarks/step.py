"""A training step of each method, with and without SPD, against its network alone. Goal: at least 0.85 (GPU: 0.9).

    OMP_NUM_THREADS=1 python benchmarks/step.py --threads 1 --out book/results/benchmarks/step.json

The step starts from uint8 images that lie on the device: all views with SmoothBlend, forward, backward, optimizer.
`bare` is forward and backward alone, on views of random pixels that lie there ready; `ratio` is the step's images/s in
those of `bare`. All parts take turns, `--repeats` times; times are medians, ratios medians of the repeats' ratios; one
thread's are CPU seconds.
"""

import argparse
import statistics
import time
from functools import cached_property
from pathlib import Path

import torch
from common import ratio, show, write_record

from visa.pretrain import METHODS
from visa.pretrain.augment import Views
from visa.pretrain.fabric import make_fabric
from visa.pretrain.images import Batch
from visa.pretrain.settings import build, published
from visa.pretrain.spd import SpdSettings
from visa.pretrain.train import Step

CLASSES = 1000
SHOWN = ("pretraining", "images_per_second", "ratio", "step_ms", "views_ms", "bare_ms", "optimizer_ms")


class Parts:
    """A step on resident random images, whose parts can be run one by one."""

    def __init__(self, name, fabric, shape):
        method, _, spd = name.partition("+")
        self.settings = published(method, spd=SpdSettings() if spd else None, **shape)
        self.step = Step(build(self.settings, CLASSES), self.settings, fabric, None)
        n, side, device = self.settings.batch_size, self.settings.image_size * 9 // 8, fabric.device  # as in training
        pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, device=device)
        self.batch = Batch(pixels, torch.arange(n, device=device) % CLASSES)

    @cached_property
    def ready(self):
        """Random pixels in the place of each view."""
        drawn = self.step.draw(self.batch, 0)
        second = None if drawn.second is None else torch.rand_like(drawn.second)
        spd = drawn.spd and tuple(torch.rand_like(view) for view in drawn.spd)
        return Views(torch.rand_like(drawn.first), second, drawn.labels, spd, drawn.shuffle)

    def whole(self):
        self.step(self.batch, 0, 0.0)

    def views(self):
        self.step.draw(self.batch, 0)

    def bare(self):
        """Forward and backward."""
        bf16 = self.step.precision == "bf16-mixed"
        with torch.autocast(self.batch.images.device.type, torch.bfloat16, enabled=bf16):
            loss = self.step.model(self.ready)["loss"]
        self.step.optimizer.zero_grad(set_to_none=True)
        self.step.fabric.backward(loss)

    def optimizer(self):
        self.step.optimizer.step()


def seconds(run, device, calls=1):
    """Seconds a call; a GPU is waited for before and after all of them. CPU seconds where one thread does it all."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait(device)
    start = clock()
    for _ in range(calls):
        run()
    wait(device)
    return (clock() - start) / calls


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(parts, repeats):
    """Rates, ratios and milliseconds of a step's parts."""
    device = parts.batch.images.device
    runs = {name: getattr(parts, name) for name in ("whole", "views", "bare", "optimizer")}
    for run in runs.values():
        run()
    calls = 1 + int(0.3 / seconds(parts.whole, device)) if device.type == "cuda" else 1
    taken = {name: [] for name in runs}
    for name in list(runs) * repeats:
        taken[name].append(seconds(runs[name], device, calls))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "images_per_second": parts.settings.batch_size / middle["whole"],
        "ratio": ratio(taken, "bare", "whole"),
        "step_ms": 1e3 * middle["whole"],
        **{f"{name}_ms": 1e3 * middle[name] for name in ("views", "bare", "optimizer")},  # the views' has SmoothBlend
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 leaves them")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    fabric, rows = make_fabric(options.device), []
    shape = {"arch": options.arch, "image_size": options.image_size, "batch_size": options.batch}
    names = (method + spd for method in options.methods for spd in ("", "+spd"))
    for name in (name for name in names if name != "auxiliary"):  # which is the SPD term alone
        rows.append({"pretraining": name, **measure(Parts(name, fabric, shape), options.repeats)})
    show(rows, SHOWN)
    write_record(options.out, options, rows=rows)


if __name__ == "__main__":
    main()
