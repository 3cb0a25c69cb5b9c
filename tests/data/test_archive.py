import hashlib
import io
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from visa.data import archive
from visa.data.archive import CHUNK, download, unpack
from visa.errors import VisaError

FILES = {
    "split_csv/1cls.csv": b"object,split,label,image,mask\n",
    "fryum/image_anno.csv": b"image,label,mask\n",
    "fryum/Data/Images/Normal/000.JPG": bytes(range(256)) * 4000,
}


def tar(files: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
        for member in extra:
            out.addfile(member)
    return stream.getvalue()


BODY = tar(FILES)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.body`; `server.cut` ends each answer after so many bytes, `server.ranges` obeys Range headers."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path != "/VisA.tar":
            return self.send_error(404)
        body, start = self.server.body, 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + self.server.cut if self.server.cut else len(body)
        self.wfile.write(body[start:end])
        return None

    def log_message(self, *_: object) -> None:
        """Keeps the test's output quiet."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.body, http.cut, http.ranges, http.asked = BODY, 0, True, []
        http.url = f"http://127.0.0.1:{http.server_port}/VisA.tar"
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def fetch(server: ThreadingHTTPServer, folder: Path) -> Path:
    return download(folder, server.url, sha256(BODY), progress=False)


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def beside(folder: Path) -> list[str]:
    """What lies where the folder is to appear, the test's own folders apart."""
    return sorted(p.name for p in folder.parent.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "here" / "VisA"


def test_download_leaves_the_root_and_nothing_else(server, target):
    assert fetch(server, target) == target
    assert content(target) == FILES
    assert beside(target) == ["VisA"]


def test_a_root_that_is_there_is_not_fetched_again(server, target):
    fetch(server, target)
    assert fetch(server, target) == target
    assert len(server.asked) == 1


def test_a_cut_connection_goes_on_where_it_stopped(server, target):
    server.cut = 6 * CHUNK
    with pytest.raises(VisaError, match="run the same command again, it goes on at byte 393216"):
        fetch(server, target)
    assert not target.exists()
    server.cut = 0
    fetch(server, target)
    assert server.asked == [None, "bytes=393216-"]
    assert content(target) == FILES
    assert beside(target) == ["VisA"]


def test_a_server_that_ignores_ranges_sends_the_whole_file(server, target):
    server.cut, server.ranges = 6 * CHUNK, False
    with pytest.raises(VisaError):
        fetch(server, target)
    server.cut = 0
    fetch(server, target)
    assert content(target) == FILES


def test_a_part_that_was_whole_already_is_used(server, target):
    target.parent.mkdir()
    (target.parent / f".VisA-{sha256(BODY)[:12]}.tar.part").write_bytes(BODY)
    fetch(server, target)
    assert content(target) == FILES


def test_a_wrong_checksum_removes_what_was_sent(server, target):
    server.body = BODY.replace(b"fryum/Data", b"fryum/Dada")
    with pytest.raises(VisaError, match="wrong SHA-256"):
        fetch(server, target)
    assert beside(target) == []
    server.body = BODY
    fetch(server, target)
    assert server.asked == [None, None]


def test_an_absent_page_and_a_silent_server_are_told(server, target):
    with pytest.raises(VisaError, match="answered 404"):
        download(target, server.url + "x", sha256(BODY), progress=False)
    server.shutdown()
    server.server_close()
    with pytest.raises(VisaError, match="broke off"):
        fetch(server, target)
    assert beside(target) == []


def test_a_small_disk_is_told_before_anything_is_written(server, target, monkeypatch):
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: SimpleNamespace(free=len(BODY)))
    with pytest.raises(VisaError, match="GB free but VisA needs"):
        fetch(server, target)
    assert beside(target) == []


def test_a_folder_in_use_is_left_alone(server, target):
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("mine")
    with pytest.raises(VisaError, match="is no VisA root"):
        fetch(server, target)
    assert server.asked == []
    assert content(target) == {"thesis.tex": b"mine"}


@pytest.mark.parametrize("top", ["", "VisA_20220922/", "./"])
def test_the_archive_may_have_a_folder_around_the_objects(tmp_path, top):
    (tmp_path / "a.tar").write_bytes(tar({top + name: data for name, data in FILES.items()}))
    unpack(tmp_path / "a.tar", tmp_path / "VisA")
    assert content(tmp_path / "VisA") == FILES
    assert beside(tmp_path / "VisA") == ["VisA", "a.tar"]


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


ENEMIES = {
    "absolute": tar(FILES | {"/tmp/visa-enemy": b"x"}),
    "parent": tar(FILES | {"fryum/../../enemy": b"x"}),
    "backslash": tar(FILES | {"fryum\\..\\..\\enemy": b"x"}),
    "drive": tar(FILES | {"C:enemy": b"x"}),
    "symbolic link": tar(FILES, member("fryum/out", tarfile.SYMTYPE, "/etc")),
    "inner symbolic link": tar(FILES, member("fryum/in", tarfile.SYMTYPE, "Data")),
    "hard link": tar(FILES, member("fryum/out", tarfile.LNKTYPE, "/etc/passwd")),
    "device": tar(FILES, member("fryum/null", tarfile.CHRTYPE)),
    "pipe": tar(FILES, member("fryum/pipe", tarfile.FIFOTYPE)),
    "too large": tar(FILES | {"zeros": bytes(4 << 20)}, mode="w:gz"),
    "file as folder": tar(FILES | {"split_csv/1cls.csv/enemy": b"x"}),
    "no data set": tar({"readme.txt": b"x"}),
    "truncated": BODY[:600_000],
    "no archive": b"<html>sign in</html>",
}


@pytest.mark.parametrize("body", ENEMIES.values(), ids=ENEMIES)
def test_an_enemy_archive_unpacks_to_nothing(tmp_path, body):
    (tmp_path / "a.tar").write_bytes(body)
    with pytest.raises(VisaError):
        unpack(tmp_path / "a.tar", tmp_path / "here" / "VisA", max_bytes=2 << 20)
    assert beside(tmp_path / "here" / "VisA") == []
    assert beside(tmp_path / "here") == ["a.tar", "here"]
