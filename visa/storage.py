"""Object storage through fsspec (s3://, gs://, ...): data are mirrored, runs fetched and published a stage at a time.

Everything else works on local files. Where `VISA_RUNS` is an address, each stage has a manifest there, written after
its files: their sizes and digests, and the stage's stamp. What a manifest does not vouch for is not there.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from visa.errors import VisaError
from visa.paths import is_address, mirror_of, written_whole
from visa.provenance import file_digest, write_text

PUBLISH_EVERY = 60.0  # seconds between two uploads of what a running stage has written, its checkpoints above all
_THREADS = 16  # requests at a time
_CHECKPOINTS = ("*.pt", "*.pt.previous")


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


@contextmanager
def stage_files(
    run: Path, stage: str, reads: Collection[str] | None, own: Callable[[], Iterable[Path]], stamp: Path
) -> Iterator[None]:
    """Around a stage's execution: fetch what it `reads` (None: the whole run), and publish what it leaves.

    `own` lists its files, the stamp apart. Does nothing where runs lie in a local folder. Raises VisaError if a file
    that it reads is damaged; the stage that wrote it then counts as not run.
    """
    store = RunStore.of(run)
    if store is None:
        yield
        return
    for name in store.manifests() if reads is None else reads:
        if name != stage:
            store.fetch(name, without=_CHECKPOINTS)
    store.fetch(stage, strict=False)
    with store.published_meanwhile(stage, own):
        yield
    store.publish(stage, own(), stamp)


class RunStore:
    """A run's folder on object storage, and its local copy `root`."""

    def __init__(self, root: Path, address: str) -> None:
        self.root, self._folder = root, _Folder(address)

    @classmethod
    def of(cls, run: Path) -> "RunStore | None":
        """The store of a run, or None where `VISA_RUNS` is no address."""
        address = os.environ.get("VISA_RUNS", "")
        return cls(run, f"{address.rstrip('/')}/{run.name}") if is_address(address) else None

    def manifests(self) -> dict[str, dict[str, Any]]:
        """The manifest of each stage, by its name; one that its files do not bear out, in size or tag, is deleted."""
        listed = self._folder.listing()
        names = [name for name in listed if PurePosixPath(name).parent.name == "manifests"]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = dict(zip(names, pool.map(self._manifest, names), strict=True))
        kept = {}
        for name, manifest in found.items():
            if manifest and all(_is_as_said(listed.get(file), said) for file, said in manifest["files"].items()):
                kept[PurePosixPath(name).stem] = manifest
            else:
                self._folder.remove(name)
        return kept

    def fetch(self, stage: str, without: Collection[str] = (), only: Path | None = None, strict: bool = True) -> None:
        """Bring a stage's files, or one of them, here; its stamp last, so that a stamp says that all are there.

        Raises VisaError if one is damaged, unless not `strict`: then it is left out, with the stamp.
        """
        manifest = self._manifest(_manifest_name(stage)) or {"files": {}}
        for name, said in manifest["files"].items():
            file = self.root / name
            wanted = file == only if only else not any(PurePosixPath(name).match(p) for p in without)
            if wanted and not _is_whole(file, said):
                try:
                    self._folder.download(name, file, said)
                except VisaError:
                    if not strict:
                        return
                    self._folder.remove(_manifest_name(stage))
                    raise

    def publish(self, stage: str, files: Iterable[Path], stamp: Path | None = None) -> None:
        """Upload a stage's files that changed, then its manifest, which alone makes them count."""
        before = (self._manifest(_manifest_name(stage)) or {"files": {}})["files"]
        chosen = [*sorted(set(files)), *([stamp] if stamp else [])]
        said: dict[str, dict[str, Any]] = {}
        for file in chosen:
            name = file.relative_to(self.root).as_posix()
            said[name] = _facts(file)
            if _core(before.get(name, {})) != said[name]:
                said[name] |= self._folder.upload(file, name)
            else:
                said[name] = before[name]
        about = json.loads(stamp.read_text(encoding="utf-8")) if stamp else {}
        self._folder.write(_manifest_name(stage), json.dumps({"stamp": about, "files": said}, indent=1))

    @contextmanager
    def published_meanwhile(self, stage: str, own: Callable[[], Iterable[Path]]) -> Iterator[None]:
        """Publish what a running stage has written, now and then, so that another machine can go on from there."""
        ended = threading.Event()

        def publish() -> None:
            while not ended.wait(PUBLISH_EVERY):
                try:
                    self.publish(stage, own())
                except (VisaError, OSError):  # a file that was replaced meanwhile, or a busy network: next time
                    continue

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def fetch_file(self, file: Path) -> None:
        """Bring one file that no manifest names here, if there is one."""
        name = file.relative_to(self.root).as_posix()
        if name in self._folder.listing(name):
            self._folder.download(name, file, {})

    def push_file(self, file: Path) -> None:
        """Upload one file that no manifest names."""
        self._folder.upload(file, file.relative_to(self.root).as_posix())

    def _manifest(self, name: str) -> dict[str, Any] | None:
        try:
            manifest = json.loads(self._folder.read(name))
        except (FileNotFoundError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) and {"stamp", "files"} <= manifest.keys() else None


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

    def upload(self, file: Path, name: str) -> dict[str, Any]:
        """Send one file; object stores show it whole or not at all. Returns its size and tag there."""
        with self._told():
            self._files.put_file(str(file), self._at(name))
            about = self._files.info(self._at(name))
        return {"size": about["size"], "etag": _tag(about)}

    def read(self, name: str) -> bytes:
        """A small file's content; raises FileNotFoundError if it is absent."""
        with self._told():
            content: bytes = self._files.cat_file(self._at(name))
        return content

    def write(self, name: str, text: str) -> None:
        """Write a small file."""
        with self._told():
            self._files.pipe_file(self._at(name), text.encode())

    def remove(self, name: str) -> None:
        """Delete a file."""
        with self._told():
            self._files.rm_file(self._at(name))

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


def _manifest_name(stage: str) -> str:
    return f"manifests/{stage}.json"


def _facts(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": file_digest(file)}


def _core(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: said[key] for key in ("size", "sha256") if key in said}


def _is_whole(file: Path, said: Mapping[str, Any]) -> bool:
    return file.is_file() and _facts(file) == _core(said)


def _is_as_said(listed: Mapping[str, Any] | None, said: Mapping[str, Any]) -> bool:
    """Whether a file is there with the size, and the tag, that it had when its manifest was written."""
    return listed is not None and listed["size"] == said["size"] and said.get("etag", "") in ("", _tag(listed))


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
