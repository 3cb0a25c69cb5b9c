"""Images/s of an ImageNet-style folder, the network taken out: the usual loader against ours.

    python benchmarks/input.py --images FOLDER --side 224 --workers 2 --out runs/benchmarks/input.json

The usual loader is SimSiam's (Chen & He 2021, `main_simsiam.py`): Pillow decodes, torchvision's transforms make two
views of each image, all in the workers. Ours decodes in the workers and makes the views in batches on `--device`.
Goal: at least 2x, like for like. Decoded images against the usual loader's two views say what a training with views on
another device than the CPU gains. All end in normalised float32. All take turns, `--repeats` times; the median counts:
images/s, and images a CPU second of this process and its workers, which other work on the machine disturbs less.
Without `--images`, 400 JPEG files of 500 x 375 are drawn.
"""

import argparse
import json
import os
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from visa.pretrain.augment import STRONG, Draws, random_view
from visa.pretrain.input.files import FolderFiles
from visa.pretrain.input.images import ImageFolder
from visa.pretrain.input.loader import default_workers
from visa.pretrain.input.shards import ShardedImages, write_shards
from visa.provenance import machine, write_text

GOAL = 2
NORMALIZE = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], inplace=True)


class Blur:
    """SimSiam's GaussianBlur."""

    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class Usual(Dataset):
    """Pillow and torchvision's transforms, an image at a time; two views of each, or its centre square."""

    def __init__(self, files, side, views):
        self.files, self.views = files, views
        strong = [
            transforms.RandomResizedCrop(side, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([Blur()], p=0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            NORMALIZE,
        ]
        plain = [transforms.Resize(side), transforms.CenterCrop(side), transforms.ToTensor(), NORMALIZE]
        self.transform = transforms.Compose(strong if views else plain)

    def __getitem__(self, index):
        with open(self.files.name(index), "rb") as stream:  # noqa: PTH123
            image = Image.open(stream).convert("RGB")
        return [self.transform(image) for _ in range(2 if self.views else 1)]


def usual(files, side, views, options):
    def run(order):
        loader = DataLoader(Usual(files, side, views), batch_sampler=order, num_workers=options.workers)
        return sum(len(batch[0].to(options.device)) for batch in loader)

    return run


def ours(images, side, views, options):
    draws = Draws(torch.Generator(options.device).manual_seed(0))

    def run(order):
        done = 0
        for batch in images.batches(order):
            images_there = batch.images.to(options.device)
            if views:
                for _ in range(2):
                    NORMALIZE(random_view(images_there, side, STRONG, draws))
            else:
                NORMALIZE(images_there.float().div_(255))
            done += len(images_there)
        return done

    return run


def loaders(root, shards, side, options):
    """Name -> run, the usual ones first; images are a little larger than the views, as in training."""
    files, workers, made = FolderFiles(root), options.workers, {}
    larger = side * 9 // 8
    decoders = ["cpu"] if options.device.type == "cpu" else ["cpu", "device"]
    for views in (False, True):
        kind = "two views" if views else "decoded"
        made[f"usual loader, {kind}"] = usual(files, side, views, options)
        for decoder in decoders:
            folder = ImageFolder(root, larger, workers, decoder=decoder, device=options.device)
            made[f"ours, {kind} ({decoder})"] = ours(folder, side, views, options)
        made[f"ours from shards, {kind}"] = ours(ShardedImages(shards, larger, workers), side, views, options)
    return made


def measure(made, order, device, repeats):
    """Seconds and CPU seconds an image, each the median of its turns: name -> both."""
    taken = {name: [] for name in made}
    for _ in range(repeats):
        for name, run in made.items():
            start, cpu = time.perf_counter(), cpu_seconds()
            done = run(order)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken[name].append(((time.perf_counter() - start) / done, (cpu_seconds() - cpu) / done))
    return {name: [statistics.median(both) for both in zip(*pairs, strict=True)] for name, pairs in taken.items()}


def cpu_seconds():
    """Of this process and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def draw_images(root, count=400):
    """Coloured noise at several scales: files of about 70 KB, as photographs of this size are."""
    generator = np.random.default_rng(0)
    for i in range(count):
        layers = [
            np.asarray(
                Image.fromarray(generator.integers(0, 256, (375 // s, 500 // s, 3), dtype=np.uint8)).resize(
                    (500, 375), Image.Resampling.BICUBIC
                ),
                dtype=np.float32,
            )
            for s in (64, 16, 4, 1)
        ]
        mixed = sum(w * layer for w, layer in zip((0.5, 0.3, 0.14, 0.06), layers, strict=True))
        Image.fromarray(mixed.astype(np.uint8)).save(root / f"{i:04d}.jpg", quality=92)
    return root


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--side", type=int, nargs="+", default=[64, 224], help="pixels of a view's side")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000, help="images in each measurement")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of this process: the workers have the other cores")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.images or draw_images(Path(temporary))
        shards = Path(temporary) / "shards"
        write_shards(root, shards, workers=options.workers)
        found = len(ShardedImages(shards, 8))
        order = [
            [i % found for i in range(start, min(start + options.batch, options.count))]
            for start in range(0, options.count, options.batch)
        ]
        rows = []
        for side in options.side:
            made = loaders(root, shards, side, options)
            rows += summary(measure(made, order, options.device, options.repeats), side)
    if options.out:
        asked = {k: str(v) for k, v in vars(options).items() if k not in ("images", "out")}
        record = {"asked": asked, "goal": GOAL, "load": os.getloadavg(), "rows": rows, "machine": machine()}
        write_text(options.out, json.dumps(record, indent=1) + "\n")


def summary(taken, side):
    """Printed and returned: a row for each way, with its ratios to the usual loader that does as much."""
    rows = []
    for name, (wall, cpu) in taken.items():
        usual_wall, usual_cpu = taken[f"usual loader, {'two views' if 'two views' in name else 'decoded'}"]
        rows.append(
            {
                "side": side,
                "way": name,
                "images_per_second": 1 / wall,
                "ratio": usual_wall / wall,
                "images_per_cpu_second": 1 / cpu,
                "cpu_ratio": usual_cpu / cpu,
                "ratio_to_usual_views": taken["usual loader, two views"][0] / wall,
            }
        )
        print(
            f"side {side:3d}  {name:32s} {1 / wall:7.0f} images/s {usual_wall / wall:5.2f}x"
            f"  {1 / cpu:7.0f} images/CPU s {usual_cpu / cpu:5.2f}x"
            f"  {rows[-1]['ratio_to_usual_views']:5.2f}x the usual two views",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
