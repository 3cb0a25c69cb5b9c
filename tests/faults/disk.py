"""Hinder `visa` by its disk, look at what it says, take the hindrance away, and run the same command again.

    OMP_NUM_THREADS=1 python tests/faults/disk.py --out book/results/faults

Needs root, for mounts: a full disk, one that is read-only, a user without rights, and odd names, which are no fault at
all. The command has to end in one sentence, then to finish, and to leave no partial file. Writes disk.csv and .json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from visa.backbone import create_backbone, save_weights
from visa.mini import write_mini_visa
from visa.paths import CHECKOUT
from visa.provenance import machine, write_rows, write_text

COLUMNS = ("fault", "command", "exit_code", "sentence", "whole_afterwards", "left_over")
ODD = "spaces, \"quotes\", 'single', $HOME, `id`; ünï-日本 & <b>"
SMALL = "arch=resnet18_half --{0} image_size=32 --{0} epochs=1 --{0} batch_size=8"
COMMANDS = {  # each writes into OUT; VISA is the root, WEIGHTS a backbone
    "synth": "synth OUT/VisA --objects fryum --normal 12 --anomaly 4 --size 64 --workers 1",
    "prepare": "prepare --data-folder VISA --save-folder OUT/tree",
    "pretrain": f"pretrain --object fryum --device cpu --set {SMALL.format('set')}",
    "fit": "fit VISA/fryum/Data/Images/Normal --detector padim --weights WEIGHTS --size 32x32 --device cpu "
    "--out OUT/d.safetensors",
    "run": "run --pretrainings random --detectors padim --setups 1cls --pretrain " + SMALL.format("pretrain"),
}
FAULTS = ("full disk", "read-only disk", "no right to write", "odd names")


def run(shared, out, name, prefix=()):
    """Run a command that writes into `out`: its exit code and what it said."""
    places = {"OUT": out, "VISA": shared / "VisA", "WEIGHTS": shared / "w.safetensors"}
    words = []
    for word in COMMANDS[name].split():
        first, _, rest = word.partition("/")
        words.append(str(places[first] / rest) if first in places else word)
    roots = {"VISA_ROOT": places["VISA"], "VISA_RUNS": out / "runs", "VISA_DATA": out / "data", "HOME": shared}
    environment = os.environ | {k: str(v) for k, v in roots.items()} | {"PYTHONPATH": str(CHECKOUT)}
    command = [*prefix, sys.executable, "-m", "visa_spd", *words]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


def sentence(told):
    """The command's last sentence, without its progress; a traceback is what the table must show."""
    lines = [line for line in told.replace("\r", "\n").splitlines() if line.startswith(("visa: ", "  "))]
    return "TRACEBACK" if "Traceback" in told else lines[-1].strip() if lines else ""


def attack(fault, name, shared, out):
    """One row of the table."""
    out.mkdir(parents=True)
    prefix, mounted = (), fault in ("full disk", "read-only disk")
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out)], check=True)
    if fault == "read-only disk":
        subprocess.run(["mount", "-o", "remount,ro,size=400m", str(out)], check=True)
    if fault == "no right to write":
        prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    try:
        code, told = run(shared, out, name, prefix)
        if mounted:
            subprocess.run(["mount", "-o", "remount,rw,size=400m", str(out)], check=True)
        out.chmod(0o777)
        again, told_again = run(shared, out, name)
        left = [f for f in out.rglob("*") if ".partial" in f.name]
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(out)], check=True)
    if again:
        print(told_again[-1500:], file=sys.stderr)
    said = sentence(told).replace(str(out), "OUT") if code else ""
    row = {"fault": fault, "command": name, "exit_code": code, "sentence": said}
    print(row := row | {"whole_afterwards": again == 0, "left_over": len(left)}, flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a folder to write disk.csv and disk.json into")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("disk.py mounts file systems: run it as root.")
    with tempfile.TemporaryDirectory(prefix="visa-disk-") as scratch:
        folder, shared = Path(scratch), Path(scratch, "shared", ODD)
        folder.chmod(0o755)  # everybody reads what the commands read
        write_mini_visa(shared / "VisA", ("fryum",), normal=40, anomaly=12, size=64, workers=1)
        about = {"settings": {"arch": "resnet18_half"}}
        save_weights(create_backbone("resnet18_half"), shared / "w.safetensors", about)
        cases = [(fault, name) for fault in FAULTS for name in COMMANDS]
        rows = [attack(*case, shared, folder / f"{i} {ODD}") for i, case in enumerate(cases)]
    if options.out:
        record = {
            "script": "tests/faults/disk.py",
            "rows": rows,
            "machine": machine(),
        }  # before results change the tree
        write_rows(options.out / "disk.csv", COLUMNS, rows)
        write_text(options.out / "disk.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    sys.exit(not all(row["whole_afterwards"] and not row["left_over"] for row in rows))


if __name__ == "__main__":
    main()
