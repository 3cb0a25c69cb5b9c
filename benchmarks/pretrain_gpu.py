"""What a GPU reaches in pre-training: images/s, their share of what forward and backward alone reach, and memory.

    python benchmarks/pretrain_gpu.py --out runs/benchmarks/pretrain_gpu.json

Some minutes on a CUDA GPU: ResNet-50, 224 px, bf16, each method with and without SPD, at the largest batch of 256, 128,
... that simsiam+spd fits in. The file is written after each part; what `--budget` leaves no time for is named there.
`ratio` is that of benchmarks/step.py.
"""

import argparse
import gc
import time
from pathlib import Path

import torch
from common import show, write_record
from step import Parts, measure, wait

from visa.pretrain import METHODS
from visa.pretrain.fabric import make_fabric

SHOWN = ("pretraining", "images_per_second", "ratio", "memory_gib")


class Bench:
    """The parts of the measurement, and what they found so far."""

    def __init__(self, options):
        self.options, self.fabric, self.started = options, make_fabric(options.device), time.monotonic()
        self.device, self.batch = self.fabric.device, options.batch
        self.facts, self.rows, self.left_out = {}, [], []
        self.facts["device"] = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def parts(self, name):
        shape = {"arch": self.options.arch, "image_size": self.options.image_size, "batch_size": self.batch}
        return Parts(name, self.fabric, shape)

    def fit(self):
        """Halve the batch until simsiam+spd, which has most to keep, fits."""
        while True:
            try:
                self.parts("simsiam+spd").whole()
                self.facts["batch"] = self.batch
                return wait(self.device)
            except torch.OutOfMemoryError:
                if self.batch < 4:
                    raise
                self.batch //= 2
            free()

    def step(self, name):
        """A row for a step on resident images."""
        parts, memory = self.parts(name), None
        parts.whole()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            parts.whole()
            memory = torch.cuda.max_memory_allocated(self.device) / 2**30
        row = {"pretraining": name, "batch": self.batch, **measure(parts, self.options.repeats)}
        self.rows.append(row | {"memory_gib": memory})

    def run(self, name, part, *given):
        """Run a part and write what is known; a part that fails or comes after the budget is named."""
        if time.monotonic() - self.started > self.options.budget:
            self.left_out.append(f"{name}: no time left")
            return
        print(f"{time.monotonic() - self.started:5.0f} s  {name}", flush=True)
        try:
            part(*given)
        except Exception as error:  # one part that fails must not cost the others
            self.left_out.append(f"{name}: {type(error).__name__}: {error}".partition("\n")[0])
        free()
        write_record(self.options.out, self.options, **self.facts, rows=self.rows, left_out=self.left_out)


def free():
    """Free what the last part held."""
    gc.collect()
    torch.cuda.empty_cache()  # without CUDA it does nothing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="halved until it fits")
    parser.add_argument("--methods", nargs="+", default=["simsiam", "mocov2", "simclr", "supervised"], choices=METHODS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--budget", type=float, default=420.0, help="seconds after which no part begins")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/pretrain_gpu.json"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: try the whole path, on a CPU for instance")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(arch="resnet18_half", image_size=32, batch=4, repeats=2)
    bench = Bench(options)
    bench.run("batch that fits", bench.fit)
    for name in (method + spd for method in options.methods for spd in ("+spd", "")):
        bench.run(name, bench.step, name)
    show(bench.rows, SHOWN)
    print(*(f"left out: {what}" for what in bench.left_out), sep="\n")


if __name__ == "__main__":
    main()
