"""Fetch the VisA archive, check it, and unpack it; the root appears under its final name only when it is complete."""

import shutil
import tarfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from visa.errors import VisaError
from visa.paths import locked, scratch_folder
from visa.provenance import file_digest

URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
SHA256 = "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"
MAX_BYTES = 8 << 30  # the official archive holds about 1.8 GB ...
MAX_MEMBERS = 100_000  # ... in about 12,000 files
CHUNK = 1 << 16  # bytes: a broken connection loses no more
TIMEOUT = 60.0  # seconds without a byte
# A server that is busy or restarts gets three more tries within a few seconds.
_RETRY = Retry(
    3, connect=0, read=0, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False,
    respect_retry_after_header=False,
)  # fmt: skip


def download(destination: Path, url: str = URL, sha256: str = SHA256, progress: bool = True) -> Path:
    """Fetch VisA (about 1.8 GB, CC BY 4.0) into the folder `destination` and return it: a VisA root.

    An existing root is returned unchanged. A repeated call resumes an interrupted download, whose bytes are kept in a
    hidden folder beside `destination` until the root is complete. Raises VisaError if `destination` holds other files
    or is being downloaded to, if the disk is too small, the server refuses, the checksum differs or the archive is
    unsafe.
    """
    destination = Path(destination).expanduser().absolute()
    if (destination / "split_csv").is_dir():
        return destination
    _check_unused(destination)
    work = destination.with_name(f".{destination.name}.download")
    archive = work / f"{sha256[:12]}.tar"
    with locked(work):
        try:
            _fetch(url, archive, progress)
            if (found := file_digest(archive)) != sha256:
                archive.unlink()
                raise VisaError(f"what {url} sent has the wrong SHA-256 ({found}), so it was removed: try again.")
            unpack(archive, destination)
            archive.unlink()
        except requests.RequestException as error:
            raise VisaError(
                f"the download of {url} broke off ({error}): run the same command again to resume at byte "
                f"{_size(archive)}."
            ) from error
        finally:
            if not archive.exists():  # there are no bytes to resume from
                shutil.rmtree(work, ignore_errors=True)
    return destination


def _fetch(url: str, archive: Path, progress: bool) -> None:
    """Download to the file `archive`, which may already hold the beginning."""
    arrived = _size(archive)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={arrived}-"} if arrived else {})
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
    with session, session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the file is complete already, or wrong: the checksum tells which
        if not response.ok:
            what = "try again later" if response.status_code >= 500 else "check the address"
            raise VisaError(f"{url} answered {response.status_code} {response.reason}: {what}.")
        if response.status_code != requests.codes.partial_content:
            arrived = 0  # the server sends the whole file again
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {arrived}-"):
            archive.unlink(missing_ok=True)
            raise requests.RequestException("the server sent another part than was asked for")
        _receive(response, archive, arrived, progress)


def _receive(response: requests.Response, archive: Path, arrived: int, progress: bool) -> None:
    length = response.headers.get("Content-Length", "")
    total = arrived + int(length) if length.isascii() and length.isdigit() else None
    _check_space(archive.parent, 2 * (total or 0) - arrived)  # the archive, then as much again unpacked
    bar = tqdm(desc="download", total=total, initial=arrived, unit="B", unit_scale=True, disable=not progress)
    with bar, archive.open("ab" if arrived else "wb") as stream:
        for chunk in response.iter_content(CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))
            if stream.tell() > MAX_BYTES:
                break  # too long to be VisA: the checksum will differ
    if total is not None and _size(archive) < total:
        raise requests.ConnectionError(f"{_size(archive)} of {total} bytes arrived")


def _size(archive: Path) -> int:
    return archive.stat().st_size if archive.exists() else 0


def unpack(archive: Path, destination: Path, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS) -> None:
    """Unpack a plain VisA tar archive, with or without a folder around the objects: `destination` becomes a VisA root.

    Only plain files and folders that stay inside the archive's folder are unpacked. Raises VisaError for other members,
    more than `max_bytes` or `max_members`, an archive without split_csv/, or a `destination` that holds other files.
    """
    _check_unused(destination)
    with scratch_folder(destination) as scratch:
        inside = scratch / "unpacked"
        inside.mkdir()  # a fresh folder has the user's usual permissions, the temporary one is private
        try:
            _extract(archive, inside, max_bytes, max_members)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:  # ValueError: a zero byte in a name
            raise VisaError(f"{archive} cannot be unpacked: {' '.join(str(error).split())}") from error
        roots = [f for f in (inside, *inside.iterdir()) if (f / "split_csv").is_dir()]
        if not roots:
            raise VisaError(f"{archive} holds no split_csv/, at its top or one folder down: it is not a VisA archive.")
        roots[0].replace(destination)


def _extract(archive: Path, folder: Path, max_bytes: int, max_members: int) -> None:
    with tarfile.open(archive, "r:") as tar:  # VisA's is not compressed, and a compressed one may be a bomb
        members, size = [], 0
        for member in tar:
            paths = PurePosixPath(member.name), PureWindowsPath(member.name)
            outside = any(path.anchor or ".." in path.parts for path in paths)
            if outside or not (member.isdir() or member.isreg()) or member.issparse():
                what = "leaves the folder" if outside else "is not a plain file or folder"
                raise VisaError(f"{archive} holds {member.name!r}, which {what}: nothing was unpacked.")
            members.append(member)
            size += member.size
            if size > max_bytes or len(members) > max_members:
                raise VisaError(f"{archive} holds more than {max_bytes} bytes or {max_members} files: it is not VisA.")
        _check_space(folder, size)
        # Python before 3.11.4 has no filters; the checks above do not depend on them
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder, members)


def _check_unused(destination: Path) -> None:
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise VisaError(f"{destination} exists and is not a VisA root: name an empty or a new folder.")
    destination.parent.mkdir(parents=True, exist_ok=True)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise VisaError(
            f"{folder} has {free / 1e9:.1f} GB free but VisA needs {needed / 1e9:.1f} GB to download and unpack: "
            "make room or name a folder on another disk."
        )
