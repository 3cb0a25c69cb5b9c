"""The directories of the project, atomic writes, and locks on folders that only one process may write to."""

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from visa.errors import VisaError

CHECKOUT = Path(__file__).resolve().parent.parent
_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:32]
_LEFT_OVER = 86_400  # seconds after which a partial file counts as left over, whoever wrote it
_swept: set[Path] = set()
LOCK, HOLDER = ".lock", ".holder"
PATIENCE = 8.0  # seconds: the workers of a killed process may hold its lock until they notice


def visa_root() -> Path | None:
    """Return the user's data folder (`VISA_ROOT`), or None if the variable is not set and mini-VisA is used.

    For an address (s3://...), this is the local copy that `visa.data.source.mirrored` makes. Raises VisaError if
    `VISA_ROOT` names no folder.
    """
    value = os.environ.get("VISA_ROOT")
    if not value:
        return None
    if is_address(value):
        return mirror_of(value)
    root = existing_folder(value)
    if root is None:
        raise VisaError(f"VISA_ROOT is {value!r}, which is not a folder: point it at VisA or at your own data.")
    return root


def named_path(text: str) -> Path:
    """Return the path that a user wrote as an absolute path, whether it exists or not.

    Raises VisaError for text that cannot be a path: a name too long, a zero byte, an unknown ~user.
    """
    try:
        path = Path(text).expanduser().resolve()
        path.stat()
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError, ValueError) as error:
        short = text if len(text) <= 60 else f"{text[:57]}..."
        raise VisaError(f"{short!r} is not a path ({getattr(error, 'strerror', None) or error}): check it.") from None
    return path


def existing_folder(text: str) -> Path | None:
    """Return the folder that a user named as an absolute path, or None if it does not exist or cannot exist."""
    with suppress(VisaError):
        path = named_path(text)
        return path if path.is_dir() else None
    return None


def data_root() -> Path:
    """Return the folder of downloads, prepared trees and mini-VisA (`VISA_DATA`)."""
    return _root("VISA_DATA", "data")


def runs_root() -> Path:
    """Return the folder of all runs: checkpoints, scores, tables and executed notebooks (`VISA_RUNS`)."""
    return _root("VISA_RUNS", "runs")


def is_address(text: str) -> bool:
    """Tell whether a text names a place on object storage (s3://bucket/folder), not a local folder."""
    return "://" in text


def mirror_of(address: str) -> Path:
    """Return the local folder for the copy of a folder on object storage; it has the same name."""
    digest = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:12]
    return data_root() / "mirror" / digest / (address.rstrip("/").rpartition("/")[2] or "root")


def notebooks_root() -> Path:
    """Return the folder of the notebooks (`VISA_NOTEBOOKS`); raises VisaError if there is none, as without a clone."""
    folder = _root("VISA_NOTEBOOKS", "notebooks")
    if not folder.is_dir():
        raise VisaError(f"no notebooks at {folder}: run from a clone of the repository (pip install -e .).")
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write to; it is renamed to `path`, or removed if the block fails.

    Partial files that killed processes left in that folder are removed first.
    """
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path`, in which to build `path`; remove it and those of killed processes."""
    partial = _partial(path)
    with tempfile.TemporaryDirectory(prefix=f"{partial.name}-", dir=path.parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Create `folder` if needed and lock it until the block ends; the lock of a killed process is released.

    Raises VisaError, which names the other process, if that keeps the lock for longer than `patience` seconds. If the
    file system has no locks, as some network disks, filelock uses lock files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        other = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
        raise VisaError(f"{folder} is in use by {other}: wait until it has finished, or name another folder.") from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime())
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _partial(path: Path) -> Path:
    """Return a hidden name beside `path` that names the writing process; remove what killed processes left there.

    It has no suffix, so that image loaders ignore the file. A digest stands for the final name, which may already be
    as long as the file system allows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        for partial in path.parent.glob(".*.partial.*"):
            with suppress(OSError):
                if _is_left_over(partial):
                    shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f".{os.getpid()}@{_HOST}.partial.{digest}")


def _is_left_over(partial: Path) -> bool:
    """Tell whether no process writes it any more: its process on this machine has ended, or it is a day old."""
    if time.time() - partial.stat().st_mtime > _LEFT_OVER:
        return True
    writer = re.match(rf"\.(\d+)@{_HOST}\.partial\.", partial.name)
    if writer and os.name == "posix":
        try:
            os.kill(int(writer[1]), 0)
        except ProcessLookupError:
            return True
    return False


def _root(variable: str, default: str) -> Path:
    value = os.environ.get(variable)
    if value and is_address(value):
        raise VisaError(f"{variable} is {value!r}: it must be a local folder; copy there what is at the address.")
    return Path(value).expanduser().resolve() if value else CHECKOUT / default
