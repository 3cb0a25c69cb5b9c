import contextlib
import hashlib
import io
import tarfile
import time
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
        for member in extra:  # a header alone, whatever size it claims; addfile of Python 3.13 wants what it claims
            header = member.tobuf()
            out.fileobj.write(header)
            out.offset += len(header)
    return stream.getvalue()


BODY = tar(FILES)
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.body`, in the ways of a bad server that its other attributes name (see the fixture)."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.errors:
            return self.send_error(self.server.errors.pop())
        if self.path != "/VisA.tar":
            return self.send_error(404)
        body, start = self.server.body, 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        start += self.server.off
        self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.server.told:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked has had enough
            self.wfile.write(body[start : start + self.server.cut if self.server.cut else None])
            time.sleep(self.server.pause)
        return None

    def log_message(self, *_: object) -> None:
        """Keeps the test's output quiet."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.body, http.asked = BODY, []
        http.cut, http.ranges = 0, True  # end each answer after so many bytes; obey Range headers
        http.errors, http.off = [], 0  # status codes to answer first; ranges that are off
        http.told, http.pause = True, 0.0  # say the length; seconds before the end
        http.url = f"http://127.0.0.1:{http.server_port}/VisA.tar"
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def fetch(server: ThreadingHTTPServer, folder: Path) -> Path:
    return download(folder, server.url, DIGEST, progress=False)


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def beside(folder: Path) -> list[str]:
    """What lies where the folder is to appear."""
    return sorted(p.name for p in folder.parent.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "here" / "VisA"


def test_download_leaves_the_root_and_nothing_else_and_a_root_is_not_fetched_again(server, target):
    assert fetch(server, target) == target == fetch(server, target)
    assert content(target) == FILES and beside(target) == ["VisA"] and len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_goes_on_where_it_stopped_or_with_the_whole_file(server, target, ranges):
    server.cut, server.ranges = 6 * CHUNK, ranges
    with pytest.raises(VisaError, match="run the same command again to resume at byte 393216"):
        fetch(server, target)
    assert not target.exists()
    server.cut = 0
    fetch(server, target)
    assert server.asked == [None, "bytes=393216-"]
    assert content(target) == FILES and beside(target) == ["VisA"]


def test_a_wrong_checksum_or_a_stream_without_end_removes_what_was_sent(server, target, monkeypatch):
    server.body = BODY.replace(b"fryum/Data", b"fryum/Dada")
    for _ in range(2):
        with pytest.raises(VisaError, match="wrong SHA-256"):
            fetch(server, target)
        assert beside(target) == []
        monkeypatch.setattr(archive, "MAX_BYTES", 4 * CHUNK)
        server.told = False
    assert server.asked == [None, None]


def test_a_busy_server_is_asked_again_and_a_broken_or_silent_one_and_an_absent_file_told(server, target, monkeypatch):
    monkeypatch.setattr(archive, "_RETRY", archive._RETRY.new(backoff_factor=0))
    server.errors = [500] * 9
    with pytest.raises(VisaError, match="answered 500 Internal Server Error: try again later"):
        fetch(server, target)
    assert beside(target) == []
    server.errors, server.asked = [503, 500], []
    fetch(server, target)
    assert content(target) == FILES and len(server.asked) == 3
    with pytest.raises(VisaError, match="answered 404"):
        download(target.with_name("other"), server.url + "x", DIGEST, progress=False)
    server.shutdown()
    server.server_close()
    with pytest.raises(VisaError, match="broke off"):
        fetch(server, target.with_name("other"))
    assert beside(target) == ["VisA"]


def test_another_part_than_asked_for_is_not_appended_and_a_stalled_server_told(server, target, monkeypatch):
    monkeypatch.setattr(archive, "TIMEOUT", 0.1)
    server.cut, server.pause = 6 * CHUNK, 0.5
    with pytest.raises(VisaError, match=r"broke off .*timed out.* to resume at byte 393216"):
        fetch(server, target)
    server.cut, server.pause, server.off = 0, 0.0, -7
    with pytest.raises(VisaError, match="another part than was asked for"):
        fetch(server, target)
    server.off = 0
    fetch(server, target)
    assert content(target) == FILES


def test_a_folder_in_use_is_left_alone_and_a_small_disk_told_before_anything_is_written(server, target, monkeypatch):
    with monkeypatch.context() as small:
        small.setattr(archive.shutil, "disk_usage", lambda _: SimpleNamespace(free=len(BODY)))
        with pytest.raises(VisaError, match="GB free but VisA needs"):
            fetch(server, target)
    assert beside(target) == []
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("mine")
    with pytest.raises(VisaError, match="is not a VisA root"):
        fetch(server, target)
    assert content(target) == {"thesis.tex": b"mine"}


@pytest.mark.parametrize("top", ["", "VisA_20220922/", "./"])
def test_the_archive_may_have_a_folder_around_the_objects(tmp_path, top):
    (tmp_path / "a.tar").write_bytes(tar({top + name: data for name, data in FILES.items()}))
    unpack(tmp_path / "a.tar", tmp_path / "VisA")
    assert content(tmp_path / "VisA") == FILES
    assert beside(tmp_path / "VisA") == ["VisA", "a.tar"]


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


ENEMIES = {
    "absolute": tar(FILES | {"/tmp/visa-enemy": b"x"}),
    "parent": tar(FILES | {"fryum/../../enemy": b"x"}),
    "backslash": tar(FILES | {"fryum\\..\\..\\enemy": b"x"}),
    "drive": tar(FILES | {"C:enemy": b"x"}),
    "symbolic link": tar(FILES, member("fryum/out", type=tarfile.SYMTYPE, linkname="/etc")),
    "inner symbolic link": tar(FILES, member("fryum/in", type=tarfile.SYMTYPE, linkname="Data")),
    "hard link": tar(FILES, member("fryum/out", type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "device": tar(FILES, member("fryum/null", type=tarfile.CHRTYPE)),
    "pipe": tar(FILES, member("fryum/pipe", type=tarfile.FIFOTYPE)),
    "too large": tar(FILES | {"zeros": bytes(4 << 20)}),
    "compressed bomb": tar(FILES | {"zeros": bytes(4 << 20)}, mode="w:gz"),
    "thousands of tiny files": tar(FILES | {f"fryum/{i}": b"" for i in range(3000)}),
    "sparse bomb": tar(FILES, member("fryum/hole", type=tarfile.GNUTYPE_SPARSE)),
    "a name too long": tar(FILES | {"fryum/" + 300 * "x": b"x"}),
    "a zero byte in a name": tar(FILES, member("fryum/odd", pax_headers={"path": "fryum/a\0b"})),
    "a negative size": tar(FILES, member("fryum/odd", pax_headers={"size": "-9"})),
    "size beyond the file": tar(FILES, member("fryum/huge", size=1 << 40)),
    "file as folder": tar(FILES | {"split_csv/1cls.csv/enemy": b"x"}),
    "no data set": tar({"readme.txt": b"x"}),
    "truncated": BODY[:600_000],
    "no archive": b"<html>sign in</html>",
}


@pytest.mark.parametrize("body", ENEMIES.values(), ids=ENEMIES)
def test_an_enemy_archive_unpacks_to_nothing(tmp_path, body):
    (tmp_path / "a.tar").write_bytes(body)
    with pytest.raises(VisaError):
        unpack(tmp_path / "a.tar", tmp_path / "here" / "VisA", max_bytes=2 << 20, max_members=2000)
    assert beside(tmp_path / "here" / "VisA") == []
    assert beside(tmp_path / "here") == ["a.tar", "here"]
