"""What a GPU reaches in pre-training: images/s, their share of its network's rate, memory, and reading files.

    python benchmarks/pretrain_gpu.py --out runs/benchmarks/pretrain_gpu.json

Some minutes on a CUDA GPU: ResNet-50, 224 px, bf16, each method with and without SPD, at the largest batch of 256, 128,
... that simsiam+spd fits in. The file is written after each part; what `--budget` leaves no time for is named there.
On a CPU: `--device cpu --smoke`.

- of network: of the images/s that the backbone alone reaches on as many resident views, forward and backward (MoCo's
  key views: forward), in batches of one or three, whichever is faster; without heads, augmentation and optimizer.
- ratio: of the images/s of the same forward and backward alone, on resident random views (benchmarks/step.py).
- files: rows with `input` read a folder of JPEG files (`--images`, or 500 x 375 pixels of noise) with `--workers`.
"""

import argparse
import gc
import statistics
import tempfile
import time
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from common import show, write_record
from step import CLASSES, Parts, measure, seconds, wait

from visa.backbone import create_backbone
from visa.pretrain import METHODS
from visa.pretrain.fabric import make_fabric
from visa.pretrain.images import FolderImages, find_files

VIEWS = {"simsiam": (2, 0), "mocov2": (1, 1), "simclr": (2, 0), "supervised": (1, 0)}  # learned from, looked at
SPD_VIEWS = {"simsiam": 3, "mocov2": 3, "simclr": 3, "supervised": 2}
SHOWN = ("pretraining", "input", "images_per_second", "ratio", "of_network", "memory_gib")


class Bench:
    """The parts of the measurement, and what they found so far."""

    def __init__(self, options):
        self.options, self.fabric, self.started = options, make_fabric(options.device), time.monotonic()
        self.device, self.batch = self.fabric.device, options.batch
        self.facts, self.rows, self.left_out = {"network": {}}, [], []
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

    def network(self, times):
        """Views/s of the backbone alone, of `times` batches at once: learning, and looking without gradient."""
        side, n = self.options.image_size, times * self.batch
        net = create_backbone(self.options.arch).train().to(self.device, memory_format=torch.channels_last)
        x = torch.rand(n, 3, side, side, device=self.device).to(memory_format=torch.channels_last)

        def look():
            with torch.autocast(self.device.type, torch.bfloat16):
                return net(x).float().square().mean()

        def learn():
            net.zero_grad(set_to_none=True)
            look().backward()

        for kind, run in (("learn", learn), ("look", torch.no_grad()(look))):
            taken = [seconds(run, self.device, 3) for _ in range(2 + self.options.repeats)]
            found = self.facts["network"]
            found[kind] = max(found.get(kind, 0.0), n / statistics.median(taken[2:]))

    def step(self, name):
        """A row for a step on resident images."""
        parts, memory = self.parts(name), None
        parts.whole()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            parts.whole()
            memory = torch.cuda.max_memory_allocated(self.device) / 2**30
        self.add(name, "resident", memory_gib=memory, **measure(parts, self.options.repeats))

    def from_files(self, name, root):
        """A row for images that come from files; without a name, for reading them alone."""
        parts = self.parts(name) if name else None
        images = FolderImages(find_files(root), self.options.image_size * 9 // 8, self.options.workers)
        order = ([(k * self.batch + i) % len(images) for i in range(self.batch)] for k in count())
        start, done = time.perf_counter(), 0
        for batch in images.batches(order):
            if parts:
                parts.step(batch._replace(labels=batch.labels % CLASSES), 0, 0.0)
            else:
                batch.images.to(self.device)
            done += self.batch
            if time.perf_counter() - start > (0.5 if self.options.smoke else 8):
                break
        wait(self.device)
        self.add(name or "(none)", "files", images_per_second=done / (time.perf_counter() - start))

    def add(self, name, source, **found):
        """A row, with its share of what the network alone reaches."""
        row = {"pretraining": name, "input": source, "batch": self.batch, **found}
        method, _, spd = name.partition("+")
        if method in METHODS:
            rate, network = row["images_per_second"], self.facts["network"]
            learned, looked = VIEWS[method][0] + (SPD_VIEWS[method] if spd else 0), VIEWS[method][1]
            row["of_network"] = rate * (learned / network["learn"] + looked / network["look"])
        self.rows.append(row)

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


def noise(folder, number):
    """A folder of so many JPEG files of noise, in two classes."""
    rng = np.random.default_rng(0)
    for i in range(number):
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        coarse = rng.integers(0, 256, (47, 63, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"class{i % 2}" / f"{i}.jpg"), cv2.resize(coarse, (500, 375)))
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="halved until it fits")
    parser.add_argument("--methods", nargs="+", default=[*VIEWS], choices=METHODS)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files; made up if not given")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--budget", type=float, default=420.0, help="seconds after which no part begins")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/pretrain_gpu.json"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: try the whole path, on a CPU for instance")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(arch="resnet18_half", image_size=32, batch=4, repeats=2, workers=2)
    bench = Bench(options)
    names = [method + spd for method in options.methods for spd in ("+spd", "")]
    bench.run("batch that fits", bench.fit)
    for times in (1, 3):
        bench.run(f"network alone, {times} x batch", bench.network, times)
    for name in names:
        bench.run(name, bench.step, name)
    with tempfile.TemporaryDirectory() as folder:
        root = options.images or noise(Path(folder), 16 if options.smoke else 2048)
        for name in ("", names[0], names[-1]):  # the steps that see most and fewest views
            bench.run(f"{name} from files", bench.from_files, name, root)
    show(bench.rows, SHOWN)
    print(*(f"left out: {what}" for what in bench.left_out), sep="\n")


if __name__ == "__main__":
    main()
