"""Parts of the page on clusters: the run with workers being killed, and what scheduling costs."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import measured
import pandas as pd
from matplotlib import pyplot as plt
from speed_pages import MADE_ON

from visa.report import figures, tables

NO_FILE = """:::{{note}}
No such run is stored in this copy of the book: `python {script}` makes it.
:::
"""
MIB = 2**20


def parts(folder: Path) -> dict[str, str]:
    """The table of kills.json, and table and figure of scheduling.json; a note where a file is missing."""
    made = {}
    for name, script, write in (
        ("kills", "tests/faults/cluster.py", _kills),
        ("scheduling", "benchmarks/scheduling.py", _scheduling),
    ):
        file = folder / f"{name}.json"
        record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        page = "cluster_kills.md" if name == "kills" else "scheduling.md"
        made |= write(record) if record else {page: NO_FILE.format(script=f"{script} --out book/results/cluster")}
    return made


def _kills(record: dict[str, Any]) -> dict[str, str]:
    least, most = record["seconds_between_kills"]
    rows = {
        "stages": record["stages"],
        "workers": record["workers"],
        "seconds between kills": f"{least:g} to {most:g}",
        "workers killed": record["kills"]["workers"],
        "notebooks killed": record["kills"]["notebooks"],
        "files compared with the run in one process": record["files_compared"],
        "of these, different": len(record["files_different"]),
        "stages that a second run found not up to date": record["ran_again_afterwards"],
    }
    table = pd.DataFrame(rows.items(), columns=["what", "value"]).astype(str)
    return {"cluster_kills.md": tables.to_markdown(table) + _made_on(record)}


def _scheduling(record: dict[str, Any]) -> dict[str, str]:
    rows = pd.DataFrame(record["rows"])
    each = 1000 / rows["stages"]
    shown = pd.DataFrame(
        {
            "stages": rows["stages"].map("{:,}".format),
            "processes": rows["workers"],
            "plan, CPU ms a stage": rows["plan_cpu_s"] * each,
            "find all up to date": rows["check_cpu_s"] * each,
            "walk and scheduler": rows["walk_cpu_s"] * each,
            "workers": rows["workers_cpu_s"] * each,
            "plan and scheduler, MiB": rows["peak_bytes"] / MIB,
            "a worker, MiB": rows["worker_bytes"] / MIB,
        }
    )
    text = shown.map(lambda v: "" if pd.isna(v) else f"{v:.3g}" if isinstance(v, float) else v)
    with mpl.rc_context():
        figures.use_style()
        alt = "CPU seconds and memory against the number of stages, on logarithmic axes"
        caption = "CPU seconds of planning and scheduling, and memory, against the number of stages."
        file, svg, figure = measured._drawn("scheduling.svg", _lines(rows), alt, caption)
    return {"scheduling.md": tables.to_markdown(text) + _made_on(record) + "\n" + figure + _growth(rows), file: svg}


def _growth(rows: pd.DataFrame, times: int = 100) -> str:
    """What many times the largest number of stages would take with workers, if it goes on as between the last two."""
    *_, less, most = rows[rows["workers"] > 0].sort_values("stages").to_dict("records")
    memory = (most["peak_bytes"] - less["peak_bytes"]) / (most["stages"] - less["stages"])
    seconds = (most["walk_cpu_s"] - less["walk_cpu_s"]) / (most["stages"] - less["stages"])
    gigabytes, hours = (times * most["stages"] * each / unit for each, unit in ((memory, 2**30), (seconds, 3600)))
    return (
        f"\nFrom {less['stages']:,} to {most['stages']:,} stages, each takes {memory / 1024:.0f} KiB of the process "
        f"that plans and schedules, and {1000 * seconds:.1f} ms of its CPU time. "
        f"{times} times as many would take {gigabytes:.0f} GiB and {hours:.1f} hours, if it goes on like this.\n"
    )


def _lines(rows: pd.DataFrame) -> mpl.figure.Figure:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    alone, dask = rows[rows["workers"] == 0], rows[rows["workers"] > 0]
    seconds = {
        "plan": (alone, alone["plan_cpu_s"]),
        "find all up to date": (alone, alone["check_cpu_s"]),
        "walk, one process": (alone, alone["walk_cpu_s"]),
        "walk and scheduler": (dask, dask["walk_cpu_s"]),
        "workers": (dask, dask["workers_cpu_s"]),
    }
    memory = {"plan and scheduler": (dask, dask["peak_bytes"] / MIB), "a worker": (dask, dask["worker_bytes"] / MIB)}
    for axis, lines, label in zip(axes, (seconds, memory), ("CPU seconds", "memory, MiB"), strict=True):
        for marker, (name, (part, values)) in zip(figures.MARKERS, lines.items(), strict=False):
            axis.plot(part["stages"], values, marker=marker, label=name)
        axis.set(xscale="log", yscale="log", xlabel="stages", ylabel=label)
        axis.legend()
    return figure


def _made_on(record: dict[str, Any]) -> str:
    about, load = record["machine"], record.get("load", 0)
    busy = f" that other work kept at a load of {load:.0f}" if load > about["cores"] else ""
    return MADE_ON.format(**about | {"commit": (about["commit"] or "unknown")[:7], "busy": busy})
