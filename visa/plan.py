"""The stages of a run, in order: which notebook runs with which parameters, and what it reads and writes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from visa.data.setups import SETUPS, obstacle
from visa.data.source import Source
from visa.detect import DETECTORS
from visa.errors import VisaError
from visa.pretrain import METHODS
from visa.runs import Run, folder_scope

Settings = Mapping[str, object]

# Costly stages leave out the code that only draws or frames them: a new colour is no reason to train again.
_FRAME = ("report", "notebook.py", "runs.py")
_CODE = {
    "00_start": ("data", "plan.py", *_FRAME),
    "01_data": ("data", *_FRAME),
    "02_prepare": ("data", *_FRAME),
    "03_pretrain": ("data", "pretrain", "backbone.py"),
    "04_score": ("data", "detect", "backbone.py", "metrics"),
    "05_results": ("data", "metrics", "detect/scores.py", *_FRAME),
    "06_ablation": ("data", "pretrain", "detect", "backbone.py", "metrics"),
}
_ABLATION_TAKES = ("pretrain_root", "arch", "epochs", "batch_size", "image_size", "base_lr", "device", "precision")
_PLANNED = ("object", "method", "spd", "seed", "run", "visa_root", "pretraining", "scope", "detectors", "setups")
DEFAULT_DETECTORS = tuple(name for name, entry in DETECTORS.items() if entry.default)
PRETRAININGS = ("random", *(f"{method}{spd}" for method in METHODS for spd in ("", "+spd")))
DEFAULT_PRETRAININGS = ("random", "simsiam", "simsiam+spd")


@dataclass(frozen=True)
class Stage:
    """One execution of a notebook.

    `reads` names the stages whose outputs it needs; `data` the objects whose files it needs; `code` the parts of the
    package whose change makes it stale; `page`: its executed copy is the one that the book shows. `folders` belong to
    it alone; what else it writes are its outputs and their sidecars. `whole_run`: it reads whatever the run holds.
    """

    notebook: str
    name: str
    parameters: Settings
    outputs: tuple[Path, ...]
    reads: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    page: bool = False
    folders: tuple[Path, ...] = ()
    whole_run: bool = False

    @property
    def code(self) -> tuple[str, ...]:
        """Parts of the package that the notebook's result depends on."""
        return _CODE[self.notebook]

    def moved(self, old: Path, new: Path) -> "Stage":
        """The same stage of the run's folder at another place."""
        outputs, folders = (
            tuple(new / path.relative_to(old) for path in paths) for paths in (self.outputs, self.folders)
        )
        return replace(self, outputs=outputs, folders=folders)


@dataclass(frozen=True)
class GivenWeights:
    """Weights from elsewhere, `NAME=ARCH:FILE`: a name for tables, an arch, and a local file."""

    name: str
    arch: str
    file: Path

    @classmethod
    def parse(cls, text: str) -> "GivenWeights":
        """Read `imagenet=resnet50:resnet50.pth`; raises VisaError for another form or an absent file."""
        name, _, rest = text.partition("=")
        arch, _, file = rest.partition(":")
        if not (arch and file and re.fullmatch(r"\w[\w.+-]*", name)) or name in PRETRAININGS:
            raise VisaError(
                f"weights {text!r} are not of the form NAME=ARCH:FILE, as in imagenet=resnet50:w.pth, with a new name."
            )
        path = Path(file).expanduser().resolve()
        if not path.is_file():
            raise VisaError(f"weights {name!r}: there is no file {file!r}.")
        return cls(name, arch, path)


@dataclass(frozen=True)
class Matrix:
    """What a run covers, and the notebooks' settings that differ from their defaults."""

    objects: Sequence[str]
    pretrainings: Sequence[str] = DEFAULT_PRETRAININGS
    detectors: Sequence[str] = DEFAULT_DETECTORS
    setups: Sequence[str] = SETUPS
    seeds: Sequence[int] = (0,)
    scope: str = "object"
    weights: Sequence[GivenWeights] = ()
    pretrain: Settings = field(default_factory=dict)
    score: Settings = field(default_factory=dict)
    ablation: bool = False

    def __post_init__(self) -> None:
        named = {"objects": self.objects, "detectors": self.detectors, "setups": self.setups, "seeds": self.seeds}
        named["weights"] = [w.name for w in self.weights]
        for what, values in named.items():
            if len(set(values)) != len(values) or (not values and what != "weights"):
                raise VisaError(f"{what} are {', '.join(map(str, values)) or 'none'}: name at least one, each once.")
        if not all(0 <= seed < 2**31 for seed in self.seeds):
            raise VisaError(f"seeds are {', '.join(map(str, self.seeds))}: give whole numbers from 0 to 2^31 - 1.")
        for setting in (*self.pretrain, *self.score):
            if setting in _PLANNED or (setting == "weights" and setting in self.score):
                raise VisaError(f"setting {setting!r} belongs to the plan: visa run has an option of its own for it.")
        for file in filter(None, (self.pretrain.get("weights"), self.pretrain.get("pretrain_root"))):
            if not Path(str(file)).expanduser().exists():
                raise VisaError(f"there is no {str(file)!r}: check the path given with --pretrain.")


def plan(source: Source, run: Run, matrix: Matrix) -> list[Stage]:
    """Every stage of the matrix, each after those that it reads.

    With scope `all`, and on a folder (`pretrain_root`), one pre-training serves all objects; with `object` each object
    has its own. Stages that share a seed start from the same initial weights: pre-trainings are compared in pairs.
    Raises VisaError for an object that has too few images for every setup, before anything is trained for it.
    """
    for name in matrix.objects:
        if all(obstacle(source, name, setup) for setup in matrix.setups):
            reason = obstacle(source, name, matrix.setups[0])
            others = " Name the other objects with --objects." if matrix.objects[1:] else ""
            raise VisaError(f"{reason}{others} visa fit and visa score need normal images alone; visa pretrain, any.")
    common = {"visa_root": "" if source.synthetic else source.address or str(source.root), "run": run.root.name}
    chosen = {**common, "objects": ",".join(matrix.objects)}
    data = tuple(matrix.objects)
    stages = [
        Stage("01_data", "data", chosen, (run.root / "data" / "verify.csv",), data=data, page=True),
        Stage("02_prepare", "prepare", chosen, (run.root / "data" / "prepare.json",), data=data, page=True),
    ]
    stages += _pretrain_stages(run, matrix, common)
    scores = _score_stages(run, matrix, common)
    results = Stage(
        "05_results",
        "results",
        {**common, "scope": _shared_scope(matrix) or "object"},
        (run.results_dir / "metrics.csv",),
        reads=tuple(s.name for s in stages if s.notebook == "03_pretrain") + tuple(s.name for s in scores),
        page=True,
        folders=(run.results_dir,),
        whole_run=True,
    )
    start = Stage(  # last: it tells what the others took
        "00_start",
        "start",
        {**chosen, "seeds": len(matrix.seeds)},
        (),
        reads=(results.name,),
        data=data,
        page=True,
        whole_run=True,
    )
    return [*stages, *scores, results, *([_ablation_stage(run, matrix, common)] if matrix.ablation else []), start]


def _pretrain_stages(run: Run, matrix: Matrix, common: Settings) -> list[Stage]:
    shared = _shared_scope(matrix)
    scopes = [shared] if shared else list(matrix.objects)
    keys = [(p, scope, seed) for scope in scopes for seed in matrix.seeds for p in matrix.pretrainings]
    shown = (matrix.pretrainings[-1], scopes[0], matrix.seeds[0]) if matrix.pretrainings else None
    stages = []
    for pretraining, scope, seed in keys:
        method, _, spd = pretraining.partition("+")
        parameters = {"object": "all" if shared else scope, "method": method, "spd": bool(spd), "seed": seed}
        folder = run.pretrain_dir(pretraining, scope, seed)
        stages.append(
            Stage(
                "03_pretrain",
                f"pretrain-{pretraining}-{scope}-seed{seed}",
                {**common, **matrix.pretrain, **parameters},
                (folder / "backbone.safetensors",),
                folders=(folder,),
                data=() if shared else (scope,),
                page=(pretraining, scope, seed) == shown,
            )
        )
    return stages


def _ablation_stage(run: Run, matrix: Matrix, common: Settings) -> Stage:
    seeds = ",".join(map(str, matrix.seeds))
    taken = {k: v for k, v in matrix.pretrain.items() if k in _ABLATION_TAKES}
    parameters = {**common, **taken, "object": matrix.objects[0], "seeds": seeds}
    output = run.results_dir / "ablation.csv"
    folders = (run.root / "ablation",)
    return Stage(
        "06_ablation", "ablation", parameters, (output,), data=(matrix.objects[0],), page=True, folders=folders
    )


def _shared_scope(matrix: Matrix) -> str:
    """What one pre-training for all objects was trained on; empty where each object has its own."""
    if folder := str(matrix.pretrain.get("pretrain_root", "")):
        return folder_scope(folder)
    return "all" if matrix.scope == "all" else ""


def _score_stages(run: Run, matrix: Matrix, common: Settings) -> list[Stage]:
    lists = {"detectors": ",".join(matrix.detectors), "setups": ",".join(matrix.setups)}
    shared = {**common, **matrix.score, **lists}
    arch = {"arch": matrix.pretrain["arch"]} if "arch" in matrix.pretrain else {}
    stages = []
    for object in matrix.objects:
        scope = _shared_scope(matrix) or object
        for seed in matrix.seeds:
            for pretraining in matrix.pretrainings:
                own = {**shared, **arch, "object": object, "pretraining": pretraining, "scope": scope, "seed": seed}
                reads = (f"pretrain-{pretraining}-{scope}-seed{seed}",)
                stages.append(_score_stage(run, own, reads))
            for given in matrix.weights:
                own = {"object": object, "pretraining": given.name, "scope": "given", "seed": seed}
                weights = {"arch": given.arch, "weights": str(given.file)}
                stages.append(_score_stage(run, {**shared, **own, **weights}, ()))
    return [replace(s, page=i == max(0, len(matrix.pretrainings) - 1)) for i, s in enumerate(stages)]


def _score_stage(run: Run, parameters: dict[str, object], reads: tuple[str, ...]) -> Stage:
    object, pretraining, seed = str(parameters["object"]), str(parameters["pretraining"]), int(str(parameters["seed"]))
    folder = run.score_dir(object, pretraining, str(parameters["scope"]), seed)
    return Stage(
        "04_score",
        f"score-{object}-{pretraining}-{parameters['scope']}-seed{seed}",
        parameters,
        (folder / "metrics.csv",),
        folders=(folder,),
        reads=reads,
        data=(object,),
    )
