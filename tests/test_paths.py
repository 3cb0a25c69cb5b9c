"""Files appear whole, killed processes leave nothing for long, and names may be as long as the disk allows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from visa import paths
from visa.errors import VisaError
from visa.paths import existing_folder, locked, scratch_folder, visa_root, written_whole


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if ".partial." in p.name)


def started(code: str, *arguments: object) -> subprocess.Popen:
    """A process that runs `code`, at the point where it has printed."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


WRITING = """
import sys, time
from pathlib import Path
from visa.paths import scratch_folder, written_whole
folder = Path(sys.argv[1])
with written_whole(folder / "table.csv") as partial, scratch_folder(folder / "root") as scratch:
    partial.write_text("half")
    (scratch / "image").write_text("half")
    print(flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    process = started(WRITING, tmp_path)
    process.kill()
    process.wait()
    assert len(hidden(tmp_path)) == 2 == len(list(tmp_path.iterdir())), "nothing has its final name"
    with written_whole(tmp_path / "table.csv") as partial:
        partial.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_a_living_processs_files_and_anothers_machines_stay(tmp_path):
    mine = f".{os.getppid()}@{paths._HOST}.partial.0"
    theirs, old = ".999999999@elsewhere.partial.0", ".1.partial.x"
    for name in (mine, theirs, old):
        (tmp_path / name).touch()
    os.utime(tmp_path / old, (0, 0))
    with scratch_folder(tmp_path / "root"):
        pass
    assert hidden(tmp_path) == sorted([mine, theirs])


def test_a_failed_write_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError), written_whole(tmp_path / "a") as partial:
        partial.write_text("new")
        raise OSError
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in (255 * "x", 127 * "ä", 30 * "$(x) \"'" + ".png"):
        with written_whole(tmp_path / name) as partial:
            partial.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"


@pytest.mark.parametrize("name", ["/nowhere", 5000 * "x", "~nobody-of-this-name/x", "a\0b", "\udcff"])
def test_no_folder_of_any_name_is_a_sentence(name, monkeypatch):
    assert existing_folder(name) is None
    if "\0" not in name:
        monkeypatch.setenv("VISA_ROOT", name)
        with pytest.raises(VisaError, match="which is not a folder"):
            visa_root()


HOLDING = """
import sys, time
from pathlib import Path
from visa.paths import locked
with locked(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_folder_has_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    process = started(HOLDING, tmp_path, "60")
    with (
        pytest.raises(VisaError, match=rf"in use by process {process.pid} on .*, since \d"),
        locked(tmp_path, patience=0.1),
    ):
        pass
    process.kill()
    process.wait()
    started(HOLDING, tmp_path, "0.2")
    for _ in range(2):
        with locked(tmp_path):
            assert f"process {os.getpid()} " in (tmp_path / paths.HOLDER).read_text()
