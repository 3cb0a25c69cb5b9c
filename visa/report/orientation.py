"""What the first notebook shows: the notebooks and their questions, the machine, and what a run costs on it."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from visa.paths import runs_root
from visa.provenance import machine

_FACTS = ("question", "input", "output", "cost")  # bold words at the top of each notebook


def notebook_facts(folder: Path) -> pd.DataFrame:
    """A row a notebook of `folder`, by its name and in order: `title`, `question`, `input`, `output`, `cost`."""
    rows = {file.stem: _facts(file) for file in sorted(folder.glob("*.ipynb"))}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["title", *_FACTS])


def expected_cost(notebooks: Sequence[str], stages: pd.DataFrame) -> pd.DataFrame:
    """How often a plan starts each of its `notebooks`, and what that costs by earlier runs.

    stages: columns `notebook` and `seconds`, as `run_stages` gives them. Columns of the result: `runs`, `seconds` of
    one run (the mean) and `minutes` of all; the last two are NaN where there was no earlier run.
    """
    runs = pd.Series(notebooks, dtype=str).value_counts(sort=False).sort_index()
    seconds = stages.groupby("notebook")["seconds"].mean().reindex(runs.index).astype(float)
    return pd.DataFrame({"runs": runs, "seconds": seconds, "minutes": runs * seconds / 60}).rename_axis("notebook")


def machine_facts() -> "pd.Series[str]":
    """Cores, memory, GPU and free disk space, and the versions that matter most."""
    about = machine()
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    runs_root().mkdir(parents=True, exist_ok=True)
    facts = {
        "processor": f"{about['cpu']}, {about['cores']} cores",
        "memory": f"{pages * page / 2**30:.0f} GiB",
        "GPU": _gpu(),
        "free for runs": f"{shutil.disk_usage(runs_root()).free / 2**30:.0f} GiB",
        "Python": about["python"],
        "PyTorch": about["libraries"]["torch"],
    }
    return pd.Series(facts)


def _facts(file: Path) -> list[str]:
    text = "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])
    title = text.splitlines()[0].lstrip("# ")
    found = {name.lower(): value for name, value in re.findall(r"^\*\*(\w+)\.\*\* (.*?)\\?$", text, re.M)}
    return [title, *(found.get(name, "") for name in _FACTS)]


def _gpu() -> str:
    import torch  # tables need no torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
