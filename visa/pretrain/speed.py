"""How a device trains fastest, found by measuring: precision, memory format, threads and compilation."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from visa.pretrain.loader import Batch
from visa.pretrain.methods import build
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.step import Speed, Step, default_speed

__all__ = ["Speed", "default_speed", "fastest"]

COMPILE_PAYS = 1200.0  # seconds of training ahead; compilation itself takes minutes
_MARGIN = 1.03  # a change must win by more than measurements scatter
_CPU_BATCH = 32  # images of a measured step on a CPU: rates hardly depend on more
_TIMED = 2


def fastest(
    settings: PretrainSettings, device: torch.device, classes: int = 2, images: float = float("inf")
) -> tuple[Speed, list[dict[str, Any]]]:
    """The fastest way found to run the steps of `settings` on `device`, and a table of what was measured.

    Starts from `default_speed` and keeps each change that pays, one after another: on a CPU channels_last, one thread
    a physical core, and bfloat16 where the CPU computes in it; on CUDA the plain memory format; on both compilation,
    if training `images` images takes longer than COMPILE_PAYS. In a group of processes each
    measures its part of a batch, and the first decides for all.
    Table: a row for each trial, the fields of Speed, `images_per_second` of all together, and `error` if it failed.
    """
    best, table = default_speed(device), []
    best_rate = 0.0
    for change in ({}, *_changes(device)):
        if change.get("compile") and best_rate and images / best_rate < COMPILE_PAYS:
            continue
        trial = replace(best, **change)
        rate, error = _agreed(_try(settings, device, classes, trial))
        table.append({**asdict(trial), "images_per_second": rate, "error": error})
        if rate > best_rate * (_MARGIN if change else 1):
            best, best_rate = trial, rate
    return best, table


def _changes(device: torch.device) -> list[dict[str, Any]]:
    compiled = {"compile": True}
    if device.type == "cuda":
        return [{"channels_last": False}, compiled]
    if device.type != "cpu":
        return [{"channels_last": True}]
    cores = _physical_cores()
    threads = [{"threads": cores}] if 0 < cores < _threads() else []
    bf16 = [{"precision": "bf16-mixed"}] if _computes_in_bf16() else []
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
    fabric = Fabric(accelerator=device.type, devices=devices)  # of this process alone
    parts, side = _processes(), settings.image_size
    n = settings.batch_size // parts
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
    return n * parts / min(seconds[1:])


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _agreed(found: tuple[float, str]) -> tuple[float, str]:
    """What the first process found: all must go through the same trials, whose collectives wait for each other."""
    if _processes() == 1:
        return found
    box = [found]
    dist.broadcast_object_list(box)
    return box[0]


def _threads() -> int:
    return torch.get_num_threads()


def _physical_cores() -> int:
    """Physical cores, or 0 where the system does not tell."""
    siblings = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    try:
        return len({file.read_text(encoding="utf-8") for file in siblings})
    except OSError:
        return 0


def _computes_in_bf16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX; without them bfloat16 is many times slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
