"""Kill `visa` at random moments until it is done, and compare its files with an undisturbed run's.

    OMP_NUM_THREADS=1 python tests/faults/kill.py --kills 100 --out book/results/faults

A kill (SIGKILL) hits the command, and every other time its kernel, too. Its moment is drawn evenly from the duration of
what is to be hit: `download`, `prepare`, or a stage of `visa run`. After a few kills in each stage the command is left
to finish, and begins anew. Prints a row for each stage, and writes them into kills.csv and kills.json.
"""

import argparse
import hashlib
import http.server
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from visa.mini import write_mini_visa
from visa.paths import CHECKOUT
from visa.provenance import file_digest, machine, write_rows, write_text

IN_A_ROUND = 4
COLUMNS = ("stage", "kills", "rounds", "files", "different", "left_over", "seconds_undisturbed")
SCORE = "score-fryum-simsiam+spd-fryum-seed0"
STAGES = ("data", "prepare", "pretrain-simsiam+spd-fryum-seed0", SCORE, "results")
RUN = "run --pretrainings simsiam+spd --detectors padim,patchcore --setups 1cls --pretrain epochs=4"
RUN += " --pretrain batch_size=8 --pretrain image_size=32 --pretrain arch=resnet18_half"
DOWNLOAD = "import sys; from visa.data.archive import download; from pathlib import Path; "
DOWNLOAD += "download(Path(sys.argv[1]), sys.argv[2], sys.argv[3], progress=False)"
TIMED = ("times.csv",)  # seconds are no result
COMPARED = (".csv", ".safetensors", ".npz", ".tex", ".JPG", ".png", "")


class SlowServer(http.server.BaseHTTPRequestHandler):
    """Serves `body` with ranges, a little at a time."""

    body = b""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(self.body) - start))
        self.end_headers()
        try:
            for at in range(start, len(self.body), 1 << 16):
                self.wfile.write(self.body[at : at + (1 << 16)])
                time.sleep(0.01)
        except OSError:  # the client was killed
            pass

    def log_message(self, *_):
        """Says nothing."""


def serve(root):
    """Serve the root as an archive; returns its address and digest."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(root, "VisA")
    SlowServer.body = stream.getvalue()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/VisA.tar", hashlib.sha256(SlowServer.body).hexdigest()


def results(folder):
    """A digest of every file that a user would read, those with times in them apart."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.suffix in COMPARED and f.name not in TIMED)
    hidden = (f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts))
    return {str(f.relative_to(folder)): file_digest(f) for f in hidden}


class Command:
    """A command that writes into a folder. `stages`: the parts of it that are hit one after the other."""

    def __init__(self, name, words, folder, environment, stages=("",)):
        self.name, self.words, self.folder, self.environment, self.stages = name, words, folder, environment, stages
        folder.mkdir(parents=True)

    def start(self):
        with self.folder.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(self.words, env=os.environ | self.environment, stdout=log, stderr=log, cwd="/tmp")

    def finish(self):
        started = time.monotonic()
        if self.start().wait():
            sys.exit(f"{self.name} failed: {self.folder.with_suffix('.log').read_text()[-2000:]}")
        return time.monotonic() - started

    def marks(self, stage):
        """The files that say that a stage has begun, and that it is done."""
        run = self.folder / "mini-visa"
        return run / "notebooks" / f"{stage}.failed.ipynb", run / "stages" / f"{stage}.json"

    def kill(self, stage, seconds, rng):
        """Start it, and kill it within the `seconds` of a stage; returns whether the stage was not done by then."""
        begun, done = self.marks(stage)
        if done.is_file():
            return False
        begun.unlink(missing_ok=True)
        process = self.start()
        while stage and not (begun.is_file() or done.is_file()) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, seconds))
        hit = process.poll() is None and not done.is_file()
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        kernels = [p for p in below if "ipykernel_launcher" in " ".join(p.cmdline())]
        for kernel in kernels[: rng.randint(0, 1)]:
            kernel.kill()
        process.kill()
        process.wait()
        time.sleep(1.5 if kernels else 0)  # an orphaned kernel notices within a second
        return hit


def attack(whole, make, kills, rng):
    """Kill a command, a few times in each of its stages, and let it finish, until it was killed often enough."""
    seconds, expected = {"": whole.finish()}, results(whole.folder)
    for stage in filter(None, whole.stages):
        seconds[stage] = json.loads(whole.marks(stage)[1].read_text())["seconds"]
    hits, odd, left, rounds = Counter(), Counter(), [], 0
    while sum(hits.values()) < kills:
        command, rounds = make(rounds), rounds + 1
        for stage in command.stages:
            hits[stage] += sum(command.kill(stage, seconds[stage], rng) for _ in range(IN_A_ROUND))
        command.finish()
        found = results(command.folder)
        odd.update(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        left += [f for f in command.folder.rglob("*") if ".partial" in f.name]
    if odd or left:
        print("different:", odd, "left over:", left, file=sys.stderr)
    for stage in whole.stages:
        row = {"stage": f"{whole.name} {stage}".strip(), "kills": hits[stage], "rounds": rounds, "files": len(expected)}
        row |= {"different": len(odd), "left_over": len(left), "seconds_undisturbed": round(seconds[stage], 1)}
        print(row, flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder to write kills.csv and kills.json into")
    options = parser.parse_args()
    rng, rows = random.Random(options.seed), []
    with tempfile.TemporaryDirectory(prefix="visa-kill-") as scratch:
        folder = Path(scratch)
        root = write_mini_visa(folder / "VisA", ("fryum",), normal=60, anomaly=20, size=96, workers=1)
        visa, places = [sys.executable, "-m", "visa_spd"], {"PYTHONPATH": str(CHECKOUT), "VISA_ROOT": str(root)}
        places["VISA_DATA"] = str(folder / "data")
        archive = serve(root)

        def download(number):
            here = folder / f"download{number}"
            return Command("download", [sys.executable, "-c", DOWNLOAD, str(here / "VisA"), *archive], here, places)

        def prepare(number):
            here, options = folder / f"prepare{number}", ["--data-folder", str(root), "--workers", "1"]
            return Command("prepare", [*visa, "prepare", *options, "--save-folder", str(here / "tree")], here, places)

        def run(number):
            here = folder / f"run{number}"
            return Command("run", [*visa, *RUN.split()], here, places | {"VISA_RUNS": str(here)}, STAGES)

        for make, share in ((download, 0.15), (prepare, 0.15), (run, 0.7)):
            rows += attack(make("whole"), make, share * options.kills, rng)
    print(f"{sum(row['kills'] for row in rows)} kills")
    if options.out:
        about = {"script": "tests/faults/kill.py", "seed": options.seed, "rows": rows, "machine": machine()}
        write_rows(options.out / "kills.csv", COLUMNS, rows)
        write_text(options.out / "kills.json", json.dumps(about, indent=1) + "\n")
    sys.exit(any(row["different"] or row["left_over"] for row in rows))


if __name__ == "__main__":
    main()
