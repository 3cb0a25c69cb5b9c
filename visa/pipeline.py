"""The plan of a run: its stages in order, the key of each, and which of them are up to date."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import visa
from visa.data.setups import SETUPS, obstacle
from visa.data.source import Source
from visa.detect import DETECTORS
from visa.errors import VisaError, named_values
from visa.paths import notebooks_root
from visa.pretrain import METHODS
from visa.pretrain import VERSION as PRETRAIN_VERSION
from visa.provenance import digest, file_digest, folder_fingerprint, read_sidecar
from visa.runs import Run, folder_scope

Settings = Mapping[str, object]

# The version of a notebook (default: 1): raise it when a change of the package changes its results; its stages and
# their dependents then run again. Pre-trainings and detectors have their own versions in visa.pretrain and visa.detect.
VERSIONS: dict[str, int] = {}
_PARAMETERS = {  # what a notebook takes as a parameter; any other setting goes into its parameter `set`
    "03_pretrain": ("pretrain_root", "weights", "arch", "steps", "epochs", "device"),
    "04_score": ("draws", "device"),
}
_PLANNED = ("object", "method", "spd", "seed", "run", "visa_root", "pretraining", "scope", "detectors", "setups")
DEFAULT_DETECTORS = tuple(name for name, entry in DETECTORS.items() if entry.default)
UNTRAINED = ("random", "given")
_TRAINED = (f"{method}{spd}" for method in METHODS for spd in ("", "+spd"))
PRETRAININGS = (*UNTRAINED, *(name for name in _TRAINED if name != "auxiliary"))  # auxiliary needs SPD
DEFAULT_PRETRAININGS = ("random", "simsiam", "simsiam+spd")
ADAPTATIONS = ("given", "auxiliary+spd", "simsiam", "simsiam+spd")  # the default for given weights


@dataclass(frozen=True)
class Stage:
    """One execution of a notebook.

    `reads` names the stages whose outputs it needs, `data` the objects whose files it needs. `page`: the book shows its
    executed copy.
    """

    notebook: str
    name: str
    parameters: Settings
    outputs: tuple[Path, ...]
    reads: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    page: bool = False


@dataclass(frozen=True)
class GivenWeights:
    """Weights from elsewhere, `NAME=ARCH:FILE`: a name for tables, an arch, and a local file."""

    name: str
    arch: str
    file: Path

    @classmethod
    def parse(cls, text: str) -> "GivenWeights":
        """Read `imagenet=resnet50:resnet50.pth`; raises VisaError for another form or a missing file."""
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
        untrained = UNTRAINED[bool(self.pretrain.get("weights"))]
        if other := set(UNTRAINED) & set(self.pretrainings) - {untrained}:
            what = "are given" if untrained == "given" else "are not given (--pretrain weights=FILE)"
            raise VisaError(f"weights {what}, so that there is no pre-training {other.pop()!r}: take {untrained!r}.")
        for file in filter(None, (self.pretrain.get("weights"), self.pretrain.get("pretrain_root"))):
            if not Path(str(file)).expanduser().exists():
                raise VisaError(f"there is no {str(file)!r}: check the path given with --pretrain.")


def plan(source: Source, run: Run, matrix: Matrix) -> list[Stage]:
    """List every stage of the matrix in dependency order.

    With scope `all`, or on a folder (`pretrain_root`), one pre-training serves all objects; with `object`, each object
    has its own. Stages that share a seed start from the same initial weights, so that pre-trainings can be paired.
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
    read = tuple(stage.name for stage in (*stages[2:], *scores))
    settings: Settings = {**common, "scope": _shared_scope(matrix) or "object"}
    results = Stage("05_results", "results", settings, (run.results_dir / "metrics.csv",), read, page=True)
    return [*stages, *scores, results]


def _pretrain_stages(run: Run, matrix: Matrix, common: Settings) -> list[Stage]:
    shared = _shared_scope(matrix)
    scopes = [shared] if shared else list(matrix.objects)
    keys = [(p, scope, seed) for scope in scopes for seed in matrix.seeds for p in matrix.pretrainings]
    shown = (matrix.pretrainings[-1], scopes[0], matrix.seeds[0]) if matrix.pretrainings else None
    stages = []
    for pretraining, scope, seed in keys:
        method, _, spd = pretraining.partition("+")
        parameters = {"object": "all" if shared else scope, "method": method, "spd": bool(spd), "seed": seed}
        outputs = (run.pretrain_dir(pretraining, scope, seed) / "backbone.safetensors",)
        name, data = f"pretrain-{pretraining}-{scope}-seed{seed}", () if shared else (scope,)
        settings = {**common, **_parameters("03_pretrain", matrix.pretrain), **parameters}
        page = (pretraining, scope, seed) == shown
        stages.append(Stage("03_pretrain", name, settings, outputs, data=data, page=page))
    return stages


def _parameters(notebook: str, values: Settings) -> Settings:
    own = {name: value for name, value in values.items() if name in _PARAMETERS[notebook]}
    rest = ",".join(f"{name}={value}" for name, value in values.items() if name not in own)
    return {**own, "set": rest} if rest else own


def _shared_scope(matrix: Matrix) -> str:
    """Return the scope of the one pre-training for all objects; empty if each object has its own."""
    if folder := str(matrix.pretrain.get("pretrain_root", "")):
        return folder_scope(folder)
    return "all" if matrix.scope == "all" else ""


def _score_stages(run: Run, matrix: Matrix, common: Settings) -> list[Stage]:
    lists = {"detectors": ",".join(matrix.detectors), "setups": ",".join(matrix.setups)}
    arch = {"arch": matrix.pretrain["arch"]} if "arch" in matrix.pretrain else {}
    given = {w.name: {"arch": w.arch, "weights": str(w.file)} for w in matrix.weights}
    stages: list[Stage] = []
    for object, seed, name in product(matrix.objects, matrix.seeds, (*matrix.pretrainings, *given)):
        scope = "given" if name in given else _shared_scope(matrix) or object
        outputs = (run.score_dir(object, name, scope, seed) / "metrics.csv",)
        reads = () if name in given else (f"pretrain-{name}-{scope}-seed{seed}",)
        own = {"object": object, "pretraining": name, "scope": scope, "seed": seed, **given.get(name, arch)}
        settings = {**common, **_parameters("04_score", matrix.score), **lists, **own}
        page = len(stages) == max(0, len(matrix.pretrainings) - 1)
        title = f"score-{object}-{name}-{scope}-seed{seed}"
        stages.append(Stage("04_score", title, settings, outputs, reads, (object,), page))
    return stages


@dataclass(frozen=True)
class Job:
    """A stage with everything that its execution needs, on this machine or another.

    `key` is the digest of what its result depends on, `version` the version of the package that planned it.
    """

    stage: Stage
    run: Run
    key: str
    dataset: str
    synthetic: bool
    version: str = visa.__version__

    @property
    def stamp_file(self) -> Path:
        """The JSON file in which the finished stage records what made it, and how long it took."""
        return self.run.root / "stages" / f"{self.stage.name}.json"

    @property
    def executed(self) -> Path:
        """The executed copy of its notebook."""
        return self.run.root / "notebooks" / f"{self.stage.name}.ipynb"

    def stamp(self) -> dict[str, Any]:
        """Read `stamp_file` of an earlier execution; empty if there was none."""
        return read_sidecar(self.stamp_file.with_suffix("")) or {}

    def output_digests(self) -> dict[str, str]:
        """Compute the digest of each existing output, by file name."""
        return {output.name: file_digest(output) for output in self.stage.outputs if output.is_file()}

    def is_current(self) -> bool:
        """Tell whether the stage ran with this key, and its outputs have not changed since."""
        stamp = self.stamp()
        made = (stamp.get("key"), stamp.get("outputs"))
        return self.executed.is_file() and made == (self.key, self.output_digests())


def make_jobs(stages: Sequence[Stage], source: Source, run: Run) -> list[Job]:
    """Make a job for every stage of a plan, in its order.

    A key is the digest of all that a stage's result depends on: the notebook's cells, parameters, data, versions, and
    the keys of the stages it reads. It is known before anything runs.
    """
    data, of_file, of_folder = cache(source.fingerprint), cache(file_digest), cache(folder_fingerprint)
    of_cells = cache(_cells_digest)  # a matrix has thousands of stages, of five notebooks
    jobs: dict[str, Job] = {}
    for stage in stages:
        weights, folder = stage.parameters.get("weights"), stage.parameters.get("pretrain_root")
        parts = {
            "notebook": of_cells(stage.notebook),
            "versions": _versions(stage),
            "parameters": dict(stage.parameters),
            "data": data(*stage.data),
            "reads": [jobs[name].key for name in stage.reads],
            "weights": of_file(Path(str(weights)).expanduser()) if weights else "",
            "pretrain_root": of_folder(Path(str(folder)).expanduser(), times=False) if folder else "",
        }
        jobs[stage.name] = Job(stage, run, digest(parts), source.name, source.synthetic)
    return list(jobs.values())


def listing(jobs: Sequence[Job], current: Collection[str]) -> str:
    """Format the plan, one line per stage: whether it would run, and how long its last run took."""
    lines = []
    for job in jobs:
        state = "up to date" if job.stage.name in current else "to run"
        seconds = job.stamp().get("seconds")
        lines.append(f"{job.stage.name}  {state}" + (f", took {seconds:.0f} s" if seconds is not None else ""))
    return "\n".join(lines)


def check_parameters(stages: Sequence[Stage]) -> None:
    """Raise VisaError if a stage sets a parameter or setting that its notebook lacks, before anything runs."""
    import papermill  # slow to import, and not needed for help and other commands

    for notebook, text in {(s.notebook, str(s.parameters["set"])) for s in stages if "set" in s.parameters}:
        _check_settings(notebook, named_values(text.split(",")))
    for notebook in dict.fromkeys(s.notebook for s in stages):
        known = papermill.inspect_notebook(str(notebooks_root() / f"{notebook}.ipynb"))
        given = {name for s in stages if s.notebook == notebook for name in s.parameters}
        if unknown := sorted(given - known.keys()):
            raise VisaError(f"notebook {notebook} has no parameter {unknown[0]!r}: it has {', '.join(known)}.")


def _check_settings(notebook: str, values: Settings) -> None:
    from visa.detect.shared import score_settings  # imports torch, which few plans need
    from visa.pretrain.settings import configured

    _ = configured("simsiam", True, values) if notebook == "03_pretrain" else score_settings(0, values)


def _cells_digest(notebook: str) -> str:
    """Compute the digest of a notebook's cells without outputs and metadata."""
    cells = json.loads((notebooks_root() / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    return digest([(cell["cell_type"], "".join(cell["source"])) for cell in cells])


def _versions(stage: Stage) -> list[int]:
    """List the versions of notebook, pre-training and detectors that a stage's result depends on."""
    trained = [PRETRAIN_VERSION] if stage.notebook == "03_pretrain" else []
    detectors = str(stage.parameters.get("detectors", ""))
    return [VERSIONS.get(stage.notebook, 1), *trained, *(DETECTORS[d].version for d in detectors.split(",") if d)]
