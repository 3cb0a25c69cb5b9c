"""Run the stages of a plan through papermill: in threads of this process, or on the workers of a Dask scheduler."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

import visa
from visa.errors import VisaError
from visa.paths import is_address, notebooks_root, runs_root, visa_root, written_whole
from visa.pipeline import Job
from visa.provenance import machine, write_text

Submit = Callable[[Job], "Future[float]"]

ON_GPU = ("03_pretrain", "04_score")
WAIT = 60  # seconds for a Dask scheduler to answer, and for its first worker
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_kernels: dict[Path, int] = {}  # executed copies that this process is making, and their kernels' process ids


@dataclass
class Outcome:
    """How many stages `ran`, which `failed` and why, and which were `left_out` because they depend on those."""

    ran: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def execute(
    jobs: Sequence[Job], current: Collection[str], submit: Submit, say: Callable[[str], None] = tqdm.write
) -> Outcome:
    """Run the jobs whose stages are not among the `current` ones, in dependency order.

    Stages that are ready are submitted in the plan's order. If a stage fails, its dependents are skipped and the rest
    run; `say` reports each stage. Raises VisaError if the connection to the workers is lost.
    """
    for job in jobs:
        if job.stage.page and job.stage.name in current:
            show_in_book(job)
    to_run = {job.stage.name: job for job in jobs if job.stage.name not in current}
    order = TopologicalSorter({name: [r for r in job.stage.reads if r in to_run] for name, job in to_run.items()})
    order.prepare()
    outcome = Outcome()
    finished: SimpleQueue[Future[float]] = SimpleQueue()
    running: dict[Future[float], Job] = {}
    with tqdm(total=len(jobs), initial=len(jobs) - len(to_run), unit="stage", desc="stages", mininterval=1) as bar:
        while order.is_active():
            for name in order.get_ready():
                job = to_run[name]
                if any(read in outcome.failed or read in outcome.left_out for read in job.stage.reads):
                    outcome.left_out.append(name)
                    order.done(name)
                    bar.update()
                else:
                    running[future := submit(job)] = job
                    future.add_done_callback(finished.put)
            if running:
                bar.set_postfix_str(next(iter(running.values())).stage.name)
                job = running.pop(future := finished.get())
                say(_settle(job, future, outcome))
                order.done(job.stage.name)
                bar.update()
    return outcome


def _settle(job: Job, future: "Future[float]", outcome: Outcome) -> str:
    """Record the outcome of a job, and return one line about it for the user."""
    if future.cancelled():
        raise VisaError("the Dask scheduler is gone: start it again, and run the same command to resume.")
    error, name = future.exception(), job.stage.name
    if error is None:
        outcome.ran += 1
        if job.stage.page:
            show_in_book(job)
        return f"{name}: {future.result():.0f} s"
    kind = "" if isinstance(error, VisaError) else f"{name} failed: {type(error).__name__}: "
    outcome.failed[name] = " ".join(f"{kind}{error}".split())
    return f"{name} failed; its dependents are skipped, the rest run."


@contextmanager
def on_threads(run: Path, workers: int = 1) -> Iterator[Submit]:
    """Run `workers` stages in parallel; each has a kernel process of its own, and they share the cores.

    An interruption stops the kernels before it is passed on.
    """
    cores = max(1, (os.cpu_count() or 1) // workers)
    threads = {name: str(cores) for name in _THREADS if workers > 1 and name not in os.environ}
    pool = ThreadPoolExecutor(workers)
    try:
        yield lambda job: pool.submit(run_stage, job, threads)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stop_kernels(run)
        raise
    finally:
        pool.shutdown()


@contextmanager
def on_dask(run: Path, address: str) -> Iterator[Submit]:
    """Run stages on the workers of the Dask scheduler at an address, one per thread; all must see the same folders.

    If a worker dies, another one runs its stage again. If workers declare a resource `GPU`, a stage of ON_GPU takes
    one. Raises VisaError if Dask is not installed, or the scheduler does not answer or has no worker.
    """
    given = os.environ.get("VISA_ROOT", "")
    places = {"VISA_RUNS": str(runs_root()), "VISA_ROOT": given if is_address(given) else str(visa_root() or "")}
    with _client(address) as client:
        pool = client.get_executor(pure=False)
        has_gpus = any("GPU" in w["resources"] for w in client.scheduler_info(n_workers=-1)["workers"].values())

        def submit(job: Job) -> "Future[float]":
            wanted = {"GPU": 1} if has_gpus and job.stage.notebook in ON_GPU else {}
            future: Future[float] = pool.submit(run_stage, job, places, resources=wanted)
            return future

        try:
            yield submit
        except BaseException:
            pool.shutdown(wait=False)
            stopping = threading.Thread(target=lambda: client.run(stop_kernels, run, on_error="ignore"), daemon=True)
            stopping.start()
            stopping.join(15)  # a worker that hangs does not answer
            raise


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise VisaError("visa run --scheduler needs Dask: pip install 'visa-spd[cluster]'.") from None
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
    """Wait until the scheduler answers: a client that is interrupted while it connects would hang for minutes."""
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, timeout=WAIT, **Security().get_connection_args("client"))
    await comm.close()


def run_stage(job: Job, environment: Mapping[str, str]) -> float:
    """Execute a stage unless it is up to date, write its stamp, and return the seconds that it took.

    `environment` adds variables to those of this process for the stage's kernel. The stamp is written last, so that an
    interrupted stage runs again. Raises VisaError with the notebook's message if it fails, or if this worker's version
    of the package is not the plan's.
    """
    name = job.stage.name
    if job.version != visa.__version__:
        raise VisaError(
            f"{name}: the plan was made by visa {job.version}, and this worker has {visa.__version__}: "
            "install the same version on all machines."
        )
    if job.is_current():  # another worker wrote the stamp, then died
        return 0.0
    started = time.monotonic()
    _kernels[job.executed] = 0
    try:
        _execute(job, environment)
    finally:
        del _kernels[job.executed]
    seconds = time.monotonic() - started
    stamp = {
        "stage": name,
        "notebook": job.stage.notebook,
        "key": job.key,
        "parameters": dict(job.stage.parameters),
        "outputs": job.output_digests(),
        "seconds": round(seconds, 1),
        "machine": machine(),
    }
    write_text(job.stamp_file, json.dumps(stamp, indent=1, default=str) + "\n")
    return seconds


def stop_kernels(run: Path) -> None:
    """Interrupt the kernels that this process has started for a run, and kill those that do not end within seconds."""
    for tenth in range(150):
        running = [pid for executed, pid in _kernels.copy().items() if run in executed.parents]
        if not running:
            return
        for pid in filter(None, running):  # 0: the kernel is about to start
            if tenth in (0, 20) or tenth >= 50:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGINT if tenth < 50 else signal.SIGKILL)
        time.sleep(0.1)


def show_in_book(job: Job) -> None:
    """Copy the stage's executed notebook to the folder that the book shows."""
    target, content = runs_root() / "book" / f"{job.stage.notebook}.ipynb", job.executed.read_bytes()
    if not target.is_file() or target.read_bytes() != content:
        with written_whole(target) as partial:
            partial.write_bytes(content)


def _execute(job: Job, environment: Mapping[str, str]) -> None:
    name, failed = job.stage.name, job.executed.with_suffix(".failed.ipynb")
    stderr = failed.with_suffix(".stderr.txt")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebooks_root() / f"{job.stage.notebook}.ipynb"),
            str(failed),
            parameters=dict(job.stage.parameters),
            kernel_name="python3",
            kernel_manager_class=_kernel_class(job, environment, stderr),
            shutdown_kernel="immediate",  # its files are written, and a process with torch takes seconds to end
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # else it warns at starts and interruptions
        )
    except PapermillExecutionError as error:
        raise VisaError(f"{name} failed: {error.ename}: {error.evalue} (executed copy: {failed})") from error
    except RuntimeError as error:  # DeadKernelError, or jupyter_client's error if a kernel does not start
        said = f" (what it said: {stderr})" if stderr.is_file() and stderr.stat().st_size else ""
        raise VisaError(f"{name} failed: its kernel died, most often for lack of memory: {error}{said}") from error
    finally:
        with suppress(RuntimeError):  # there is no event loop yet
            asyncio.get_event_loop().close()  # nbclient leaves it open, and its collection may end in a traceback
    _label(failed, job)
    if absent := [o for o in job.stage.outputs if not o.is_file()]:
        raise VisaError(f"{name} did not write {absent[0]} (executed copy: {failed}).")
    failed.replace(job.executed)
    stderr.unlink(missing_ok=True)


def _kernel_class(job: Job, environment: Mapping[str, str], stderr: Path) -> type[AsyncKernelManager]:
    """Make a manager class that records the process id of the stage's kernel and sends its stderr to a file."""

    class Kernel(AsyncKernelManager):
        async def start_kernel(self, **kwargs: Any) -> None:  # type: ignore[override]
            with stderr.open("wb") as stream:
                await super().start_kernel(stderr=stream, env={**os.environ, **environment}, **kwargs)
            _kernels[job.executed] = getattr(self.provisioner, "pid", 0)

    return Kernel


def _label(notebook: Path, job: Job) -> None:
    """Record data set and commit of the code in the executed copy's metadata."""
    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    content.metadata["visa"] = {"dataset": job.dataset, "synthetic": job.synthetic, "commit": machine()["commit"]}
    with written_whole(notebook) as partial:
        nbformat.write(content, partial)  # type: ignore[no-untyped-call]
