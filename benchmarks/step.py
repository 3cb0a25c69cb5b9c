"""A training step of each method, with and without SPD, against its network alone. Goal: at least 0.85 (GPU: 0.9).

    OMP_NUM_THREADS=2 python benchmarks/step.py --threads 2 --out runs/benchmarks/step.json

`step` starts from uint8 images that lie on the device: all views with SmoothBlend, forward, backward, optimizer.
`bare` is forward and backward alone, on views of random pixels that lie there ready; `ratio`, which the goal is for, is
the step's images/s in those of `bare`. `ratio_with_optimizer` has the optimizer in both. All parts take turns,
`--repeats` times; times are medians, ratios medians of the repeats' ratios; one thread's are CPU seconds.
The device runs them as `visa.pretrain.speed.fastest` finds best.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric

from visa.pretrain.augment import Draws
from visa.pretrain.blend import draw_patches, smooth_blend
from visa.pretrain.fabric import make_fabric
from visa.pretrain.feed import seeded
from visa.pretrain.input.loader import Batch
from visa.pretrain.methods import build
from visa.pretrain.settings import METHODS, PretrainSettings, published
from visa.pretrain.spd import SpdSettings
from visa.pretrain.speed import fastest
from visa.pretrain.step import Speed, Step
from visa.pretrain.views import Views
from visa.provenance import machine, write_text

CLASSES = 1000
GOAL = {"cpu": 0.85, "cuda": 0.9}  # least `ratio`
SHOWN = (
    *("pretraining", "images_per_second", "bare_images_per_second", "ratio", "ratio_with_optimizer", "step_ms"),
    *("views_ms", "blend_percent", "bare_ms", "optimizer_ms", "rest_ms"),
)


class Parts(Step):
    """A step on resident random images, whose parts can be run one by one."""

    def __init__(self, settings: PretrainSettings, fabric: Fabric, speed: Speed) -> None:
        super().__init__(build(settings, CLASSES), settings, fabric, speed)
        n, side, device = settings.batch_size, settings.image_size * 9 // 8, fabric.device  # as in training
        pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, device=device)
        self.batch = Batch(pixels, torch.arange(n, device=device) % CLASSES)
        self.on_ready_views = False

    @cached_property
    def ready(self) -> Views:
        """Random pixels in the place of each view."""
        drawn = super().draw(self.batch, 0)
        second = None if drawn.second is None else torch.rand_like(drawn.second)
        spd: Any = drawn.spd and tuple(torch.rand_like(view) for view in drawn.spd)
        return Views(torch.rand_like(drawn.first), second, drawn.labels, spd, drawn.shuffle)

    def draw(self, batch: Batch, step: int) -> Views:
        return self.ready if self.on_ready_views else super().draw(batch, step)

    def whole(self) -> None:
        self(self.batch, 0, 0.0)

    def ready_step(self) -> None:
        self.on_ready_views = True
        self(self.batch, 0, 0.0)
        self.on_ready_views = False

    def views(self) -> None:
        super().draw(self.batch, 0)

    @torch.no_grad()
    def blend(self) -> None:
        if self.settings.spd and self.ready.spd:
            images, params = self.ready.spd[2], self.settings.spd.blend
            draws = Draws(seeded(0, "blend", 0, images.device))
            smooth_blend(images, draw_patches(len(images), images.shape[-1], params, draws), params.onto)

    def bare(self) -> None:
        """Forward and backward."""
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=self.speed.precision == "bf16-mixed"):
            loss = self.model(self.ready)["loss"]
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)

    def optim(self) -> None:
        self.optimizer.step()


def seconds(run: Callable[[], None], device: torch.device, calls: int = 1) -> float:
    """Seconds a call; the device is waited for before and after all of them, not in between.

    CPU seconds where one thread of a CPU does it all: other work on the machine disturbs them less.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait(device)
    start = clock()
    for _ in range(calls):
        run()
    wait(device)
    return (clock() - start) / calls


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(parts: Parts, repeats: int, limit: float = float("inf")) -> dict[str, Any]:
    """Rates, ratios and milliseconds of a step's parts; after `limit` seconds no further repeat begins."""
    device = parts.fabric.device
    runs = {name: getattr(parts, name) for name in ("whole", "ready_step", "views", "blend", "bare", "optim")}
    for run in runs.values():
        run()
    calls = 1 + int(0.3 / seconds(parts.whole, device)) if device.type == "cuda" else 1
    taken: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while not taken["whole"] or (len(taken["whole"]) < repeats and time.perf_counter() - start < limit):
        for name, run in runs.items():
            taken[name].append(seconds(run, device, calls))
    return summary(taken, parts.settings.batch_size)


def summary(taken: dict[str, list[float]], batch: int) -> dict[str, Any]:
    whole, _, views, blend, bare, optim = (statistics.median(s) for s in taken.values())

    def of_whole(part: str) -> float:
        return statistics.median(p / w for p, w in zip(taken[part], taken["whole"], strict=True))

    return {
        "images_per_second": batch / whole,
        "bare_images_per_second": batch / bare,
        "ratio": of_whole("bare"),
        "ratio_with_optimizer": of_whole("ready_step"),
        "step_ms": 1e3 * whole,
        "views_ms": 1e3 * views,  # SmoothBlend among them
        "blend_ms": 1e3 * blend,
        "blend_percent": 100 * blend / whole,
        "bare_ms": 1e3 * bare,
        "optimizer_ms": 1e3 * optim,
        "rest_ms": 1e3 * (whole - views - bare - optim),
        "repeats": len(taken["whole"]),
    }


def table(rows: list[dict[str, Any]], shown: Sequence[str]) -> str:
    frame = pd.DataFrame(rows).reindex(columns=shown).astype(object)
    frame.columns = [name.replace("images_per_second", "images/s").replace("_", " ") for name in shown]
    return frame.map(_cell).to_string(index=False)


def _cell(value: Any) -> str:
    number = isinstance(value, float)
    return "" if value is None or value != value else f"{value:.{3 if value < 10 else 1}f}" if number else str(value)


def print_trials(trials: list[dict[str, Any]], chosen: Speed) -> None:
    print("What runs fastest here (visa.pretrain.speed.fastest):")
    for t in trials:
        result = t["error"] or f"{t['images_per_second']:8.1f} images/s"
        memory = "channels_last" if t["channels_last"] else "plain"
        compiled = "compiled" if t["compile"] else "eager"
        print(f"  {t['precision']:11s} {memory:14s} {compiled:9s} threads {t['threads'] or 'as set':8}{result}")
    print(f"  taken: {chosen}\n", flush=True)


def judged(ratio: float, device: torch.device) -> str:
    goal = GOAL.get(device.type, GOAL["cpu"])
    return f"{ratio:.3f} of forward and backward alone, {'at least' if ratio >= goal else 'below'} {goal}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 leaves them")
    parser.add_argument("--compile", action="store_true", help="let `fastest` try compilation too (minutes)")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    fabric = make_fabric(options.device)
    shape = {"arch": options.arch, "image_size": options.image_size, "batch_size": options.batch}
    with_spd = published(options.methods[0], spd=SpdSettings(), **shape)
    speed, trials = fastest(with_spd, fabric.device, CLASSES, images=float("inf") if options.compile else 0)
    speed = replace(speed, threads=options.threads or speed.threads)
    print_trials(trials, speed)
    rows = []
    with speed.applied():
        for method in options.methods:
            for spd in (None, SpdSettings()):
                parts = Parts(published(method, spd=spd, **shape), fabric, speed)
                name = f"{method}+spd" if spd else method
                rows.append({"pretraining": name, **measure(parts, options.repeats)})
                print(f"{name}: {judged(rows[-1]['ratio'], fabric.device)}", flush=True)
    print("\n" + table(rows, SHOWN))
    if options.out:
        asked = {name: value for name, value in vars(options).items() if name != "out"}
        record = {
            "asked": asked,
            "speed": asdict(speed),
            "trials": trials,
            "load": os.getloadavg(),
            "rows": rows,
            "machine": machine(),
        }
        write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
