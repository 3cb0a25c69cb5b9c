"""Loops over scores and counts as machine code: NumPy would need a pass over all of them for each step of a loop."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """The loop, compiled when it first meets arrays of a kind.

    The machine code is kept for other processes: in NUMBA_CACHE_DIR, beside the loop's file or in the user's cache.
    Where none of them can be written, each process compiles its own.
    """
    in_memory = numba.njit(cache=False)(loop)
    try:
        kept = numba.njit(cache=True)(loop)
    except RuntimeError:  # there is no such folder
        return in_memory

    def run(*arguments: Any) -> None:
        try:
            kept(*arguments)
        except OSError:  # the disk is full: nothing was run yet
            in_memory(*arguments)

    return run
