"""Kill a stage with SIGKILL at random moments until it is done, and compare its files with an undisturbed run's.

    OMP_NUM_THREADS=1 python tests/faults/kill.py prepare synth --kills 40 --out book/results/faults

Stages are download, prepare, synth, pretrain, score, run and book. A moment is drawn evenly from the stage's own
duration, after its imports where the stage is a function (it runs in a forked child), from the whole process where it
is a command. After at most `--at-once` kills it is left to finish; then its files are compared, and it begins anew.
Writes a row a stage into kills.csv, with kills.json beside it. Called again with another `--seed`, a stage's counts are
added to those that stand there.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from stages import STAGES, Stage, digests, launch, left_over

from visa.provenance import machine, write_rows, write_text

COUNTS = ("kills", "finished", "different", "left_over", "failed")
COLUMNS = ("stage", "kills", "finished", "files", "different", "left_over", "failed", "seconds_undisturbed")


def undisturbed(stage: Stage, shared: Path, folder: Path) -> float:
    """Run the stage to its end and return its seconds."""
    started, poll = time.monotonic(), launch(stage, shared, folder)
    while (code := poll()) is None:
        time.sleep(0.002)
    if code:
        sys.exit(f"the undisturbed run failed: {(folder.parent / f'{folder.name}.log').read_text()[-2000:]}")
    return time.monotonic() - started


def disturbed(stage: Stage, shared: Path, folder: Path, seconds: float, rng: random.Random, at_once: int) -> int:
    """Start and kill the stage until it is done; returns the kills. Raises ChildProcessError if a start fails."""
    kills = 0
    while True:
        moment = rng.uniform(0, seconds) if kills < at_once else float("inf")
        started, poll = time.monotonic(), launch(stage, shared, folder)
        while (code := poll()) is None and time.monotonic() - started < moment:
            time.sleep(0.001)
        if code == 0:
            return kills
        if code is not None:
            raise ChildProcessError(f"start {kills} ended with {code}")
        os.killpg(launch.group, signal.SIGKILL)
        while poll() is None:
            time.sleep(0.001)
        kills += 1


def attack(name: str, kills: int, at_once: int, seed: int, folder: Path) -> dict[str, object]:
    """One row of the table."""
    stage, rng = STAGES[name], random.Random(f"{name} {seed}")
    shared = folder / "shared"
    shared.mkdir(parents=True)
    stage.begin(shared)
    seconds = undisturbed(stage, shared, folder / "whole")
    whole = digests(folder / "whole")
    row: dict[str, object] = dict.fromkeys(COLUMNS, 0) | {"stage": name, "files": len(whole)}
    row["seconds_undisturbed"] = round(seconds, 2)
    while row["kills"] < kills:
        here = folder / f"round{row['finished']}"
        try:
            row["kills"] += disturbed(stage, shared, here, seconds, rng, min(at_once, kills - row["kills"]))
        except ChildProcessError as error:
            print(name, error, (folder / f"{here.name}.log").read_text()[-800:], file=sys.stderr)
            row["failed"] += 1
        found = digests(here)
        odd = sorted(f for f in whole.keys() | found.keys() if whole.get(f) != found.get(f))
        row["different"] += len(odd)
        row["left_over"] += len(left := left_over(here))
        row["finished"] += 1
        if odd or left:
            print(name, "different:", odd[:9], "left over:", left[:9], file=sys.stderr)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--at-once", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: dict[str, dict[str, object]] = {}
    for name in options.stages:
        with tempfile.TemporaryDirectory(prefix="visa-kill-") as folder:
            rows[name] = attack(name, options.kills, options.at_once, options.seed, Path(folder))
        print(rows[name], flush=True)
    if options.out:
        write(options.out, rows, options.seed)


def write(out: Path, rows: dict[str, dict[str, object]], seed: int) -> None:
    """Add the rows to those of other stages and seeds."""
    about = out / "kills.json"
    record = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {"rows": {}, "made": {}}
    now = machine()
    for name, row in rows.items():
        made = record["made"].setdefault(name, [])
        if seed in [portion["seed"] for portion in made]:
            sys.exit(f"{name} with seed {seed} is in {about} already: give another seed.")
        made.append({"seed": seed, "kills": row["kills"], "commit": now["commit"]})
        earlier = record["rows"].get(name, {})
        record["rows"][name] = row | {count: row[count] + earlier.get(count, 0) for count in COUNTS}
    record["rows"] = {name: record["rows"][name] for name in STAGES if name in record["rows"]}
    write_text(about, json.dumps(record | {"script": "tests/faults/kill.py", "machine": now}, indent=1) + "\n")
    write_rows(out / "kills.csv", COLUMNS, record["rows"].values())


if __name__ == "__main__":
    main()
