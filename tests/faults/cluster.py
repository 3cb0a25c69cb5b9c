"""The matrix on mini-VisA while its workers are killed, against an undisturbed run in one process.

`python tests/faults/cluster.py --out book/results/cluster` runs `visa run` three times: in one process; on local
workers, one of which, or the notebook in it, is killed (SIGKILL) every few seconds; and once more, when all must be
up to date. It writes kills.json, and exits with 1 if any figure, weight or score differs.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from visa.mini.writer import write_mini_visa
from visa.provenance import file_digest, machine, write_text

OBJECTS = ("pcb1", "fryum")
MATRIX = ["--pretrainings", "random,simsiam+spd", "--pretrain", "epochs=2", "--pretrain", "batch_size=8"]
MATRIX += ["--pretrain", "image_size=32", "--score", "draws=1"]
COMPARED = ("*.csv", "*.safetensors", "*.npz", "*.tex", "splits.json", "diagnosis.json")
TIMED = ("stages.csv",)  # seconds are no result
RAN = r"(\d+) of (\d+) stages ran"


def visa(folder, root, *options):
    """A running `visa run`."""
    roots = {"VISA_ROOT": str(root), "VISA_RUNS": str(folder), "VISA_DATA": f"{folder}-data", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "visa_spd", "run", *MATRIX, *options]
    log = folder.with_suffix(f".{len(options)}.log").open("w")
    return subprocess.Popen(command, env=os.environ | roots, stdout=log, stderr=log), Path(log.name)


def finished(process, log):
    """Numbers of stages that ran and of all, from the last line; ends the script if the run failed."""
    if process.wait():
        sys.exit(f"visa run ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return [int(n) for n in re.search(RAN, log.read_text()).groups()]


def processes(parent, word):
    """Descendants of a process whose command holds a word."""
    found = []
    for child in parent.children(recursive=True):
        try:
            if any(word in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:  # gone meanwhile
            continue
    return found


def kill_until_done(process, rng, least, most):
    """Kill a worker or a notebook at random every few seconds; counts of each."""
    kills = {"workers": 0, "notebooks": 0}
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(rng.uniform(least, most))
        what, word = rng.choice([("workers", "spawn_main"), ("workers", "spawn_main"), ("notebooks", "ipykernel")])
        try:
            rng.choice(processes(parent, word)).kill()
        except (IndexError, psutil.Error):  # none is running just now
            continue
        kills[what] += 1
    return kills


def results(folder):
    files = {f for pattern in COMPARED for f in folder.rglob(pattern) if f.name not in TIMED}
    return {str(f.relative_to(folder)): file_digest(f) for f in files if "partial" not in f.name}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--every", type=float, nargs=2, default=(6, 16), help="seconds between kills, at least and most"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder to write kills.json into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = write_mini_visa(Path(scratch) / "VisA", OBJECTS, normal=30, anomaly=12, size=96, workers=1)
        serial, killed = Path(scratch) / "serial", Path(scratch) / "killed"
        started = time.monotonic()
        _, stages = finished(*visa(serial, root))
        undisturbed = time.monotonic() - started
        run, log = visa(killed, root, "--workers", str(options.workers), "--retries", "6")
        kills = kill_until_done(run, random.Random(options.seed), *options.every)
        finished(run, log)
        disturbed = time.monotonic() - started - undisturbed
        again, _ = finished(*visa(killed, root))
        expected, found = results(serial), results(killed)
        tries = log.read_text().count("is tried again")
    record = {
        "script": "tests/faults/cluster.py",
        "data": "mini-VisA",
        "stages": stages,
        "workers": options.workers,
        "seconds_between_kills": list(options.every),
        "kills": kills,
        "tries_again": tries,
        "files_compared": len(expected),
        "files_different": sorted(f for f in expected.keys() | found.keys() if expected.get(f) != found.get(f)),
        "ran_again_afterwards": again,
        "seconds": {"one process": round(undisturbed), "workers, killed": round(disturbed)},
        "load": round(os.getloadavg()[2], 1),
        "machine": machine(),
    }
    print(json.dumps(record, indent=1))
    if options.out:
        write_text(options.out / "kills.json", json.dumps(record, indent=1) + "\n")
    sys.exit(bool(record["files_different"] or again))


if __name__ == "__main__":
    main()
