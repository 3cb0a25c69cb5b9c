"""Tables of the page on speed, from the files that the scripts in benchmarks/ wrote."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from visa.report import tables

TABLES = {  # page part: file, its list of rows, and key of a row to its heading
    "padim": (
        "padim",
        "rows",
        {
            "positions": "positions",
            "ours_seconds": "fit, CPU s",
            "anomalib_seconds": "anomalib, CPU s",
            "times_faster": "ratio",
            "forward_share_of_fit": "forward pass in the whole fit",
            "forward_share_of_score": "in scoring",
        },
    ),
    "coreset": (
        "patchcore",
        "coreset",
        {
            "share": "coreset",
            "patches": "patches",
            "dimensions": "dimensions",
            "ours_ms_a_pick": "ms a pick",
            "anomalib_ms_a_pick": "anomalib, ms a pick",
            "times_faster": "ratio",
            "equal_picks": "equal picks",
        },
    ),
    "neighbors": (
        "patchcore",
        "neighbors",
        {
            "queries": "patches",
            "bank": "bank",
            "product_seconds": "matrix product, CPU s",
            "ours_seconds": "nearest, CPU s",
            "anomalib_seconds": "anomalib, CPU s",
            "ours_in_products": "in products",
        },
    ),
    "prepare": (
        "prepare",
        "rows",
        {"command": "command", "cpu_s": "CPU s", "cpu_ratio": "CPU ratio", "wall_ratio": "wall ratio"},
    ),
    "read_images": (
        "read_images",
        "rows",
        {
            "way": "way",
            "images_per_cpu_second": "images a CPU second",
            "ratio": "ratio",
            "mean_difference": "mean difference, grey levels",
        },
    ),
    "input": (
        "input",
        "rows",
        {
            "side": "side",
            "way": "way",
            "images_per_second": "images/s",
            "ratio": "ratio",
            "images_per_cpu_second": "images a CPU second",
            "cpu_ratio": "CPU ratio",
        },
    ),
    "augment": (
        "augment",
        "rows",
        {
            "side": "side",
            "ours_ms": "ms a view",
            "torchvision_ms": "torchvision, ms",
            "times_torchvision": "ratio",
            "kornia_ms": "kornia, ms",
            "times_kornia": "ratio to kornia",
            "blend_ms": "SmoothBlend, ms",
        },
    ),
    "step": (
        "step",
        "rows",
        {
            "pretraining": "pre-training",
            "step_ms": "step, ms",
            "bare_ms": "forward and backward, ms",
            "ratio": "share of bare images/s",
            "views_ms": "views, ms",
            "blend_percent": "SmoothBlend, % of the step",
        },
    ),
    "browser": (
        "browser",
        "rows",
        {
            "input": "input",
            "first_ms": "first time, ms",
            "median_ms": "median, ms",
            "longest_ms": "longest, ms",
            "cpu_ms": "of the page's CPU, ms",
        },
    ),
    "synth": (
        "synth",
        "rows",
        {
            "object": "object",
            "size": "pixels",
            "render": "rendered, images a CPU s",
            "write": "written, images a CPU s",
            "default_seconds": "the notebooks' images, CPU s",
        },
    ),
    "synth_whole": (
        "synth",
        "whole",
        {
            "scale": "scale",
            "images": "images",
            "images_per_cpu_second": "images a CPU s",
            "every_image": "images of VisA",
            "every_image_cpu_minutes": "those, CPU min",
        },
    ),
}
NO_FILE = """:::{{note}}
No times are stored in this copy of the book: `python benchmarks/{name}.py --out FILE` makes them.
:::
"""
MADE_ON = "\nMeasured on {cores} cores of {cpu}{busy}, commit `{commit}`.\n"


def speeds(folder: Path) -> dict[str, str]:
    """One table a benchmark, or a note where there is no file."""
    return {f"speed_{part}.md": _table(folder, *where) for part, where in TABLES.items()}


def _table(folder: Path, name: str, rows: str, columns: dict[str, str]) -> str:
    file = folder / f"{name}.json"
    if not file.is_file():
        return NO_FILE.format(name=name)
    record = json.loads(file.read_text(encoding="utf-8"))
    found = record[rows] if isinstance(record[rows], list) else [record[rows]]
    table = pd.DataFrame([{heading: _cell(row.get(key)) for key, heading in columns.items()} for row in found])
    machine = record["machine"]
    load = record.get("load", [0])[0]  # processes that ran or waited at the end
    busy = f" that other work kept at a load of {load:.0f}" if load > machine["cores"] else ""
    made_on = machine | {"commit": (machine["commit"] or "unknown")[:7], "busy": busy}
    return tables.to_markdown(table) + MADE_ON.format(**made_on)


def _cell(value: Any) -> Any:
    """Three digits, or all of a whole number's."""
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}") if isinstance(value, float) else value
