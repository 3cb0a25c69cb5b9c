"""Compiled loops, where their machine code may be kept and where not."""

import numba
import numpy as np
import pytest
from numba.core.caching import FunctionCache

from visa.metrics.compiled import compiled


def double(values):
    for i in range(values.size):
        values[i] *= 2


def test_machine_code_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    values = np.arange(3)
    compiled(double)(values)
    assert values.tolist() == [0, 2, 4] and list(tmp_path.rglob("*.nbc"))


@pytest.mark.parametrize("what", ["no folder can be written", "the disk is full"])
def test_a_loop_runs_where_its_machine_code_cannot_be_kept(what, tmp_path, monkeypatch):
    def refused(*_):
        raise RuntimeError("no locator available") if what == "no folder can be written" else OSError(28, "disk full")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    step = "__init__" if what == "no folder can be written" else "save_overload"
    monkeypatch.setattr(FunctionCache, step, refused)
    run, values = compiled(double), np.arange(3)
    for expected in ([0, 2, 4], [0, 4, 8]):
        run(values)
        assert values.tolist() == expected
