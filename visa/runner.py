"""One stage through papermill: what its result depends on, whether it is up to date, and its execution."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from visa import storage
from visa.data.source import Source
from visa.errors import VisaError
from visa.kernel import StageKernelManager, closed_event_loop
from visa.paths import notebooks_root, runs_root, written_whole
from visa.plan import Stage
from visa.provenance import (
    code_digest,
    digest,
    file_digest,
    folder_fingerprint,
    machine,
    read_sidecar,
    sidecar_of,
    write_text,
)
from visa.runs import Run

_NO_MEMORY = ("MemoryError", "OutOfMemoryError")


class StageLost(VisaError):
    """A stage came to no end for a reason that may be gone at its next try: memory, time, a machine."""


@dataclass(frozen=True)
class Job:
    """A stage with all that its execution needs, on this machine or another.

    `key` is what its stamp will bear, `made_of` the digest of notebook and code that the key was made with.
    """

    stage: Stage
    run: Run
    key: str
    made_of: str
    dataset: str
    synthetic: bool
    timeout: float | None = None  # seconds


def make_jobs(stages: Sequence[Stage], source: Source, run: Run, timeout: float | None = None) -> list[Job]:
    """A job for every stage of a plan, in its order.

    A key is the digest of all that a stage's result depends on: notebook, parameters, code, data, and the keys of the
    stages it reads. It is known before anything runs.
    """
    data, of_file, of_folder = cache(source.fingerprint), cache(file_digest), cache(folder_fingerprint)
    of_source = cache(_made_of)  # a matrix has thousands of stages, of seven notebooks
    jobs: dict[str, Job] = {}
    for stage in stages:
        weights, folder = stage.parameters.get("weights"), stage.parameters.get("pretrain_root")
        made_of = of_source(stage.notebook, stage.code)
        parts = {
            **made_of,
            "parameters": dict(stage.parameters),
            "data": data(*stage.data),
            "reads": [jobs[name].key for name in stage.reads],
            "weights": of_file(Path(str(weights)).expanduser()) if weights else "",
            "pretrain_root": of_folder(Path(str(folder)).expanduser(), times=False) if folder else "",
        }
        facts = (source.name, source.synthetic, timeout)
        jobs[stage.name] = Job(stage, run, digest(parts), digest(made_of), *facts)
    return list(jobs.values())


def _made_of(notebook: str, code: tuple[str, ...]) -> dict[str, str]:
    """Digests of a notebook's source and of the parts of the package that its result depends on."""
    return {"notebook": file_digest(notebooks_root() / f"{notebook}.ipynb"), "code": code_digest(*code)}


def check_parameters(stages: Sequence[Stage]) -> None:
    """Raise VisaError if a stage sets a parameter that its notebook does not have, before anything runs."""
    for notebook in dict.fromkeys(s.notebook for s in stages):
        known = papermill.inspect_notebook(str(notebooks_root() / f"{notebook}.ipynb"))
        given = {name for s in stages if s.notebook == notebook for name in s.parameters}
        if unknown := sorted(given - known.keys()):
            raise VisaError(f"notebook {notebook} has no parameter {unknown[0]!r}: it has {', '.join(known)}.")


def is_current(job: Job) -> bool:
    """Whether the stage's stamp bears the job's key, and its outputs are as the stage left them."""
    stage, run = job.stage, job.run
    try:
        stamp: dict[str, Any] = json.loads(stamp_file(stage, run).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stamp.get("key") == job.key and stamp.get("outputs") == _digests(stage) and _executed(stage, run).is_file()


def run_job(job: Job) -> float:
    """Execute a stage, unless it is up to date, and stamp it; returns the seconds it took.

    The stamp is written last, so that an interrupted stage runs again. Raises VisaError with the notebook's own
    sentence if it fails, and StageLost where another try may succeed.
    """
    if digest(_made_of(job.stage.notebook, job.stage.code)) != job.made_of:
        raise VisaError(
            f"{job.stage.name}: the code here is not the plan's (changed meanwhile, or another version on this "
            "worker): run the same command again."
        )
    reads = None if job.stage.whole_run else job.stage.reads
    stamp = stamp_file(job.stage, job.run)
    with storage.stage_files(job.run.root, job.stage.name, reads, lambda: _own_files(job), stamp):
        if is_current(job):  # a worker died after it had stamped
            return 0.0
        started = time.monotonic()
        _execute(job)
        seconds = time.monotonic() - started
        _stamp(job, seconds)
    return seconds


def current_stages(jobs: Sequence[Job]) -> set[str]:
    """Names of the stages of one run that are up to date, there where its files are kept."""
    store = storage.RunStore.of(jobs[0].run.root)
    if store is None:
        return {job.stage.name for job in jobs if is_current(job)}
    kept = store.manifests()
    return {j.stage.name for j in jobs if kept.get(j.stage.name, {"stamp": {}})["stamp"].get("key") == j.key}


def show_in_book(job: Job) -> None:
    """Make the stage's executed copy the one that the book shows."""
    target, executed = runs_root() / "book" / f"{job.stage.notebook}.ipynb", _executed(job.stage, job.run)
    if store := storage.RunStore.of(job.run.root):
        store.fetch(job.stage.name, only=executed)
    content = executed.read_bytes()
    if not target.is_file() or target.read_bytes() != content:
        with written_whole(target) as partial:
            partial.write_bytes(content)


def _execute(job: Job) -> None:
    stage, executed = job.stage, _executed(job.stage, job.run)
    failed = executed.with_suffix(".failed.ipynb")
    stderr = failed.with_suffix(".stderr.txt")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closed_event_loop():
            papermill.execute_notebook(
                str(notebooks_root() / f"{stage.notebook}.ipynb"),
                str(failed),
                parameters=dict(stage.parameters),
                kernel_name="python3",
                kernel_manager_class=StageKernelManager,
                config=Config(StageKernelManager={"stderr_file": str(stderr)}),
                progress_bar=False,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # it warns at starts, and of each interruption
                **_time_limit(job.timeout),
            )
    except PapermillExecutionError as error:
        kind = StageLost if error.ename in _NO_MEMORY else VisaError
        raise kind(f"{stage.name} failed: {error.ename}: {error.evalue} (executed copy: {failed})") from error
    except DeadKernelError as error:
        why = f"most often for lack of memory: {error}{_said(stderr)}"
        raise StageLost(f"{stage.name} failed: its kernel died, {why}") from error
    except RuntimeError as error:  # jupyter_client's own, where a kernel does not come up
        raise StageLost(f"{stage.name} failed: its kernel did not start: {error}{_said(stderr)}") from error
    except CellTimeoutError as error:
        raise StageLost(f"{stage.name} took longer than {job.timeout:.0f} s (executed copy: {failed})") from error
    finally:
        if not _said(stderr):
            stderr.unlink(missing_ok=True)
    _label(failed, job)
    if absent := [o for o in stage.outputs if not o.is_file()]:
        raise VisaError(f"{stage.name} did not write {absent[0]} (executed copy: {failed}).")
    failed.replace(executed)
    stderr.unlink(missing_ok=True)


def _said(stderr: Path) -> str:
    """Where a kernel's last words are, if it had any."""
    return f" (what it said: {stderr})" if stderr.is_file() and stderr.stat().st_size else ""


def _time_limit(seconds: float | None) -> dict[str, Any]:
    """Options that leave each cell what is left of a stage's time."""
    if seconds is None:
        return {}
    deadline = time.monotonic() + seconds
    return {"timeout_func": lambda cell: max(1, int(deadline - time.monotonic()))}


def _label(notebook: Path, job: Job) -> None:
    """Say in the executed copy's metadata which data and which commit of the code it was made from.

    Raises KeyboardInterrupt if a cell was not executed: papermill returns as if all were well after an interruption.
    """
    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in content.cells):
        raise KeyboardInterrupt
    content.metadata["visa"] = {"dataset": job.dataset, "synthetic": job.synthetic, "commit": machine()["commit"]}
    with written_whole(notebook) as partial:
        nbformat.write(content, partial)  # type: ignore[no-untyped-call]


def _own_files(job: Job) -> list[Path]:
    """What a stage has written, its stamp apart."""
    named = [f for output in job.stage.outputs for f in (output, sidecar_of(output))] + [_executed(job.stage, job.run)]
    inside = [f for folder in job.stage.folders for f in folder.rglob("*") if not f.name.startswith(".")]
    return [f for f in (*named, *inside) if f.is_file()]


def _digests(stage: Stage) -> dict[str, str]:
    return {output.name: file_digest(output) for output in stage.outputs if output.is_file()}


def _stamp(job: Job, seconds: float) -> None:
    stamp = {
        "stage": job.stage.name,
        "notebook": job.stage.notebook,
        "key": job.key,
        "parameters": dict(job.stage.parameters),
        "outputs": _digests(job.stage),
        "seconds": round(seconds, 1),
        "device": _device(job.stage),
        "machine": machine(),
    }
    write_text(stamp_file(job.stage, job.run), json.dumps(stamp, indent=1, default=str) + "\n")


def _device(stage: Stage) -> str:
    """What a pre-training ran on, as its sidecar says; empty for other stages."""
    return next((str((read_sidecar(output) or {}).get("device", "")) for output in stage.outputs), "")


def _executed(stage: Stage, run: Run) -> Path:
    return run.root / "notebooks" / f"{stage.name}.ipynb"


def stamp_file(stage: Stage, run: Run) -> Path:
    """Where a finished stage says what made it."""
    return run.root / "stages" / f"{stage.name}.json"
