"""A run: one folder with every file that was made from one data set."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from visa.data.objects import OBJECTS
from visa.data.source import Source
from visa.data.splits import PLAIN_NAME, RESERVED
from visa.errors import VisaError
from visa.paths import existing_folder, runs_root
from visa.provenance import write_text

FORMAT = 2  # of a run's files; visa 0.1 wrote none into run.json
_PARTS = ("train", "val", "images")  # names of folders that say nothing about the data
_TAKEN = (*OBJECTS, *RESERVED)


@dataclass(frozen=True)
class Run:
    """The folders of a run.

    `pretraining` is a name such as random, simsiam or simsiam+spd. `scope` says what it was trained on: an object,
    all objects (`all`), or the name of an image folder; it is `given` for weights from elsewhere.
    """

    root: Path

    def pretrain_dir(self, pretraining: str, scope: str, seed: int) -> Path:
        """Return the folder of `backbone.safetensors`, `curves.csv` and `diagnosis.json`."""
        return self.root / "pretrain" / _part(pretraining) / _part(scope) / f"seed{seed}"

    def score_dir(self, object: str, pretraining: str, scope: str, seed: int) -> Path:
        """Return the folder of `metrics.csv` and of `<setup>/<detector>/draw<n>/scores.npz`, which holds the maps."""
        return self.root / "scores" / _part(object) / _part(pretraining) / _part(scope) / f"seed{seed}"

    @property
    def results_dir(self) -> Path:
        """The folder of the tables over everything in the run."""
        return self.root / "results"


def open_run(name: str, data: Source | str, make: bool = True) -> Run:
    """Open the run `name` (default: the data set's name) below the runs folder; create a new one if `make` is true.

    For a pre-training on a folder of images, `data` is its scope, which any run may hold. Raises VisaError for a name
    that is not a plain folder name, and if the run holds results of visa 0.1 or of another data set, so that results
    of mini-VisA and of VisA never mix.
    """
    if name and not re.fullmatch(PLAIN_NAME, name):
        raise VisaError(
            f"run {name!r} is not a plain folder name: use at most 60 letters, digits, '.', '+', '-' and '_'."
        )
    dataset, synthetic = (data, False) if isinstance(data, str) else (data.name, data.synthetic)
    run = Run(runs_root() / (name or dataset.lower()))
    about = run.root / "run.json"
    if not about.is_file():
        if make:
            made_from = {"dataset": dataset, "synthetic": synthetic, "format": FORMAT}
            write_text(about, json.dumps(made_from, indent=1) + "\n")
        return run
    made_from = json.loads(about.read_text(encoding="utf-8"))
    if made_from.get("format") != FORMAT:
        raise VisaError(
            f"{run.root} holds results of visa 0.1, which this version cannot continue: delete it, or give "
            "another name (visa run --name, parameter `run`)."
        )
    if not isinstance(data, str) and (made_from["dataset"], made_from["synthetic"]) != (dataset, synthetic):
        raise VisaError(
            f"run {run.root.name!r} holds results of {made_from['dataset']}, not of {dataset}: "
            "give another name (visa run --name, parameter `run`), so that they do not mix."
        )
    return run


def folder_scope(folder: str, name: str = "") -> str:
    """Return the scope of a pre-training on a folder of images: `name`, else the folder's name (`imagenet-train`).

    Raises VisaError if the folder is missing, `name` is not a plain folder name, or the scope has another meaning.
    """
    root = existing_folder(folder)
    if root is None:
        raise VisaError(f"there is no folder {folder!r} to pre-train on: check the path.")
    own = f"{root.parent.name}-{root.name}" if root.name.lower() in _PARTS and root.parent.name else root.name
    scope = name or own
    if scope in ("", *_TAKEN) or (name and not re.fullmatch(PLAIN_NAME, name)):
        raise VisaError(
            f"the images of {folder!r} cannot be called {scope!r}, which has another meaning or is not a plain "
            "name: rename the folder, or give another name (visa pretrain --dataset)."
        )
    return scope


def _part(name: str) -> str:
    """Return `name` if it can name a folder in a run; otherwise raise VisaError."""
    if not name or name.startswith(".") or len(os.fsencode(name)) > 200 or any(sign in name for sign in "/\\\0"):
        raise VisaError(f"{name[:60]!r} cannot name an object, a pre-training or a data set: check it.")
    return name


def pretraining_name(method: str, spd: bool) -> str:
    """Return the name of a pre-training: `simsiam+spd` for SimSiam with SPD, `simsiam` without."""
    return f"{method}+spd" if spd else method
