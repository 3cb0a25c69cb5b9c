"""Images/s of an ImageNet-style folder, the network taken out: the usual loader against ours.

    python benchmarks/input.py --images FOLDER --side 224 --workers 2

The usual loader is SimSiam's (Chen & He 2021, `main_simsiam.py`): Pillow decodes, torchvision's transforms make two
views of each image, all in the workers. Ours decodes in the workers and makes the views in batches on `--device`.
Goal: at least 2x, like for like. Decoded images against the usual loader's two views say what a training with views on
another device than the CPU gains. All take turns, `--repeats` times; the median counts. Without `--images`, 400 JPEG
files of 500 x 375 are drawn.
"""

import argparse
import random
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

NORMALIZE = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


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
            pixels = batch.images.to(options.device).float() / 255
            if views:
                for _ in range(2):
                    random_view(pixels, side, STRONG, draws)
            done += len(pixels)
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
    """Median images/s of each, taking turns."""
    seconds = {name: [] for name in made}
    for _ in range(repeats):
        for name, run in made.items():
            start = time.perf_counter()
            done = run(order)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append((time.perf_counter() - start) / done)
    return {name: 1 / statistics.median(s) for name, s in seconds.items()}


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
        for side in options.side:
            report(measure(loaders(root, shards, side, options), order, options.device, options.repeats), side)


def report(speeds, side):
    views = speeds["usual loader, two views"]
    for name, speed in speeds.items():
        base = views if "two views" in name else speeds["usual loader, decoded"]
        line = f"side {side:3d}  {name:32s} {speed:7.0f} images/s  {speed / base:5.2f}x"
        bound = "" if "two views" in name else f"  {speed / views:5.2f}x the usual loader's two views"
        print(line + bound, flush=True)


if __name__ == "__main__":
    main()
