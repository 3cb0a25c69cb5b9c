"""Fetch the VisA archive, check it, and unpack it: no folder appears under its final name until it is whole."""

import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch
import requests
from tqdm import tqdm

from visa.errors import VisaError

URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
SHA256 = "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"
MAX_BYTES = 8 << 30  # the official archive holds about 1.8 GB
CHUNK = 1 << 16  # what a broken connection may lose


def download(destination: Path, url: str = URL, sha256: str = SHA256, progress: bool = True) -> Path:
    """Fetch VisA (about 1.8 GB, CC BY 4.0) into the folder `destination` and return it: a VisA root.

    A root that is already there is returned as it is. A broken download goes on where it stopped when called again;
    the partial file and the archive lie hidden beside `destination` until the folder is whole. Raises VisaError if
    the folder is in use, the disk too small, the server refuses, the checksum differs or the archive is unsafe.
    """
    destination = Path(destination).expanduser().absolute()
    if (destination / "split_csv").is_dir():
        return destination
    _check_unused(destination)
    name = f".{destination.name}-{sha256[:12]}.tar"
    fetch = ResumingDownloader(destination.parent / f"{name}.part", progress)
    try:
        archive = pooch.retrieve(url, f"sha256:{sha256}", fname=name, path=destination.parent, downloader=fetch)
    except ValueError as error:  # pooch found another checksum and removed the file
        raise VisaError(f"what {url} sent has the wrong SHA-256, so it was removed: {error}") from error
    unpack(Path(archive), destination)
    Path(archive).unlink()
    return destination


class ResumingDownloader:
    """A pooch downloader that keeps what has arrived in `partial` and asks the server for the rest only.

    A server that ignores the range sends the whole file again, which then replaces the part.
    """

    def __init__(self, partial: Path, progress: bool = True, timeout: float = 60) -> None:
        self.partial, self.progress, self.timeout = partial, progress, timeout

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        """Complete the partial file and move it to `output_file`; raises VisaError if the connection fails."""
        try:
            self._complete(url)
        except requests.RequestException as error:
            raise VisaError(
                f"the download of {url} broke off ({error}): run the same command again, it goes on at byte "
                f"{self._arrived()}."
            ) from error
        self.partial.replace(output_file)

    def _complete(self, url: str) -> None:
        arrived = self._arrived()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={arrived}-"} if arrived else {})
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # the part is whole already, or wrong: the checksum tells
            if not response.ok:
                raise VisaError(f"{url} answered {response.status_code} {response.reason}: check the address.")
            if response.status_code != requests.codes.partial_content:
                arrived = 0
            self._receive(response, arrived)

    def _receive(self, response: requests.Response, arrived: int) -> None:
        length = response.headers.get("Content-Length")
        total = arrived + int(length) if length else None
        _check_space(self.partial.parent, 2 * (total or 0) - arrived)  # the archive, then as much again unpacked
        bar = tqdm(desc="download", total=total, initial=arrived, unit="B", unit_scale=True, disable=not self.progress)
        with bar, self.partial.open("ab" if arrived else "wb") as stream:
            for chunk in response.iter_content(CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
        if total is not None and self._arrived() < total:
            raise requests.ConnectionError(f"{self._arrived()} of {total} bytes arrived")

    def _arrived(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0


def unpack(archive: Path, destination: Path, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a VisA tar archive, with or without a folder around the objects, so that `destination` is a VisA root.

    Nothing but plain files and folders inside the archive is let through. Raises VisaError for anything else, for
    more than `max_bytes`, for an archive without split_csv/, and where `destination` is in use.
    """
    _check_unused(destination)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}-", dir=destination.parent) as scratch:
        inside = Path(scratch) / "unpacked"
        inside.mkdir()  # a fresh folder has the user's usual permissions, the temporary one is private
        try:
            _extract(archive, inside, max_bytes)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise VisaError(f"{archive} cannot be unpacked: {' '.join(str(error).split())}") from error
        _visa_root(inside, archive).replace(destination)


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            _check_member(archive, member)
        size = sum(member.size for member in members)
        if size > max_bytes:
            raise VisaError(f"{archive} unpacks to {size} bytes, more than the {max_bytes} that VisA may take.")
        _check_space(folder, size)
        # Python before 3.11.4 has no filters; the checks above do not depend on them
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder, members)


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    paths = PurePosixPath(member.name), PureWindowsPath(member.name)
    if any(path.anchor or ".." in path.parts for path in paths):
        raise VisaError(f"{archive} holds {member.name!r}, which leaves the folder: nothing was unpacked.")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise VisaError(f"{archive} holds {member.name!r}, which is no plain file or folder: nothing was unpacked.")


def _visa_root(folder: Path, archive: Path) -> Path:
    for root in (folder, *(p for p in folder.iterdir() if p.is_dir())):
        if (root / "split_csv").is_dir():
            return root
    raise VisaError(f"{archive} holds no split_csv/, at its top or one folder down: it is no VisA archive.")


def _check_unused(destination: Path) -> None:
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise VisaError(f"{destination} is there already and is no VisA root: name an empty or a new folder.")
    destination.parent.mkdir(parents=True, exist_ok=True)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise VisaError(
            f"{folder} has {free / 1e9:.1f} GB free but VisA needs {needed / 1e9:.1f} GB to download and unpack: "
            "make room or name a folder on another disk."
        )
