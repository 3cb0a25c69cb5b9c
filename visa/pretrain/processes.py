"""Rows of a batch that is spread over processes."""

import torch
import torch.distributed as dist
from torch import Tensor

from visa.pretrain.batch_norm import sum_over_processes


def own_rows(all_rows: Tensor) -> Tensor:
    """This process's equal part of the rows of all."""
    if not _in_a_group():
        return all_rows
    return all_rows.chunk(dist.get_world_size())[dist.get_rank()]


def gathered(z: Tensor) -> Tensor:
    """Rows of all processes, in their order, with the gradient flowing back to each; z itself where there is one."""
    if not _in_a_group():
        return z
    parts = [z if rank == dist.get_rank() else torch.zeros_like(z) for rank in range(dist.get_world_size())]
    return sum_over_processes(torch.cat(parts))


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
