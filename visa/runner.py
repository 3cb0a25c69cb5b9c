"""Executes planned stages through papermill: skips what is up to date, and survives being interrupted anywhere."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from visa.data.source import Source
from visa.errors import VisaError
from visa.paths import notebooks_root, runs_root, written_whole
from visa.plan import Stage
from visa.provenance import code_digest, digest, file_digest, folder_fingerprint, machine, write_text
from visa.runs import Run


def execute(
    stages: Sequence[Stage],
    source: Source,
    run: Run,
    say: Callable[[str], None] = tqdm.write,
    interrupted: Callable[[], bool] = lambda: False,
) -> int:
    """Run every stage that is not up to date, in order; returns how many ran.

    `interrupted` is asked after each stage: a KeyboardInterrupt can get lost in the libraries that run a notebook.

    A stage is up to date while its stamp bears the same key and its outputs are as it left them. The stamp is written
    last, so that an interrupted stage runs again. Raises VisaError with the notebook's own sentence if a stage fails.
    """
    keys: dict[str, str] = {}
    ran = 0
    for stage in (bar := tqdm(stages, unit="stage", desc=run.root.name, mininterval=1)):
        bar.set_postfix_str(stage.name)
        keys[stage.name] = key = stage_key(stage, source, keys)
        if not _is_current(stage, run, key):
            started = time.monotonic()
            _execute(stage, source, run)
            seconds = time.monotonic() - started
            _stamp(stage, run, key, seconds)
            say(f"{stage.name}: {seconds:.0f} s")
            ran += 1
        if interrupted():
            raise KeyboardInterrupt
        if stage.page:
            _show_in_book(stage, run)
    return ran


def stage_key(stage: Stage, source: Source, upstream: dict[str, str]) -> str:
    """Digest of all that a stage's result depends on: notebook, parameters, code, data, and the stages it reads."""
    weights, folder = stage.parameters.get("weights"), stage.parameters.get("pretrain_root")
    return digest(
        {
            "notebook": file_digest(notebooks_root() / f"{stage.notebook}.ipynb"),
            "parameters": dict(stage.parameters),
            "code": code_digest(*stage.code),
            "data": source.fingerprint(*stage.data),
            "reads": [upstream[name] for name in stage.reads],
            "weights": file_digest(Path(str(weights)).expanduser()) if weights else "",
            "pretrain_root": folder_fingerprint(Path(str(folder)).expanduser(), times=False) if folder else "",
        }
    )


def check_parameters(stages: Sequence[Stage]) -> None:
    """Raise VisaError if a stage sets a parameter that its notebook does not have, before anything runs."""
    for notebook in dict.fromkeys(s.notebook for s in stages):
        known = papermill.inspect_notebook(str(notebooks_root() / f"{notebook}.ipynb"))
        given = {name for s in stages if s.notebook == notebook for name in s.parameters}
        if unknown := sorted(given - known.keys()):
            raise VisaError(f"notebook {notebook} has no parameter {unknown[0]!r}: it has {', '.join(known)}.")


def _execute(stage: Stage, source: Source, run: Run) -> None:
    executed = _executed(stage, run)
    failed = executed.with_suffix(".failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebooks_root() / f"{stage.notebook}.ipynb"),
            str(failed),
            parameters=dict(stage.parameters),
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # it warns at every start, and of each interruption
        )
    except PapermillExecutionError as error:
        raise VisaError(f"{stage.name} failed: {error.ename}: {error.evalue} (executed copy: {failed})") from error
    except DeadKernelError as error:
        raise VisaError(f"{stage.name} failed: its kernel died, most often for lack of memory: {error}") from error
    _label(failed, source)
    if absent := [o for o in stage.outputs if not o.is_file()]:
        raise VisaError(f"{stage.name} did not write {absent[0]} (executed copy: {failed}).")
    failed.replace(executed)


def _label(notebook: Path, source: Source) -> None:
    """Say in the executed copy's metadata which data and which commit of the code it was made from.

    Raises KeyboardInterrupt if a cell was not executed: papermill returns as if all were well after an interruption.
    """
    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in content.cells):
        raise KeyboardInterrupt
    content.metadata["visa"] = {"dataset": source.name, "synthetic": source.synthetic, "commit": machine()["commit"]}
    with written_whole(notebook) as partial:
        nbformat.write(content, partial)  # type: ignore[no-untyped-call]


def _is_current(stage: Stage, run: Run, key: str) -> bool:
    try:
        stamp: dict[str, Any] = json.loads(_stamp_file(stage, run).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stamp.get("key") == key and stamp.get("outputs") == _digests(stage) and _executed(stage, run).is_file()


def _digests(stage: Stage) -> dict[str, str]:
    return {output.name: file_digest(output) for output in stage.outputs if output.is_file()}


def _stamp(stage: Stage, run: Run, key: str, seconds: float) -> None:
    stamp = {
        "stage": stage.name,
        "notebook": stage.notebook,
        "key": key,
        "parameters": dict(stage.parameters),
        "outputs": _digests(stage),
        "seconds": round(seconds, 1),
        "machine": machine(),
    }
    write_text(_stamp_file(stage, run), json.dumps(stamp, indent=1, default=str) + "\n")


def _show_in_book(stage: Stage, run: Run) -> None:
    target = runs_root() / "book" / f"{stage.notebook}.ipynb"
    content = _executed(stage, run).read_bytes()
    if not target.is_file() or target.read_bytes() != content:
        with written_whole(target) as partial:
            partial.write_bytes(content)


def _executed(stage: Stage, run: Run) -> Path:
    return run.root / "notebooks" / f"{stage.name}.ipynb"


def _stamp_file(stage: Stage, run: Run) -> Path:
    return run.root / "stages" / f"{stage.name}.json"
