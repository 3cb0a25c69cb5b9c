"""Compiled loops, where their machine code may be kept and where not."""

import numba
import numpy as np

from visa.metrics.compiled import compiled


def double(values):
    for i in range(values.size):
        values[i] *= 2


def test_without_a_place_for_compiled_code_it_is_compiled_anew(monkeypatch):
    njit = numba.njit

    def in_a_read_only_home(cache):
        def decorate(function):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return njit(function)

        return decorate

    monkeypatch.setattr(numba, "njit", in_a_read_only_home)
    doubled = np.arange(3)
    compiled(double)(doubled)
    assert doubled.tolist() == [0, 2, 4]
