"""What scheduling costs: time a stage and memory of planner, scheduler and worker, for plans of up to 10,000 stages.

The plan is the paper's own matrix on 12 objects (or what of it the root holds), with as many seeds as make it large
enough. The stages do nothing, so that what remains is planning, currentness, walking, and Dask. Each case runs in a
process of its own; times are CPU seconds, of this process with the scheduler in it, and of the workers.

`python benchmarks/scheduling.py --out book/results/cluster`
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil

from visa.cluster import dask_pool
from visa.data.objects import OBJECTS
from visa.data.source import Source
from visa.mini.writer import write_mini_visa
from visa.pipeline import PRETRAININGS, Matrix, plan
from visa.provenance import file_digest, machine, write_text
from visa.runner import current_stages, make_jobs, stamp_file
from visa.runs import Run
from visa.schedule import execute

SIZES = (100, 1_000, 10_000)
OBJECT = "fryum"  # rendered once; the others are links to it
A_SEED = len(PRETRAININGS) * (1 + len(OBJECTS))  # pre-trainings on all objects, and scorings of each


def nothing(job):
    return 0.0


def silent(sentence):
    pass


def busy(processes):
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def memory(process):
    return process.memory_info().rss


def clock():
    return time.process_time(), time.monotonic()


def make_root(folder):
    """A root of twelve objects with stub-size images."""
    root = write_mini_visa(folder / "VisA", [OBJECT], normal=12, anomaly=4, size=64, workers=1)
    for name in OBJECTS:
        if name != OBJECT:
            (root / name).symlink_to(root / OBJECT)
    return root


def one_row(stages, workers, root):
    source = Source(Path(root), "mini-VisA", True, tuple(OBJECTS))
    own, run = psutil.Process(), Run(Path(root).parent / "runs" / "r")
    start = clock()
    seeds = range(max(1, round(stages / A_SEED)))
    jobs = make_jobs(plan(source, run, Matrix(list(OBJECTS), PRETRAININGS, seeds=seeds, scope="all")), source, run)
    row = {"stages": len(jobs), "workers": workers, "plan_cpu_s": clock()[0] - start[0]}
    # A page's executed copy goes to the book: there is none here.
    jobs = [replace(job, stage=replace(job.stage, page=False)) for job in jobs]
    if workers:
        return row | on_workers(jobs, workers, own)
    begun = clock()
    execute(jobs, run=nothing, say=silent)
    ended = clock()
    for job in jobs:
        finish(job)
    again = clock()
    assert len(current_stages(jobs)) == len(jobs)
    row |= {"walk_cpu_s": ended[0] - begun[0], "walk_s": ended[1] - begun[1]}
    return row | {"check_cpu_s": clock()[0] - again[0], "peak_bytes": memory(own)}


def finish(job):
    """Leave what a finished stage leaves, as far as the next run looks at it: stamp, output and executed copy."""
    (output,) = job.stage.outputs
    executed = job.run.root / "notebooks" / f"{job.stage.name}.ipynb"
    for file in (output, executed):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(job.stage.name)
    write_text(
        stamp_file(job.stage, job.run), json.dumps({"key": job.key, "outputs": {output.name: file_digest(output)}})
    )


def on_workers(jobs, workers, own):
    with dask_pool(workers) as pool:
        processes = [p for p in own.children(recursive=True) if any("spawn_main" in a for a in p.cmdline())]
        execute(jobs[:2], pool=pool, run=nothing, say=silent)  # whatever is done once
        cpu, begun = busy(processes), clock()
        execute(jobs, pool=pool, run=nothing, say=silent)
        ended = clock()
        return {
            "walk_cpu_s": ended[0] - begun[0],
            "walk_s": ended[1] - begun[1],
            "workers_cpu_s": busy(processes) - cpu,
            "peak_bytes": memory(own),
            "worker_bytes": max(memory(p) for p in processes),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a folder to write scheduling.json into")
    parser.add_argument("--most", type=int, default=max(SIZES), help="leave out larger plans")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", help=argparse.SUPPRESS)  # one row, as JSON
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_row(*json.loads(options.case))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = make_root(Path(scratch))
        env = os.environ | {"VISA_RUNS": f"{scratch}/runs", "VISA_DATA": f"{scratch}/data", "OMP_NUM_THREADS": "1"}
        for size in [s for s in SIZES if s <= options.most]:
            for workers in (0, options.workers):
                command = [sys.executable, __file__, "--case", json.dumps([size, workers, str(root)])]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(pd.DataFrame(rows).to_string(index=False), flush=True)
    if options.out:
        record = {
            "script": "benchmarks/scheduling.py",
            "data": "stages that do nothing",
            "rows": rows,
            "load": round(os.getloadavg()[2], 1),
            "machine": machine(),
        }
        write_text(options.out / "scheduling.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
