"""`visa prepare` as a command against a plain script that does the same. Goal: 2.5x its CPU time, 5x its wall time.

    VISA_ROOT=/data/VisA python benchmarks/prepare.py --objects fryum --out runs/benchmarks/prepare.json

The plain script does what VisA's `prepare_data.py` is known to do, in one process: it copies the images, and decodes,
binarises and encodes the masks with Pillow. Both are measured as commands, from the start of Python to its end, and
take turns, `--repeats` times, each into a new folder; CPU seconds (user and system) and wall seconds are the least of
the repeats. Without VISA_ROOT mini-VisA is rendered with pictures of 1,024 x 1,024 pixels, not counted.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

GOALS = {"cpu": 2.5, "wall": 5.0}


def plain(root: Path, save: Path, split_type: str, objects: list[str]) -> None:
    """The tree, made in the plainest way."""
    import numpy as np
    from PIL import Image

    with (root / "split_csv" / f"{split_type}.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["object"] in objects]
    for row in rows:
        kind = "good" if row["label"] == "normal" else "bad"
        folder = save / split_type / row["object"]
        images = folder / row["split"] / kind
        masks = folder / "ground_truth" / ("bad" if split_type == "1cls" else f"{row['split']}/bad")
        images.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / row["image"], images / Path(row["image"]).name)
        if row["mask"]:
            masks.mkdir(parents=True, exist_ok=True)
            mask = np.array(Image.open(root / row["mask"]))
            mask[mask != 0] = 255
            Image.fromarray(mask).save(masks / Path(row["mask"]).name)


def commands(root: Path, save: Path, split_type: str, objects: str, workers: list[int]) -> dict[str, list[str]]:
    visa = [sys.executable, "-m", "visa_spd", "prepare", "--split-type", split_type]
    visa += ["--data-folder", str(root), "--save-folder", str(save), "--objects", objects, "--workers"]
    script = [sys.executable, __file__, "--plain", str(root), str(save), split_type, objects]
    return {"plain script": script} | {f"visa prepare, {n} workers": [*visa, str(n)] for n in workers}


def measured(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a command, with the start of its process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def measure(root: Path, options: argparse.Namespace, scratch: Path) -> list[dict[str, object]]:
    taken: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(options.repeats + 1):  # the first warms the disk
        save = scratch / f"save{repeat}"
        for name, command in commands(root, save, options.split_type, options.objects, options.workers).items():
            taken.setdefault(name, []).append(measured(command))
            shutil.rmtree(save)
    best = {name: [min(column) for column in zip(*times[1:], strict=True)] for name, times in taken.items()}
    plain_cpu, plain_wall = best["plain script"]
    return [
        {"command": n, "cpu_s": cpu, "wall_s": wall, "cpu_ratio": plain_cpu / cpu, "wall_ratio": plain_wall / wall}
        for n, (cpu, wall) in best.items()
    ]


def report(root: Path, options: argparse.Namespace, rows: list[dict[str, object]]) -> None:
    from visa.provenance import machine, write_text

    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))
    print(f"goals: {GOALS['cpu']} x CPU with any number of workers, {GOALS['wall']} x wall with two")
    if options.out:
        asked = {name: str(value) for name, value in vars(options).items() if name not in ("plain", "scratch", "out")}
        data = "mini-VisA" if (root / "dataset.json").is_file() else "VisA"
        record = {"asked": asked, "data": data, "goals": GOALS, "load": os.getloadavg(), "rows": rows}
        write_text(options.out, json.dumps(record | {"machine": machine()}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", nargs=4, metavar=("ROOT", "SAVE", "SPLIT_TYPE", "OBJECTS"), help=argparse.SUPPRESS)
    parser.add_argument("--split-type", default="1cls")
    parser.add_argument("--objects", default="fryum", help="separated by commas")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="side of mini-VisA's pictures, where it is rendered")
    parser.add_argument("--scratch", help="folder to write in: on the images' disk, as links want it")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    if options.plain:
        root, save, split_type, objects = options.plain
        return plain(Path(root), Path(save), split_type, objects.split(","))
    named = os.environ.get("VISA_ROOT")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        root = Path(named) if named else rendered(Path(scratch), options)
        report(root, options, measure(root, options, Path(scratch)))


def rendered(scratch: Path, options: argparse.Namespace) -> Path:
    from visa.mini.writer import write_mini_visa

    return write_mini_visa(scratch / "mini", options.objects.split(","), 100, 40, options.size, progress=True)


if __name__ == "__main__":
    main()
