"""Lightning Fabric for one CPU, one GPU, several GPUs or several nodes, and rows of a batch spread over processes.

On several GPUs torch synchronises batch norm (`nn.SyncBatchNorm`), which has not been tested here on two GPUs. On
several CPU processes each process uses the batch statistics of its own images.
"""

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from visa.backbone import pick_device
from visa.errors import VisaError


def make_fabric(device: str = "auto", devices: int = 1, nodes: int = 1) -> Fabric:
    """Launch Fabric on `devices` processes, one per GPU, on each of `nodes` machines.

    A process that torchrun started, or srun as one of several tasks, joins the others, whose numbers replace `devices`
    and `nodes`. Any other process starts this machine's other processes itself, as copies of the running command.
    Raises VisaError for missing devices, and for several processes in a notebook, which cannot be copied.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    chosen = pick_device(device)
    started = _started()
    devices, nodes = started or (devices, nodes)
    there = torch.cuda.device_count() if chosen.type == "cuda" else 1 if chosen.type == "mps" else devices
    if devices > there:
        raise VisaError(f"{devices} devices of kind {chosen.type} are asked for, and this machine has {there}.")
    if (processes := devices * nodes) > 1 and chosen.index is not None:
        raise VisaError(f"device {str(chosen)!r} is a single one: give {chosen.type!r} for {processes} processes.")
    options: dict[str, Any] = {"devices": [chosen.index] if chosen.index is not None else devices}
    if processes > 1:
        options = {"devices": devices, "num_nodes": nodes, "strategy": _ddp(chosen)}
    if not started:
        options["plugins"] = [LightningEnvironment()]  # in a SLURM job without srun, the command starts them
        os.environ["LOCAL_WORLD_SIZE"] = str(devices)  # as torchrun sets it: they share this machine's cores
    try:
        fabric = Fabric(accelerator=chosen.type, **options)
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise VisaError(
            f"{devices} x {nodes} processes cannot be started here ({reason}): start them with torchrun."
        ) from error
    return fabric


def from_first(make: Callable[[], Any], fabric: Fabric) -> Any:
    """Return in all processes what `make` returns in the first one, which alone calls it; all raise its VisaError."""
    made, mistake = None, ""
    if fabric.is_global_zero:
        try:
            made = make()
        except VisaError as error:
            mistake = str(error)
    made, mistake = fabric.broadcast((made, mistake))
    if mistake:
        raise VisaError(mistake)
    return made


def own_rows(all_rows: Tensor) -> Tensor:
    """Return this process's equal part of the rows of all processes."""
    return all_rows.chunk(dist.get_world_size())[dist.get_rank()] if _in_a_group() else all_rows


def gathered(z: Tensor) -> Tensor:
    """Return the rows of all processes, in order, with the gradient flowing back to each; a single process gets z."""
    return torch.cat(all_gather(z)) if _in_a_group() else z  # type: ignore[no-untyped-call]


def all_strings(own: list[str], fabric: Fabric) -> list[str]:
    """Return the distinct strings of all processes, sorted."""
    parts = [own]
    if fabric.world_size > 1:
        parts = [[] for _ in range(fabric.world_size)]
        dist.all_gather_object(parts, own)
    return sorted({text for part in parts for text in part})


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _started() -> tuple[int, int] | None:
    """Return the processes per node and the nodes if torchrun or srun has started this process, else None."""
    env = os.environ
    if TorchElasticEnvironment.detect():
        local = int(env["LOCAL_WORLD_SIZE"])
        return local, int(env["WORLD_SIZE"]) // local
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", 1))  # of srun's step; SLURM_NTASKS is set for a plain command, too
    if tasks > 1 and "SLURM_PROCID" in env and SLURMEnvironment.detect():
        nodes = int(env.get("SLURM_STEP_NUM_NODES", 1))
        return tasks // nodes, nodes
    return None


def _ddp(device: torch.device) -> DDPStrategy:
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its successor is absent before torch 2.15
    return DDPStrategy(
        process_group_backend="nccl" if device.type == "cuda" else "gloo",
        broadcast_buffers=False,  # the first process's statistics are kept; MoCo's queue gets the same keys everywhere
        find_unused_parameters=False,
        gradient_as_bucket_view=True,
    )
