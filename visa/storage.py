"""Data on object storage (s3://, gs://, ...) through fsspec: a local copy, made equal to what is there."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from visa.errors import VisaError
from visa.paths import mirror_of, written_whole
from visa.provenance import file_digest, write_text

_THREADS = 16  # requests at a time


def mirrored(address: str, progress: bool = True) -> Path:
    """A local copy of the folder at an address, made equal to it by name, size, tag and time of change.

    Raises VisaError if there is nothing, it cannot be reached, or a file does not arrive whole.
    """
    folder, target = _Folder(address), mirror_of(address)
    listed = folder.listing()
    if not listed:
        raise VisaError(f"there is nothing at {address}: check the address.")
    tags = {name: _tag(about) for name, about in listed.items()}
    kept = target.parent / "tags.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    missing = [n for n, about in listed.items() if known.get(n) != tags[n] or not _is_copy(target / n, about)]
    with ThreadPoolExecutor(_THREADS) as pool:
        calls = pool.map(lambda name: folder.download(name, target / name, listed[name]), missing)
        list(tqdm(calls, total=len(missing), desc=f"fetch {address}", disable=not (progress and missing)))
    for file in [f for f in target.rglob("*") if f.is_file() and f.relative_to(target).as_posix() not in listed]:
        file.unlink()
    if known != tags:
        write_text(kept, json.dumps(tags))
    return target


class _Folder:
    """Files below an address; whatever goes wrong there is told in one sentence."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        with self._told():
            import fsspec

            self._files, self._base = fsspec.url_to_fs(self.address, use_listings_cache=False)

    def listing(self, below: str = "") -> dict[str, dict[str, Any]]:
        """Size, tag and time of change of each file, by its name below the address."""
        with self._told():
            found = self._files.find(self._at(below), detail=True)
        names = {
            path[len(self._base) :].lstrip("/"): about for path, about in found.items() if about["size"] is not None
        }
        if unsafe := [name for name in names if ".." in PurePosixPath(name).parts or name.startswith("/")]:
            raise VisaError(f"{self.address} holds a file called {unsafe[0]!r}, which leads out of the folder.")
        return {name: about for name, about in names.items() if name and not name.endswith("/")}

    def download(self, name: str, target: Path, said: Mapping[str, Any]) -> None:
        """Fetch one file whole, with its time of change; raises VisaError unless it is as `said`."""
        with written_whole(target) as partial:
            with self._told():
                self._files.get_file(self._at(name), str(partial))
            whole = said.get("size") in (None, partial.stat().st_size)
            if not (whole and said.get("sha256") in (None, file_digest(partial)) and _fits_tag(partial, said)):
                raise VisaError(f"{self.address}/{name} is damaged: run the same command again, or upload it anew.")
            os.utime(partial, (_changed(said), _changed(said)) if _changed(said) else None)

    def _at(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, VisaError):
            raise
        except ImportError as error:
            scheme = self.address.partition("://")[0]
            raise VisaError(f"{self.address} needs a package for {scheme}://, s3fs or gcsfs: {error}.") from error
        except Exception as error:  # each storage has its own
            text = " ".join(str(error).split()).rstrip(".")
            raise VisaError(
                f"{self.address} cannot be reached ({type(error).__name__}: {text}): check address, credentials and "
                "network."
            ) from error


def _is_copy(file: Path, listed: Mapping[str, Any]) -> bool:
    if not file.is_file():
        return False
    about = file.stat()
    return about.st_size == listed["size"] and abs(about.st_mtime - _changed(listed)) < 1e-3


def _tag(about: Mapping[str, Any]) -> str:
    return str(about.get("ETag") or about.get("etag") or "").strip('"')


def _fits_tag(file: Path, about: Mapping[str, Any]) -> bool:
    """Whether a file has the MD5 that its tag is, for objects that were uploaded in one part."""
    tag = str(about.get("ETag", "")).strip('"')
    if len(tag) != 32 or "-" in tag:
        return True
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag


def _changed(about: Mapping[str, Any]) -> float:
    """Time of the last change in seconds; 0 where it is not told."""
    told = about.get("LastModified") or about.get("updated") or about.get("mtime") or 0.0
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    return told.timestamp() if isinstance(told, datetime) else float(told)
