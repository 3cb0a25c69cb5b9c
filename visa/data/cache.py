"""Arrays made from files, kept on disk: a second epoch, stage or process maps them instead of decoding again."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from visa.paths import data_root, written_whole
from visa.provenance import digest

LIMIT = 8 << 30  # bytes; what was not used for longest is deleted first
_WRITING = Lock()  # partial files are named by process, so its threads take turns


def cached(files: Sequence[Path], what: Any, make: Callable[[], np.ndarray], limit: int = LIMIT) -> np.ndarray:
    """What `make` returns for `files`, from `data_root()/cache` if it was made from the same files before.

    The same: equal `what` (JSON-able), names, sizes and times of modification. A found array is mapped, private to
    this process: writing to it changes no file. The folder may be deleted at any time; together its files stay below
    `limit` bytes. A disk that is full or read-only costs the cache, nothing else.
    """
    file = data_root() / "cache" / f"{digest([what, [_version(f) for f in files]])}.npy"
    found = _found(file)
    if found is not None:
        return found
    array = make()
    with _WRITING, contextlib.suppress(OSError):
        if array.nbytes <= limit:
            _make_room(file.parent, limit - array.nbytes)
            with written_whole(file) as partial, partial.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
    return array


def _version(file: Path) -> tuple[str, int, int]:
    try:
        about = file.stat()
    except OSError:  # absent: `make` says so
        return str(file), -1, 0
    return str(file), about.st_size, about.st_mtime_ns


def _found(file: Path) -> np.ndarray | None:
    try:
        array: np.ndarray = np.load(file, mmap_mode="c", allow_pickle=False)
        os.utime(file)  # used last
    except (OSError, ValueError, EOFError):  # none, or one that a crash cut off
        return None
    return array


def _make_room(folder: Path, limit: int) -> None:
    """Delete what was used longest ago until `limit` bytes are left."""
    if not folder.is_dir():
        return
    kept = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in folder.glob("*.npy"))
    total = sum(size for _, size, _ in kept)
    for _, size, file in kept:
        if total <= limit:
            return
        file.unlink(missing_ok=True)
        total -= size
