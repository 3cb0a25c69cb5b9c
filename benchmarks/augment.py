"""All augmentation of a strong view: ours in batches, torchvision v2 a sample at a time, kornia in batches.

    pip install kornia   # optional
    python benchmarks/augment.py --batch 64 --threads 1 --device cpu

Images of 9/8 of the view's side; the three run in turn, medians over the repeats; ratios above 1 mean that ours is
faster. All blur with the same kernel, as wide as six of the largest standard deviations.
"""

import argparse
import math
import time
from statistics import median

import torch
from torchvision.transforms import v2

from visa.pretrain.augment import STRONG, Draws, random_view
from visa.pretrain.blend import BLEND, draw_patches, smooth_blend

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
    theirs = torchvision_view(side, kernel, sigma)
    run = {
        "ours": lambda: random_view(images, side, STRONG, draws),
        "torchvision": lambda: torch.stack([theirs(image) for image in images]),
    }
    if kornia is not None:
        batched = kornia_view(side, kernel, sigma)
        run["kornia"] = lambda: batched(images)
    views = images[:, :, :side, :side].contiguous()
    run["blend"] = lambda: smooth_blend(views, draw_patches(len(views), side, BLEND, draws))
    return run


def seconds(run, repeats, device):
    """Median seconds of each function, run in turn after one warm-up."""
    times = {name: [] for name in run}
    for repeat in range(repeats + 1):
        for name, function in run.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    draws = Draws(torch.Generator(args.device).manual_seed(0))
    if kornia is None:
        print("kornia is not installed, so only torchvision is compared")
    for side in (64, 96, 128, 224):
        images = torch.rand(args.batch, 3, side * 9 // 8, side * 9 // 8, device=args.device)
        took = seconds(rivals(images, side, draws), args.repeats, args.device)
        ms = {name: 1000 * s / args.batch for name, s in took.items()}
        ratios = "".join(f", {ms[peer] / ms['ours']:.1f}x {peer} ({ms[peer]:.2f})" for peer in ms if peer in PEERS)
        print(f"{side:3d} px: {ms['ours']:.3f} ms a view{ratios}; SmoothBlend {1000 * took['blend']:.1f} ms a batch")


PEERS = ("torchvision", "kornia")

if __name__ == "__main__":
    main()
