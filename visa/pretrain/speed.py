"""How a device trains fastest, found by measuring: precision, memory format, threads and compilation."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from visa.backbone import cpu_computes_in_bf16
from visa.pretrain.input.loader import Batch
from visa.pretrain.methods import build
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.step import Speed, Step, default_speed

COMPILE_PAYS = 1200.0  # seconds of training ahead; compilation itself takes minutes
_MARGIN = 1.03  # a change must win by more than measurements scatter
_CPU_BATCH = 32  # images of a measured step on a CPU: rates hardly depend on more
_TIMED = 2


def fastest(
    settings: PretrainSettings,
    device: torch.device,
    classes: int = 2,
    images: float = float("inf"),
    precision: str | None = None,
) -> tuple[Speed, list[dict[str, Any]]]:
    """The fastest way found to run `settings` in one process on `device`, and a table of what was measured.

    Starts from `default_speed` and keeps each change that pays, one after another: on a CPU channels_last, one thread
    a physical core, and bfloat16 where the CPU computes in it; on CUDA the plain memory format; on both compilation,
    if training `images` images takes longer than COMPILE_PAYS. A given `precision` is kept.
    Table: a row for each trial, the fields of Speed, `images_per_second`, and `error` if it failed.
    """
    best, table = default_speed(device, precision), []
    best_rate = 0.0
    for change in ({}, *_changes(device, precision)):
        if change.get("compile") and best_rate and images / best_rate < COMPILE_PAYS:
            continue
        trial = replace(best, **change)
        rate, error = _try(settings, device, classes, trial)
        table.append({**asdict(trial), "images_per_second": rate, "error": error})
        if rate > best_rate * (_MARGIN if change else 1):
            best, best_rate = trial, rate
    return best, table


def _changes(device: torch.device, precision: str | None) -> list[dict[str, Any]]:
    compiled = {"compile": True}
    if device.type == "cuda":
        return [{"channels_last": False}, compiled]
    if device.type != "cpu":
        return [{"channels_last": True}]
    cores = _physical_cores()
    threads = [{"threads": cores}] if 0 < cores < _threads() else []
    bf16 = [{"precision": "bf16-mixed"}] if not precision and cpu_computes_in_bf16() else []
    return [{"channels_last": True}, *threads, *bf16, compiled]


def _try(settings: PretrainSettings, device: torch.device, classes: int, speed: Speed) -> tuple[float, str]:
    """Images a second, or 0 and what went wrong."""
    try:
        with speed.applied():
            return _measure(settings, device, classes, speed), ""
    except Exception as error:  # no compiler, too little memory, an operation that a precision lacks
        return 0.0, f"{type(error).__name__}: {error}".partition("\n")[0]
    finally:
        if speed.compile:
            torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measure(settings: PretrainSettings, device: torch.device, classes: int, speed: Speed) -> float:
    devices: Any = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=devices, plugins=[LightningEnvironment()])
    side, n = settings.image_size, settings.batch_size
    n = min(n, _CPU_BATCH) if device.type == "cpu" else n
    step = Step(build(settings, classes), settings, fabric, speed)
    pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, device=device)
    batch = Batch(pixels, torch.arange(n, device=device) % classes)
    seconds = []
    for i in range(1 + _TIMED):
        started = time.perf_counter()
        _, terms = step(batch, i, 0.0)
        float(terms["loss"])  # waits for the device
        seconds.append(time.perf_counter() - started)
    return n / min(seconds[1:])


def _threads() -> int:
    return torch.get_num_threads()


def _physical_cores() -> int:
    """Physical cores, or 0 where the system does not tell."""
    siblings = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    try:
        return len({file.read_text(encoding="utf-8") for file in siblings})
    except OSError:
        return 0
