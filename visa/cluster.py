"""Dask: local worker processes, or the workers of a scheduler elsewhere, as a pool for visa.schedule."""

import asyncio
import contextlib
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from typing import Any
from weakref import WeakSet

import psutil

from visa.errors import VisaError
from visa.paths import is_address, runs_root, visa_root
from visa.runner import Job, StageLost
from visa.runs import Run
from visa.schedule import RunJob

ON_GPU = ("03_pretrain", "04_score", "06_ablation")
WAIT = 60  # seconds for the scheduler to answer, and for a first worker
SILENCE = "60s"  # a local worker that says nothing for so long counts as dead: its stage goes to another
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class DaskPool:
    """All workers of a Dask client; each thread of a worker takes a job at a time.

    Where workers declare a resource `GPU`, a job of ON_GPU takes one, or as many as its pre-training has devices.
    """

    slots = float("inf")

    def __init__(self, client: Any) -> None:
        self._client, self._keys, self._running = client, list[str](), WeakSet[Any]()
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self._gpus = any("GPU" in worker["resources"] for worker in workers)
        local = {"VISA_RUNS": str(runs_root()), "VISA_ROOT": str(visa_root() or "")}
        given = {name: os.environ.get(name, "") for name in local}
        self._roots = {name: given[name] if is_address(given[name]) else local[name] for name in local}

    def submit(self, run: RunJob, job: Job) -> Any:
        """Send a job to the workers; raises VisaError if the scheduler is gone."""
        if self._client.status != "running":
            raise VisaError("the Dask scheduler is gone: start it again, and the same command goes on from here.")
        self._keys.append(f"{job.stage.name}-{uuid.uuid4().hex}")
        gpus = {"GPU": int(str(job.stage.parameters.get("devices", 1)))}
        wanted = gpus if self._gpus and job.stage.notebook in ON_GPU else {}
        options = {"key": self._keys[-1], "pure": False, "resources": wanted, "retries": 0}
        future = self._client.submit(on_worker, run, job, self._roots, **options)
        self._running.add(future)
        return future

    def stop(self) -> None:
        """End what still runs, so that the same stages can be started again at once."""
        thread = threading.Thread(target=self._stop, daemon=True)
        thread.start()
        thread.join(10)  # a worker that hangs does not answer

    def _stop(self) -> None:
        with contextlib.suppress(Exception):  # whatever is lost already
            self._client.cancel(list(self._running))  # before those that wait could take the place of the stopped
            self._client.run(stop_kernels, self._keys)


@contextlib.contextmanager
def dask_pool(workers: int = 0, scheduler: str = "") -> Iterator[DaskPool]:
    """A pool of `workers` local processes, or of the workers of the scheduler at an address.

    Raises VisaError where Dask is not installed, or the scheduler does not answer or has no worker.
    """
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise VisaError("visa run --workers and --scheduler need Dask: pip install 'visa-spd[cluster]'.") from None
    with _connected(scheduler) if scheduler else _local(workers) as client:
        pool = DaskPool(client)
        try:
            yield pool
        except BaseException:
            pool.stop()
            raise


def on_worker(run: RunJob, job: Job, roots: dict[str, str]) -> float:
    """Run a job in a worker, in the runs folder and on the data of who planned it."""
    os.environ.update(roots)
    here = Run(runs_root() / job.run.root.name)
    try:
        return run(replace(job, run=here, stage=job.stage.moved(job.run.root, here.root)))
    except KeyboardInterrupt:  # it would end the worker
        raise StageLost(f"{job.stage.name} was stopped.") from None


def stop_kernels(keys: list[str], dask_worker: Any) -> None:
    """Kill the notebooks that a worker runs for these tasks; if it runs others beside them, none."""
    running = {task.key for task in dask_worker.state.executing}
    if running and running <= set(keys):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any("ipykernel" in part for part in child.cmdline()):
                    child.kill()


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        asyncio.run(_answered(address))
        client = Client(address, timeout=WAIT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise VisaError(f"no Dask scheduler answers at {address!r}: start one with `dask scheduler`.") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise VisaError(f"the Dask scheduler at {address} has no worker: start some with `dask worker`.") from None
        yield client


async def _answered(address: str) -> None:
    """Wait until the scheduler answers: a client that is interrupted while it waits for that hangs for minutes."""
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, timeout=WAIT, **Security().get_connection_args("client"))
    await comm.close()


@contextlib.contextmanager
def _local(workers: int) -> Iterator[Any]:
    """Worker processes of one thread, that share the cores unless OMP_NUM_THREADS is set, and are restarted."""
    import dask
    from distributed import Client, LocalCluster

    cores = max(1, (os.cpu_count() or 1) // workers)
    settings: dict[str, object] = {f"distributed.nanny.pre-spawn-environ.{name}": cores for name in _THREADS}
    settings |= {"distributed.scheduler.worker-ttl": SILENCE}
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "silence_logs": "CRITICAL"}
    with dask.config.set(settings):
        try:
            with _sigint_waits():
                started = LocalCluster(n_workers=workers, **options)
        except RuntimeError as error:
            raise VisaError(f"{workers} local workers did not start ({error}): try fewer.") from error
    with started as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(_deaf_to_ctrl_c())
        yield client


def _deaf_to_ctrl_c() -> Any:
    """A plugin: Ctrl-C in a terminal reaches workers, too, but to stop them is for who started them."""
    from distributed import WorkerPlugin

    class Deaf(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            if os.name == "posix":
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # kernels inherit the mask

    return Deaf()


@contextlib.contextmanager
def _sigint_waits() -> Iterator[None]:
    """Hold Ctrl-C back here and in what starts meanwhile: a worker's interpreter would end in a traceback."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # the first process of multiprocessing starts it, and unblocks SIGINT then
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)
