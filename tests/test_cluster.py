"""`visa run` on real worker processes that die, hang and run out of memory, with notebooks that do next to nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from visa import cluster
from visa.plan import Stage
from visa.provenance import write_text
from visa.runner import Job
from visa.runs import Run
from visa.schedule import execute

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow
STUBS = Path(__file__).parent / "stubs"
MATRIX = ["--objects", "pcb1,fryum", "--pretrainings", "random,simsiam", "--scope", "all"]  # 9 stages
PATIENCE = 300


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


def visa(environment, *options):
    return finish(start(environment, *options))


def order(folder, **mishaps):
    """Let a stage's notebook `die once`, `hang always` ... at its next starts."""
    (folder / "runs/mishaps").mkdir(parents=True, exist_ok=True)
    for name, text in mishaps.items():
        (folder / "runs/mishaps" / name.replace("_", "-")).write_text(text)


def results(folder):
    run = folder / "runs/mini-visa"
    files = [f for part in ("data", "pretrain", "scores", "results") for f in (run / part).rglob("*") if f.is_file()]
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def serial(tmp_path_factory, mini_root):
    """What an undisturbed run in one process leaves."""
    folder = tmp_path_factory.mktemp("serial")
    code, stdout, stderr = visa(environment(folder, mini_root))
    assert code == 0 and "10 of 10 stages ran" in stdout, stdout + stderr
    return results(folder)


def worker_processes(run):
    found = []
    for process in psutil.Process(run.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if any("spawn_main" in part for part in process.cmdline()):
                found.append(process)
    return found


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_workers_that_die_hang_or_lack_memory_cost_a_retry(tmp_path, mini_root, serial):
    # those that start together with the first are killed with it, and lack nothing else
    scores = {"score_fryum_random_all_seed0": "memory once", "score_pcb1_random_all_seed0": "hangs once"}
    order(tmp_path, pretrain_random_all_seed0="dies once", **scores)
    order(tmp_path, data="slow once", pretrain_simsiam_all_seed0="slow once")
    run = start(environment(tmp_path, mini_root), "--workers", "2", "--timeout", "0.2")
    mishaps = tmp_path / "runs/mishaps"
    until(lambda: not (mishaps / "data").exists(), "the first stage did not start")
    time.sleep(0.5)  # it sleeps for two seconds now, in one of the workers
    for process in worker_processes(run):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    code, stdout, stderr = finish(run)
    assert code == 0 and "10 of 10 stages ran" in stdout, stdout + stderr
    assert not list(mishaps.iterdir()) and results(tmp_path) == serial
    said = stdout + stderr
    for name, why in (
        ("pretrain-random-all-seed0", "kernel died"),
        ("score-fryum-random-all-seed0", "MemoryError"),
        ("score-pcb1", "longer than 12 s"),
    ):
        assert any(name in line and "is tried again" in line and why in line for line in said.splitlines()), (
            name,
            said,
        )
    code, stdout, stderr = visa(environment(tmp_path, mini_root))
    assert "0 of 10 stages ran" in stdout, "one process finds up to date what workers made"


@pytest.mark.parametrize("where", [[], ["--workers", "2"]])
def test_a_stage_that_fails_for_good_is_named_and_the_rest_is_complete(tmp_path, mini_root, serial, where):
    order(tmp_path, pretrain_simsiam_all_seed0="fails always", score_pcb1_random_all_seed0="dies always")
    code, stdout, stderr = visa(environment(tmp_path, mini_root), "--retries", "1", *where)
    assert code == 1 and "Traceback" not in stdout + stderr
    *_, head, first, second = stderr.strip().splitlines()
    assert "4 of 10 stages ran on mini-VisA, and 2 failed; 4 that read their results were left out:" in head
    told = sorted([first, second])
    assert "pretrain-simsiam-all-seed0 failed: ValueError: this one is wrong" in told[0] and "kernel died" in told[1]
    kept = results(tmp_path)
    assert kept and kept.items() <= serial.items() and "scores/fryum/random/all/seed0/metrics.csv" in kept
    order(tmp_path, pretrain_simsiam_all_seed0="goes well", score_pcb1_random_all_seed0="goes well")
    code, stdout, stderr = visa(environment(tmp_path, mini_root), *where)
    assert code == 0 and "6 of 10 stages ran" in stdout and results(tmp_path) == serial, stdout + stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_on_workers_leaves_nothing_running_and_goes_on(tmp_path, mini_root, serial, how):
    order(tmp_path, pretrain_random_all_seed0="hangs once")
    run = start(environment(tmp_path, mini_root), "--workers", "2")
    until(lambda: not (tmp_path / "runs/mishaps/pretrain-random-all-seed0").exists(), "the stage did not start")
    below = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, how)  # as a terminal does: workers get it, too
    code, stdout, stderr = finish(run)
    assert code == 130 and stderr.strip().splitlines()[-1] == "visa: interrupted; the same command goes on from here."
    assert "Traceback" not in stderr
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive
    code, stdout, stderr = visa(environment(tmp_path, mini_root), "--workers", "2")
    assert code == 0 and "stages ran" in stdout and results(tmp_path) == serial, stdout + stderr


def test_ctrl_c_while_workers_start_ends_in_one_sentence(tmp_path, mini_root):
    run = start(environment(tmp_path, mini_root), "--workers", "2")
    until(lambda: worker_processes(run), "no worker started")
    os.killpg(run.pid, signal.SIGINT)
    code, _, stderr = finish(run)
    assert code == 130 and stderr.strip().splitlines()[-1] == "visa: interrupted; the same command goes on from here."
    assert "Traceback" not in stderr


def test_a_worker_that_hangs_loses_its_stage_to_another(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SILENCE", "20s")
    first = tmp_path / "pid"

    def hangs_once(job):
        if not first.is_file():
            write_text(first, str(os.getpid()))
            time.sleep(600)
        return 0.0

    def stop():
        until(first.is_file, "the stage did not start")
        os.kill(int(first.read_text()), signal.SIGSTOP)

    job = Job(Stage("04_score", "s", {}, ()), Run(tmp_path), "key", "", "VisA", False)
    thread = threading.Thread(target=stop)
    thread.start()
    with cluster.dask_pool(2) as pool:
        assert execute([job], pool=pool, run=hangs_once).ran == 1
    thread.join()
    assert not psutil.pid_exists(int(first.read_text())), "it does not wake up later"


@contextmanager
def dask(environments):
    """A scheduler, and a worker in each environment; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address, command = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([*command, "--port", str(port), "--no-dashboard", "--host", "127.0.0.1"], **quiet)]
    for env in environments:
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        started.append(subprocess.Popen([*worker, "--memory-limit", "0"], env=env, **quiet))
    try:
        yield address
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE)


def test_an_interrupted_run_on_a_scheduler_stops_its_notebooks_there(tmp_path, mini_root, serial):
    env = environment(tmp_path, mini_root)
    order(tmp_path, pretrain_random_all_seed0="hangs once")
    with dask([{**os.environ, "VISA_NOTEBOOKS": str(STUBS)}] * 2) as address:
        run = start(env, "--scheduler", address)
        until(lambda: not (tmp_path / "runs/mishaps/pretrain-random-all-seed0").exists(), "the stage did not start")
        run.send_signal(signal.SIGINT)
        assert finish(run)[0] == 130
        code, stdout, stderr = visa(env, "--scheduler", address)
        assert code == 0 and results(tmp_path) == serial, stdout + stderr
    code, _, stderr = visa(env, "--scheduler", address)
    assert code == 2 and f"no Dask scheduler answers at '{address}'" in stderr


def test_a_run_can_be_interrupted_while_its_scheduler_is_silent(tmp_path, mini_root):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        run = start(environment(tmp_path, mini_root), "--scheduler", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        run.send_signal(signal.SIGINT)
        code, _, stderr = finish(run)
        connection.close()
    assert code == 130 and stderr.endswith("visa: interrupted; the same command goes on from here.\n"), stderr


def test_workers_without_a_common_folder_meet_on_object_storage(tmp_path, mini_root, serial, bucket):
    bucket.put(f"{mini_root}/", "bucket/VisA/", recursive=True)
    places = {"VISA_ROOT": "s3://bucket/VisA", "VISA_RUNS": "s3://bucket/runs"}
    machines = [{**os.environ, "VISA_NOTEBOOKS": str(STUBS), "VISA_DATA": f"{tmp_path}/{i}"} for i in (1, 2)]
    client, other = (environment(tmp_path / name, mini_root, **places) for name in ("client", "other"))
    with dask(machines) as address:
        code, stdout, stderr = visa(client, "--scheduler", address)
    assert code == 0 and "10 of 10 stages ran" in stdout, stdout + stderr
    below = "bucket/runs/mini-visa/"
    assert {name: bucket.cat(below + name) for name in serial} == serial
    assert "0 of 10 stages ran" in visa(other)[1], "a machine that has nothing yet finds all up to date"
    scores = "scores/fryum/random/all/seed0/1cls/scores.npz"
    bucket.pipe(below + scores, serial[scores][:-3])
    code, stdout, stderr = visa(other)
    assert "1 of 10 stages ran" in stdout, "half an upload is none: " + stdout + stderr
    assert bucket.cat(below + scores) == serial[scores]
