"""Every directory of the project, files written whole, and folders locked while one process writes into them."""

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
    """The user's VisA folder (`VISA_ROOT`), or None where mini-VisA stands in for it.

    For an address (s3://...) it is where `visa.data.source.mirrored` copies it to. Raises VisaError if `VISA_ROOT`
    names no folder.
    """
    value = os.environ.get("VISA_ROOT")
    if not value:
        return None
    if is_address(value):
        return mirror_of(value)
    root = existing_folder(value)
    if root is None:
        raise VisaError(f"VISA_ROOT is {value!r}, which is no folder: point it at VisA or at your own data.")
    return root


def named_path(text: str) -> Path:
    """The path that a user wrote, absolute, whether there is anything or not.

    Raises VisaError for what can be no path: a name too long, a zero byte, an unknown ~user.
    """
    try:
        path = Path(text).expanduser().resolve()
        path.stat()
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError, ValueError) as error:
        short = text if len(text) <= 60 else f"{text[:57]}..."
        raise VisaError(f"{short!r} is no path ({getattr(error, 'strerror', None) or error}): check it.") from None
    return path


def existing_folder(text: str) -> Path | None:
    """The folder that a user named, absolute, or None where there is none, or can be none of that name."""
    with suppress(VisaError):
        path = named_path(text)
        return path if path.is_dir() else None
    return None


def data_root() -> Path:
    """Where downloads, prepared trees and mini-VisA lie (`VISA_DATA`)."""
    return _root("VISA_DATA", "data")


def runs_root() -> Path:
    """Where runs put checkpoints, scores, tables and executed notebooks (`VISA_RUNS`)."""
    return _root("VISA_RUNS", "runs")


def is_address(text: str) -> bool:
    """Whether it names a place on object storage (s3://bucket/folder), not a local folder."""
    return "://" in text


def mirror_of(address: str) -> Path:
    """The local folder that stands for one on object storage; it bears its name."""
    digest = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:12]
    return data_root() / "mirror" / digest / (address.rstrip("/").rpartition("/")[2] or "root")


def notebooks_root() -> Path:
    """The notebooks' sources (`VISA_NOTEBOOKS`); they come with the repository, not with the installed package."""
    folder = _root("VISA_NOTEBOOKS", "notebooks")
    if not folder.is_dir():
        raise VisaError(f"no notebooks at {folder}: run from a clone of the repository (pip install -e .).")
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` at the end, or vanishes if the block fails.

    What a killed process left half-written in that folder goes first.
    """
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, for what is to become `path`; it vanishes, with what killed processes left."""
    partial = _partial(path)
    with tempfile.TemporaryDirectory(prefix=f"{partial.name}-", dir=path.parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


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
    """A hidden name beside `path` that says who writes, in a folder rid of what killed processes left.

    It has no suffix, so that no loader of images takes the file for one. A digest stands for the final name, which may
    already be as long as the file system allows.
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
    """Whether no process writes it any more: its own is gone from this machine, or it has not changed for a day."""
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
