"""A run: one folder with every file that was made from one data set."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from visa.data.source import Source
from visa.errors import VisaError
from visa.paths import runs_root
from visa.provenance import write_text


@dataclass(frozen=True)
class Run:
    """The folders of a run.

    `pretraining` is a name such as random, simsiam or simsiam+spd; `scope` says what it was trained on: an object,
    all, or the name of an image folder; `given` for weights from elsewhere.
    """

    root: Path

    def pretrain_dir(self, pretraining: str, scope: str, seed: int) -> Path:
        """Folder of `backbone.safetensors`, `curves.csv` and `diagnosis.json`."""
        return self.root / "pretrain" / pretraining / scope / f"seed{seed}"

    def score_dir(self, object: str, pretraining: str, scope: str, seed: int) -> Path:
        """Folder of `metrics.csv` and one folder a detector, with `scores.npz` and full-resolution maps."""
        return self.root / "scores" / object / pretraining / scope / f"seed{seed}"

    @property
    def results_dir(self) -> Path:
        """Folder of the tables over everything in the run."""
        return self.root / "results"


def open_run(name: str, source: Source) -> Run:
    """The run `name` (default: the data set's name) below the runs folder; made if it is new.

    Raises VisaError for a name that is no plain folder name, and if the run holds results of another data set:
    mini-VisA's and VisA's never mix.
    """
    if name and not re.fullmatch(r"\w[\w.+ -]*", name):
        raise VisaError(f"run {name!r} is no plain folder name: use letters, digits, '.', '+', '-' and '_'.")
    run = Run(runs_root() / (name or source.name.lower()))
    about = run.root / "run.json"
    if about.is_file():
        made_from = json.loads(about.read_text(encoding="utf-8"))
        if (made_from["dataset"], made_from["synthetic"]) != (source.name, source.synthetic):
            raise VisaError(
                f"run {run.root.name!r} holds results of {made_from['dataset']}, not of {source.name}: "
                "give another name (visa run --name, parameter `run`), so that they do not mix."
            )
    else:
        write_text(about, json.dumps({"dataset": source.name, "synthetic": source.synthetic}, indent=1) + "\n")
    return run


def pretraining_name(method: str, spd: bool) -> str:
    """`simsiam+spd` for SimSiam with SPD, `simsiam` without."""
    return f"{method}+spd" if spd else method
