"""Kernels of a run's stages: what they leave open, where their last words are, which addresses they take."""

import contextvars
import gc
import os
from asyncio import BaseEventLoop
from pathlib import Path

import papermill  # noqa: F401  (visa.kernel extends it, and needs it imported first)
import pytest

from visa.data.source import open_source
from visa.kernel import UnixSocketKernelManager
from visa.plan import Matrix, plan
from visa.runner import StageLost, make_jobs, run_job
from visa.runs import Run

STUBS = Path(__file__).parent / "stubs"


@pytest.fixture
def job(tmp_path, mini_root, monkeypatch):
    """The first stage of a run with notebooks that do next to nothing."""
    monkeypatch.setenv("VISA_NOTEBOOKS", str(STUBS))
    source, run = open_source(str(mini_root)), Run(tmp_path / "runs/mini-visa")
    return make_jobs(plan(source, run, Matrix(["fryum"])), source, run)[0]


def open_loops():
    return {id(o) for o in gc.get_objects() if issubclass(type(o), BaseEventLoop) and not o.is_closed()}


def test_a_stage_leaves_no_event_loop_open(job):
    before = open_loops()
    contextvars.Context().run(run_job, job)  # as a Dask worker does
    assert open_loops() <= before


def test_a_kernel_that_does_not_start_tells_why_in_a_file_until_the_stage_ends_well(job, tmp_path, monkeypatch, capfd):
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('no kernel today')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(StageLost, match="data failed: its kernel did not start: ") as lost:
        run_job(job)
    stderr = Path(str(lost.value).rpartition("(what it said: ")[2].rstrip(")"))
    assert stderr.read_text() == "no kernel today\n" and "today" not in capfd.readouterr().err
    (tmp_path / "ipykernel_launcher.py").unlink()
    run_job(job)
    assert [f.name for f in stderr.parent.iterdir()] == ["data.ipynb"]


def test_kernels_that_start_at_the_same_moment_do_not_choose_the_same_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = []
    for manager in (UnixSocketKernelManager(), UnixSocketKernelManager()):
        manager.write_connection_file()
        chosen.append({f"{manager.ip}-{port}" for port in manager.ports})
        manager.cleanup_connection_file()
    assert not set.intersection(*chosen)
