"""Loops over scores and counts as machine code: NumPy would need a pass over all of them for each step of a loop."""

from collections.abc import Callable

import numba

Loop = Callable[..., None]


def compiled(loop: Loop) -> Loop:
    """The function, compiled when first called, and kept: beside its file, in the user's cache, or in memory alone."""
    try:
        return numba.njit(cache=True)(loop)
    except RuntimeError:  # neither place can be written
        return numba.njit(cache=False)(loop)
