"""Every directory of the project; one environment variable overrides each root."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visa.errors import VisaError

CHECKOUT = Path(__file__).resolve().parent.parent


def visa_root() -> Path | None:
    """The user's VisA folder (`VISA_ROOT`), or None where mini-VisA stands in for it.

    For an address (s3://...) it is where `visa.storage.mirrored` copies it to. Raises VisaError if `VISA_ROOT` names no
    folder.
    """
    value = os.environ.get("VISA_ROOT")
    if not value:
        return None
    if is_address(value):
        return mirror_of(value)
    root = Path(value).expanduser().resolve()
    if not root.is_dir():
        raise VisaError(f"VISA_ROOT is {value!r}, which is no folder: point it at VisA or at your own data.")
    return root


def data_root() -> Path:
    """Where downloads, prepared trees and mini-VisA lie (`VISA_DATA`)."""
    return _root("VISA_DATA", "data")


def runs_root() -> Path:
    """Where runs put checkpoints, scores, tables and executed notebooks (`VISA_RUNS`); an address's local copy."""
    value = os.environ.get("VISA_RUNS", "")
    return mirror_of(value) if is_address(value) else _root("VISA_RUNS", "runs")


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
    """A temporary name beside `path` to write to; it becomes `path` at the end, or vanishes if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _root(variable: str, default: str) -> Path:
    value = os.environ.get(variable)
    if value and is_address(value):
        raise VisaError(
            f"{variable} is {value!r}: it must be a local folder; VISA_ROOT and VISA_RUNS may be addresses."
        )
    return Path(value).expanduser().resolve() if value else CHECKOUT / default
