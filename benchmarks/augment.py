"""All augmentation of a strong view: ours in batches, torchvision v2 a sample at a time, kornia in batches.

    pip install kornia   # optional
    python benchmarks/augment.py --batch 64 --threads 1 --device cpu --out runs/benchmarks/augment.json

Images of 9/8 of the view's side: bytes for ours, float32 that lies ready for the others (torchvision is faster on it).
All make float32 and blur with the same kernel, as wide as six of the largest standard deviations. They run in turn,
medians over the repeats; ratios above 1 mean that ours is faster. On a CPU the clock is this process's CPU time, which
other work on the machine disturbs less. Goals: at least 3x torchvision, not slower than kornia.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from statistics import median

import torch
from torchvision.transforms import v2

from visa.pretrain.augment import STRONG, Draws, random_view
from visa.pretrain.blend import BLEND, draw_patches, smooth_blend
from visa.provenance import machine, write_text

try:
    import kornia.augmentation as kornia
except ImportError:
    kornia = None


def torchvision_view(side, kernel, sigma):
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, STRONG.scale, STRONG.ratio, antialias=True),
            v2.RandomHorizontalFlip(STRONG.flip_p),
            v2.RandomApply([v2.ColorJitter(*STRONG.jitter)], STRONG.jitter_p),
            v2.RandomGrayscale(STRONG.grey_p),
            v2.RandomApply([v2.GaussianBlur(kernel, sigma)], STRONG.blur_p),
        ]
    )


def kornia_view(side, kernel, sigma):
    return kornia.AugmentationSequential(
        kornia.RandomResizedCrop((side, side), STRONG.scale, STRONG.ratio),
        kornia.RandomHorizontalFlip(p=STRONG.flip_p),
        kornia.ColorJitter(*STRONG.jitter, p=STRONG.jitter_p),
        kornia.RandomGrayscale(p=STRONG.grey_p),
        kornia.RandomGaussianBlur((kernel, kernel), sigma, p=STRONG.blur_p),
    )


def rivals(images, side, draws):
    """Name to a function that augments the batch."""
    sigma = tuple(bound * side / 224 for bound in STRONG.blur_sigma)
    kernel = 2 * math.ceil(3 * sigma[1]) + 1
    theirs, floats = torchvision_view(side, kernel, sigma), images.float() / 255
    run = {
        "ours": lambda: random_view(images, side, STRONG, draws),
        "torchvision": lambda: torch.stack([theirs(image) for image in floats]),
    }
    if kornia is not None:
        batched = kornia_view(side, kernel, sigma)
        run["kornia"] = lambda: batched(floats)
    views = floats[:, :, :side, :side].contiguous()
    run["blend"] = lambda: smooth_blend(views, draw_patches(len(views), side, BLEND, draws))
    return run


def seconds(run, repeats, device):
    """Median seconds of each function, run in turn after one warm-up."""
    times = {name: [] for name in run}
    for repeat in range(repeats + 1):
        for name, function in run.items():
            clock = time.process_time if device.type == "cpu" else time.perf_counter
            start = clock()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                times[name].append(clock() - start)
    return {name: median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    draws = Draws(torch.Generator(args.device).manual_seed(0))
    if kornia is None:
        print("kornia is not installed, so only torchvision is compared")
    rows = []
    for side in (64, 96, 128, 224):
        images = pictures(args.batch, side * 9 // 8).to(args.device)
        took = seconds(rivals(images, side, draws), args.repeats, args.device)
        ms = {name: 1000 * s / args.batch for name, s in took.items()}
        ratios = "".join(f", {ms[peer] / ms['ours']:.1f}x {peer} ({ms[peer]:.2f})" for peer in ms if peer in PEERS)
        print(f"{side:3d} px: {ms['ours']:.3f} ms a view{ratios}; SmoothBlend {ms['blend']:.3f} ms", flush=True)
        faster = {f"times_{peer}": ms[peer] / ms["ours"] for peer in PEERS if peer in ms}
        rows.append({"side": side, **{f"{name}_ms": value for name, value in ms.items()}, **faster})
    if args.out:
        asked = {k: str(v) for k, v in vars(args).items() if k != "out"}
        record = {"asked": asked, "load": os.getloadavg(), "rows": rows, "machine": machine()}
        write_text(args.out, json.dumps(record, indent=1) + "\n")


def pictures(n, side):
    """Smooth colours with a little noise: uint8 n,3,side,side."""
    coarse = torch.nn.functional.interpolate(torch.rand(n, 3, 8, 8), side, mode="bicubic")
    return ((coarse + 0.02 * torch.randn(n, 3, side, side)).clamp(0, 1) * 255).byte()


PEERS = ("torchvision", "kornia")

if __name__ == "__main__":
    main()
