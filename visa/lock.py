"""One process at a time: a folder is locked while a run, a training or a download writes into it."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from visa.errors import VisaError

LOCK, HOLDER = ".lock", ".holder"
PATIENCE = 8.0  # seconds: the workers of a killed process may hold its lock until they notice


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold `folder`, made if it is new, until the block ends; a killed process lets go of it.

    Raises VisaError, which names the process, if another one holds it for longer than `patience` seconds. Where the
    file system has no locks, as with some network disks, filelock's own files take their place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise VisaError(
            f"{folder} is in use by {_holder(holder)}: wait until it has finished, or name another folder."
        ) from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime())
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}", encoding="utf-8")
        yield
    finally:
        try:
            holder.unlink(missing_ok=True)
        finally:
            lock.release()


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
