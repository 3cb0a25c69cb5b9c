"""The engine: order, what a failure costs, kernels that die, interruptions, and Dask workers that are killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from visa import execute as engine
from visa.data.source import open_source
from visa.errors import VisaError
from visa.execute import execute, on_dask, run_stage
from visa.pipeline import Job, Matrix, Stage, make_jobs, plan
from visa.runs import Run

STUBS = Path(__file__).parent / "stubs"
MATRIX = ["--objects", "fryum", "--pretrainings", "random,simsiam"]  # 7 stages
PATIENCE = 120
GOES_ON = "visa: interrupted; run the same command to resume."


def job(name, reads="", notebook="04_score", **parameters):
    return Job(Stage(notebook, name, parameters, (), tuple(reads)), Run(Path("run")), name, "VisA", False)


JOBS = [job(name, reads) for name, reads in {"a": "", "b": "", "c": "a", "d": "ab", "e": "c", "f": "de"}.items()]


def at_once(ran, **errors):
    """Stand for threads and workers: settle each job when it is submitted, with an error where one is given."""

    def submit(job):
        ran.append(job.stage.name)
        future = Future()
        error = errors.get(job.stage.name)
        future.set_exception(error) if error else future.set_result(1.0)
        return future

    return submit


@pytest.mark.parametrize(
    ("current", "errors", "ran", "left_out"),
    [
        ("", "", "abcdef", ""),
        ("ad", "", "bcef", ""),
        ("", "c", "abcd", "ef"),
        ("", "ab", "ab", "cdef"),
    ],
)
def test_each_stage_runs_after_what_it_reads_and_a_failure_costs_only_its_readers(current, errors, ran, left_out):
    order = []
    outcome = execute(JOBS, set(current), at_once(order, **{name: VisaError("wrong") for name in errors}))
    assert order == list(ran) and Counter(outcome.left_out) == Counter(left_out)
    assert outcome.failed == dict.fromkeys(errors, "wrong") and outcome.ran == len(ran) - len(errors)


def test_an_unforeseen_error_is_named_and_a_lost_scheduler_ends_the_run():
    assert execute(JOBS[:1], set(), at_once([], a=OSError("no\ndisk"))).failed == {"a": "a failed: OSError: no disk"}
    lost = Future()
    lost.cancel()
    with pytest.raises(VisaError, match="the Dask scheduler is gone"):
        execute(JOBS, set(), lambda job: lost)


@pytest.fixture
def first_job(tmp_path, mini_root, monkeypatch):
    """The first stage of a run with notebooks that do next to nothing."""
    monkeypatch.setenv("VISA_NOTEBOOKS", str(STUBS))
    source, run = open_source(str(mini_root)), Run(tmp_path / "runs/mini-visa")
    return make_jobs(plan(source, run, Matrix(["fryum"])), source, run)[0]


def test_a_worker_with_another_version_refuses(first_job):
    with pytest.raises(VisaError, match=r"data: the plan was made by visa 0\.1\.0, and this worker has"):
        run_stage(replace(first_job, version="0.1.0"), {})


@pytest.mark.slow
def test_a_kernel_that_does_not_start_tells_why_in_a_file(first_job, tmp_path, capfd):
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('no kernel today')")
    with pytest.raises(VisaError, match="data failed: its kernel died") as dead:
        run_stage(first_job, {"PYTHONPATH": str(tmp_path)})
    stderr = Path(str(dead.value).rpartition("(what it said: ")[2].rstrip(")"))
    assert "no kernel today" in stderr.read_text() and "today" not in capfd.readouterr().err


def environment(folder, mini_root, **more):
    roots = {"VISA_ROOT": str(mini_root), "VISA_RUNS": f"{folder}/runs", "VISA_DATA": f"{folder}/data"}
    return {**os.environ, **roots, "VISA_NOTEBOOKS": str(STUBS), "OMP_NUM_THREADS": "1", **more}


def start(environment, *options):
    command = [sys.executable, "-m", "visa_spd", "run", *MATRIX, *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process):
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return process.returncode, stdout, stderr


def order(folder, **mishaps):
    """Let a stage's notebook `die once`, `hang always` ... at its next starts."""
    (folder / "runs/mishaps").mkdir(parents=True, exist_ok=True)
    for name, text in mishaps.items():
        (folder / "runs/mishaps" / name.replace("_", "-")).write_text(text)


def results(folder):
    run = folder / "runs/mini-visa"
    files = [f for part in ("data", "pretrain", "scores", "results") for f in (run / part).rglob("*") if f.is_file()]
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def kernels_below(parent):
    """The processes of notebooks that a process or its children have started."""
    found = []
    for process in parent.children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if "ipykernel_launcher" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def serial(tmp_path_factory, mini_root):
    """What an undisturbed run in one process leaves."""
    folder = tmp_path_factory.mktemp("serial")
    code, stdout, stderr = finish(start(environment(folder, mini_root)))
    assert code == 0 and "7 of 7 stages ran" in stdout, stdout + stderr
    return results(folder)


@pytest.mark.slow
def test_a_failed_stage_is_named_and_the_rest_is_complete(tmp_path, mini_root, serial):
    order(tmp_path, pretrain_simsiam_fryum_seed0="fails always", prepare="dies always")
    code, stdout, stderr = finish(start(environment(tmp_path, mini_root), "--workers", "2"))
    assert code == 1 and "Traceback" not in stdout + stderr
    *_, head, first, second = stderr.strip().splitlines()
    assert "3 of 7 stages ran on mini-VisA, and 2 failed; 2 dependents were skipped:" in head
    told = sorted([first, second])
    assert "prepare failed: its kernel died" in told[0]
    assert "pretrain-simsiam-fryum-seed0 failed: ValueError: this one is wrong" in told[1]
    kept = results(tmp_path)
    assert kept.items() <= serial.items() and "scores/fryum/random/fryum/seed0/metrics.csv" in kept
    order(tmp_path, pretrain_simsiam_fryum_seed0="goes well", prepare="goes well")
    code, stdout, stderr = finish(start(environment(tmp_path, mini_root), "--workers", "2"))
    assert code == 0 and "4 of 7 stages ran" in stdout and results(tmp_path) == serial, stdout + stderr


@contextmanager
def dask(folder, mini_root, workers=2):
    """A scheduler with workers that are restarted, in processes of their own: its address, and theirs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment(folder, mini_root)}
    own = ["--port", str(port), "--no-dashboard", "--host", "127.0.0.1"]
    worker = [address, "--nworkers", str(workers), "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
    commands = (["distributed.cli.dask_scheduler", *own], ["distributed.cli.dask_worker", *worker])
    started = [subprocess.Popen([sys.executable, "-m", *command], **quiet) for command in commands]
    try:
        yield address, psutil.Process(started[1].pid)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "how"), [("threads", signal.SIGINT), ("dask", signal.SIGTERM)])
def test_an_interrupted_run_stops_its_kernels_and_goes_on(tmp_path, mini_root, serial, where, how):
    order(tmp_path, pretrain_random_fryum_seed0="hangs once")
    with dask(tmp_path, mini_root) if where == "dask" else nullcontext(("", None)) as (address, workers):
        options = {"threads": ["--workers", "2"], "dask": ["--scheduler", address]}[where]
        run = start(environment(tmp_path, mini_root), *options)
        until(lambda: not (tmp_path / "runs/mishaps/pretrain-random-fryum-seed0").exists(), "the stage did not start")
        parent = workers if where == "dask" else psutil.Process(run.pid)
        kernels = kernels_below(parent)
        asked = time.monotonic()
        os.killpg(run.pid, how)  # as a terminal does
        code, _, stderr = finish(run)
        assert code == 130 and stderr.strip().splitlines()[-1] == GOES_ON and "Traceback" not in stderr
        _, alive = psutil.wait_procs(kernels, timeout=5)
        assert kernels and not alive and time.monotonic() - asked < 15
        assert not list((tmp_path / "runs").rglob(".*partial*"))
    code, stdout, stderr = finish(start(environment(tmp_path, mini_root), "--workers", "2"))
    assert code == 0 and results(tmp_path) == serial, stdout + stderr


@pytest.mark.slow
def test_dask_workers_that_are_killed_cost_nothing_but_time(tmp_path, mini_root, serial):
    slow = ("data", "pretrain_random_fryum_seed0", "results")  # Dask gives a stage up at its fourth dead worker
    order(tmp_path, **dict.fromkeys(slow, "slow once"))
    with dask(tmp_path, mini_root, workers=3) as (address, nanny):
        run = start(environment(tmp_path, mini_root), "--scheduler", address)
        for mishap in (tmp_path / "runs/mishaps" / name.replace("_", "-") for name in slow):
            until(lambda mishap=mishap: not mishap.exists() or run.poll() is not None, mishap)
            time.sleep(0.3)  # the stage sleeps for two seconds, in one of the workers
            for kernel in kernels_below(nanny)[:1]:
                kernel.parent().kill()
        code, stdout, stderr = finish(run)
    assert code == 0 and "7 of 7 stages ran" in stdout and results(tmp_path) == serial, stdout + stderr


def test_without_dask_or_a_scheduler_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "WAIT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense:"):
        with pytest.raises(VisaError, match="no Dask scheduler answers at"), on_dask(tmp_path, address):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(VisaError, match=r"pip install 'visa-spd\[cluster\]'"), on_dask(tmp_path, "tcp://x:1"):
        pass


def test_a_run_can_be_interrupted_while_its_scheduler_is_silent(tmp_path, mini_root):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        run = start(environment(tmp_path, mini_root), "--scheduler", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        run.send_signal(signal.SIGINT)
        code, _, stderr = finish(run)
        connection.close()
    assert code == 130 and stderr.endswith(f"{GOES_ON}\n"), stderr
