"""What a plan will cost: how many stages of each notebook, and how long by the stages that ran before."""

import csv
import json
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visa.paths import CHECKOUT
from visa.runner import Job
from visa.runs import pretraining_name

MEASURED = CHECKOUT / "book" / "results" / "fryum" / "stages.csv"
_PLACE = ("object", "objects", "seed", "scope", "run", "visa_root")  # what a stage's time hardly depends on


@dataclass(frozen=True)
class Cost:
    """Stages of one notebook: how many, how many of them are to run, and their seconds one after the other.

    `seconds` is None where no such stage was ever timed. `basis` says by what it was estimated. `on_gpu`: by stages
    that ran on one.
    """

    notebook: str
    stages: int
    to_run: int
    seconds: float | None
    basis: str
    on_gpu: bool = False


def forecast(jobs: Sequence[Job], current: Collection[str], runs: Path, synthetic: bool) -> list[Cost]:
    """The cost of each notebook's stages, in the plan's order.

    A stage takes the median time of those in any run below `runs` with the same notebook and settings, else with the
    same notebook and pre-training, else, on real images, of the table in book/results (fryum).
    """
    stamps, measured = _by_kind(_stamps(runs)), {} if synthetic else _by_kind(_measured())
    costs = []
    for notebook in dict.fromkeys(job.stage.notebook for job in jobs):
        stages = [job.stage for job in jobs if job.stage.notebook == notebook]
        to_run = [s for s in stages if s.name not in current]
        found = []
        for stage in to_run:
            same, like = _kinds(notebook, stage.parameters)
            found.append(stamps.get(same) or stamps.get(like) or measured.get(like, []))
        costs.append(_cost(notebook, len(stages), found))
    return costs


def report(costs: Sequence[Cost], name: str) -> str:
    """The plan as lines of text, a notebook each, with the sum."""
    to_run = sum(c.to_run for c in costs)
    lines = [f"plan for {name}: {sum(c.stages for c in costs)} stages, {to_run} to run"]
    for c in costs:
        lines.append(f"  {c.notebook:<12} {c.to_run:>5} of {c.stages:<5} {_told(c) if c.to_run else 'up to date'}")
    known = [c for c in costs if c.seconds is not None and c.to_run]
    if known:
        kinds = {"GPU": [c for c in known if c.on_gpu], "CPU": [c for c in known if not c.on_gpu]}
        sums = [f"{duration(sum(c.seconds or 0 for c in of))} of {kind} time" for kind, of in kinds.items() if of]
        whole = "in all" if len(known) == sum(c.to_run > 0 for c in costs) else "for what is known"
        lines.append(f"  {whole}, one stage after the other: {' and '.join(sums)}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h` or `8 days`."""
    for unit, size, digits in (("s", 1, 0), ("min", 60, 0), ("h", 3600, 1)):
        if seconds < {"s": 90, "min": 5400, "h": 172_800}[unit]:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _told(cost: Cost) -> str:
    return cost.basis if cost.seconds is None else f"about {duration(cost.seconds)} ({cost.basis})"


def _cost(notebook: str, stages: int, found: Sequence[list[Mapping[str, Any]]]) -> Cost:
    if not all(found):
        known = sum(1 for stamps in found if stamps)
        basis = f"not known: {known or 'none'} of their like were timed before"
        return Cost(notebook, stages, len(found), None, basis)
    seconds = sum(statistics.median(float(s["seconds"]) for s in stamps) for stamps in found)
    used = {s["stage"]: s for stamps in found for s in stamps}
    basis = f"by {len(used)} earlier ones"
    if any("table" in s for s in used.values()):
        basis = "by fryum in book/results, with its settings, on two cores"
    on_gpu = any(str(s.get("device", "")).startswith("cuda") for s in used.values())
    return Cost(notebook, stages, len(found), seconds, basis, on_gpu)


def _kinds(notebook: str, parameters: Mapping[str, Any]) -> tuple[str, str]:
    """What a stage is alike to: those of the same settings, and those of the same pre-training."""
    same = json.dumps({k: v for k, v in sorted(parameters.items()) if k not in _PLACE}, default=str)
    named = pretraining_name(str(parameters["method"]), bool(parameters.get("spd"))) if "method" in parameters else ""
    return f"{notebook} {same}", f"{notebook} {parameters.get('pretraining', named)}"


def _by_kind(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for kind in _kinds(record["notebook"], record["parameters"]):
            found.setdefault(kind, []).append(record)
    return found


def _stamps(runs: Path) -> Iterator[Mapping[str, Any]]:
    """What the stages of all runs left; a stamp that cannot be read says nothing."""
    for file in sorted(runs.glob("*/stages/*.json")):
        with suppress(OSError, ValueError):
            stamp = json.loads(file.read_text(encoding="utf-8"))
            if {"stage", "notebook", "parameters", "seconds"} <= stamp.keys():
                yield stamp


def _measured() -> Iterator[Mapping[str, Any]]:
    """The times that the book shows, in the form of stamps."""
    if MEASURED.is_file():
        with MEASURED.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                parameters = {"pretraining": row["pretraining"]}
                yield {**row, "parameters": parameters, "table": MEASURED.parent.name}
