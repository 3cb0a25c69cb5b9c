"""Real faults of disks and folders, each against the `visa` command: what it said, and whether all was well afterwards.

    OMP_NUM_THREADS=1 python tests/faults/disk.py --out book/results/faults

Needs root, for mounts. A case runs in a mount of its own: a full tmpfs, one that is read-only, a user without rights, a
folder that is removed under the run, odd names. Afterwards the hindrance is taken away and the same command is run
again: it has to finish, and no partial file may be left. Writes disk.csv, with disk.json beside it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from stages import TINY, left_over

from visa.mini.writer import write_mini_visa
from visa.paths import CHECKOUT
from visa.provenance import machine, write_rows, write_text

COLUMNS = ("fault", "command", "exit_code", "sentence", "whole_afterwards", "left_over")
ODD = "spaces, \"quotes\", 'single', $HOME, `id`; ünï-日本 & <b>"
SMALL = "arch=resnet18_half --set image_size=32"
COMMANDS = {  # each writes into OUT; VisA is the root, WEIGHTS a backbone
    "synth": "synth OUT/VisA --objects fryum --normal 12 --anomaly 4 --size 64 --workers 1",
    "prepare": "prepare --data-folder VISA --save-folder OUT/tree",
    "splits": "splits OUT/parts",
    "pretrain": f"pretrain --object fryum --set epochs=1 --set batch_size=8 --device cpu --set {SMALL}",
    "shards": "shards PHOTOS OUT/shards --side 16 --workers 1",
    "fit": "fit --detector padim --weights WEIGHTS --size 32x32 --device cpu VISA/fryum/Data/Images/Normal "
    "--out OUT/d.safetensors",
    "run": "run --pretrainings random --detectors padim --setups 1cls "
    f"--pretrain {SMALL.replace('--set', '--pretrain')}",
}


class Case:
    """A command on `out`, with VISA_RUNS in it."""

    def __init__(self, shared: Path, out: Path, name: str, prefix: tuple[str, ...] = ()) -> None:
        places = {"OUT": out, "VISA": shared / "VisA", "WEIGHTS": shared / "w.safetensors", "PHOTOS": shared / "photos"}
        words = [_placed(word, places) for word in COMMANDS[name].split()]
        self.command = [*prefix, sys.executable, "-m", "visa_spd", *words]
        own = {"VISA_ROOT": str(shared / "VisA"), "VISA_RUNS": str(out / "runs"), "VISA_DATA": str(out / "data")}
        self.environment = os.environ | own | {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command, env=self.environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self) -> tuple[int, str]:
        process = self.start()
        _, told = process.communicate(timeout=600)
        return process.returncode, told


def _placed(word: str, places: dict[str, Path]) -> str:
    first, _, rest = word.partition("/")
    return str(places[first] / rest) if first in places else word


def sentence(told: str) -> str:
    """The command's last sentence, not its progress; a traceback anywhere is what the table must show."""
    lines = [line for line in told.replace("\r", "\n").splitlines() if line.startswith("visa: ")]
    return "TRACEBACK" if "Traceback" in told else lines[-1] if lines else ""


@contextmanager
def mounted(folder: Path, size: str = "200m") -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full(shared: Path, out: Path, name: str) -> Iterator[Case | None]:
    with mounted(out, "64k"):
        yield Case(shared, out, name)
        remount(out, "size=400m")
        yield None


def read_only(shared: Path, out: Path, name: str) -> Iterator[Case | None]:
    with mounted(out):
        remount(out, "ro")
        yield Case(shared, out, name)
        remount(out, "rw")
        yield None


def no_right(shared: Path, out: Path, name: str) -> Iterator[Case | None]:
    """Another user, to whom the folder does not belong."""
    out.mkdir()
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    case = Case(shared, out, name, nobody)
    case.environment |= {"HOME": str(shared)}
    yield case
    out.chmod(0o777)
    yield None


def odd_names(shared: Path, out: Path, name: str) -> Iterator[Case | None]:
    """No fault at all: it has to work at once, from a data set whose path is as odd."""
    odd = shared / ODD
    if not odd.exists():
        odd.mkdir()
        shutil.copytree(shared / "VisA", odd / "VisA")
        shutil.copytree(shared / "photos", odd / "photos")
        shutil.copy(shared / "w.safetensors", odd)
    yield Case(odd, out / ODD, name)
    yield None


def long_names(shared: Path, out: Path, name: str) -> Iterator[Case | None]:
    """Folders whose names are as long as they may be, a kilobyte in all."""
    yield Case(shared, out / ("x" * 255) / ("é" * 127) / ("y" * 255), name)
    yield None


FAULTS: dict[str, Callable[[Path, Path, str], Iterator[Case | None]]] = {
    "disk full": full,
    "read-only disk": read_only,
    "no write permission": no_right,
    "odd names": odd_names,
    "long names": long_names,
}


def attack(fault: str, name: str, shared: Path, out: Path) -> dict[str, object]:
    """Hinder a command, look at what it says, take the hindrance away, and run it again."""
    steps = FAULTS[fault](shared, out, name)
    case = next(steps)
    code, told = case.run()
    told = sentence(told).replace(str(out), "OUT") if code else ""
    row: dict[str, object] = {"fault": fault, "command": name, "exit_code": code, "sentence": told}
    next(steps)
    again, told_again = case.run()
    row |= {"whole_afterwards": again == 0, "left_over": len(left_over(out))}
    if again:
        print(told_again[-1500:], file=sys.stderr)
    next(steps, None)
    return row


def removed(name: str, shared: Path, out: Path) -> dict[str, object]:
    """Remove the runs' folder while the command works in it."""
    case = Case(shared, out, name)
    process = case.start()
    while not (out / "runs").is_dir() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(1)
    shutil.rmtree(out / "runs", ignore_errors=True)
    _, told = process.communicate(timeout=600)
    code = process.returncode
    again, _ = case.run()
    told = sentence(told).replace(str(out), "OUT")
    return {
        **{"fault": "folder removed", "command": name, "exit_code": code, "sentence": told},
        **{"whole_afterwards": again == 0, "left_over": len(left_over(out))},
    }


def second(name: str, shared: Path, out: Path) -> dict[str, object]:
    """The same command twice at the same time."""
    case = Case(shared, out, name)
    first = case.start()
    while not list(out.rglob(".holder")) and first.poll() is None:
        time.sleep(0.02)
    code, told = case.run()
    first.communicate(timeout=600)
    again, _ = case.run()
    whole = again == 0 and first.returncode == 0
    return {
        **{
            "fault": "a second one at once",
            "command": name,
            "exit_code": code,
            "sentence": sentence(told).replace(str(out), "OUT"),
        },
        **{"whole_afterwards": whole, "left_over": len(left_over(out))},
    }


def begin(shared: Path) -> None:
    """The data that the commands read, readable by everybody."""
    from visa.backbone import create_backbone, save_weights

    shared.chmod(0o755)
    write_mini_visa(shared / "VisA", objects=("fryum",), **TINY)
    images = sorted((shared / "VisA/fryum/Data/Images/Normal").iterdir())
    for i, image in enumerate(images):
        (shared / "photos" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(image, shared / "photos" / f"class{i % 2}")
    save_weights(create_backbone("resnet18_half"), shared / "w.safetensors", {"settings": {"arch": "resnet18_half"}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=["synth", "prepare", "pretrain", "shards", "fit", "run"])
    parser.add_argument("--faults", nargs="+", default=[*FAULTS, "folder removed", "a second one at once"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("disk.py mounts file systems: run it as root.")
    rows = []
    with tempfile.TemporaryDirectory(prefix="visa-disk-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        (folder / "shared").mkdir()
        begin(folder / "shared")
        for number, (fault, name) in enumerate((f, c) for f in options.faults for c in options.commands):
            out = folder / f"case{number}"
            if fault in FAULTS:
                rows.append(attack(fault, name, folder / "shared", out))
            elif name in ("pretrain", "run"):  # they work in a folder of runs for longer than a moment
                rows.append((removed if fault == "folder removed" else second)(name, folder / "shared", out))
            else:
                continue
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if options.out:
        write(options.out, rows)


def write(out: Path, rows: list[dict[str, object]]) -> None:
    """Put the rows in the place of earlier ones of the same fault and command."""
    about = out / "disk.json"
    earlier = json.loads(about.read_text(encoding="utf-8"))["rows"] if about.is_file() else []
    new = {(row["fault"], row["command"]) for row in rows}
    rows = [row for row in earlier if (row["fault"], row["command"]) not in new] + rows
    record = {"script": "tests/faults/disk.py", "rows": rows, "machine": machine()}
    write_text(about, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_rows(out / "disk.csv", COLUMNS, rows)


if __name__ == "__main__":
    main()
