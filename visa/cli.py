"""The `visa` command: each subcommand calls the package's functions, which are imported where they are used."""

import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn, ParamSpec

import typer

from visa.detect import DETECTORS
from visa.errors import VisaError, check_choice, named_values
from visa.paths import data_root, locked, runs_root
from visa.pretrain import DEFAULT, DEFAULT_ADAPTATION, METHODS

if TYPE_CHECKING:
    from torch import nn

    from visa.execute import Outcome
    from visa.pipeline import Job

NOT_NORMAL = ("bad", "masks", "test", "ground_truth")  # folders without normal training images
DEFAULT_DETECTORS = ",".join([name for name, entry in DETECTORS.items() if entry.default])
P = ParamSpec("P")
Objects = Annotated[str, typer.Option(help="Objects, separated by commas, or all.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Parallel workers; default: one per core.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
RunName = Annotated[str, typer.Option("--name", help="The run's folder; default: the data set's name.")]
Values = Annotated[list[str] | None, typer.Option("--set", help="Set a setting, NAME=VALUE; others stay as published.")]

app = typer.Typer(
    help="Research companion to VisA and SPD: data, pre-training, scoring, metrics, book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a function as a command that prints one sentence if it is interrupted."""

    @wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("visa: interrupted; run the same command again.", err=True)
            raise typer.Exit(130) from None

    app.command()(told)
    return function


@command
def download(
    destination: Annotated[Path | None, typer.Argument(help="Folder of the VisA root; default: data/VisA.")] = None,
) -> None:
    """Fetch VisA (1.8 GB), check it, and unpack it. An interrupted download resumes."""
    from visa.data.archive import download as fetch

    root = fetch(destination or data_root() / "VisA")
    typer.echo(f"VisA is at {root}. Now: export VISA_ROOT={root}")


@command
def verify(
    root: Annotated[Path, typer.Argument(help="A VisA root, or a folder of your own data.")],
    objects: Objects = "all",
    workers: Workers = None,
) -> None:
    """Check a root: annotations, split files, images and masks. Exit code 1 if something is wrong."""
    from visa.data.verify import verify as check

    reports = check(root, _object_names(objects), workers=workers, progress=True)
    for report in reports:
        counts = f"{report.normal} normal, {report.anomaly} anomaly, {len(report.errors)} errors"
        typer.echo(f"{report.object}: {'absent' if report.absent else counts}")
        for finding in report.errors:
            typer.echo(f"  error: {finding}")
        for finding in report.warnings:
            typer.echo(f"  warning: {finding}")
    if any(report.errors for report in reports):
        raise typer.Exit(1)


@command
def prepare(
    split_type: Annotated[str, typer.Option(help="1cls, 2cls_highshot or 2cls_fewshot.")] = "1cls",
    data_folder: Annotated[Path, typer.Option(help="The VisA root.")] = Path("./VisA"),
    save_folder: Annotated[Path, typer.Option(help="Folder for the tree.")] = Path("./VisA_pytorch"),
    split_file: Annotated[Path | None, typer.Option(help="Default: the root's own split file.")] = None,
    objects: Objects = "all",
    link: Annotated[bool, typer.Option(help="Hard-link the images where possible, else copy.")] = True,
    workers: Workers = None,
) -> None:
    """Write the train/test tree of VisA's own script, with binary masks."""
    from visa.data.prepare import prepare as make

    names = _object_names(objects)
    summary = make(split_type, data_folder, save_folder, split_file, names, link, workers, progress=True)
    typer.echo(f"{summary.folder}: {summary.written} files written, {summary.kept} up to date")
    if summary.absent:
        typer.echo(f"absent: {', '.join(summary.absent)} (no folder in {data_folder}), left out")
    if summary.unmasked:
        typer.echo(f"{summary.unmasked} anomalies have no mask: only whole images can be judged by them")


@command
def splits(root: Annotated[Path, typer.Argument(help="A folder of your own data without split files.")]) -> None:
    """Write the splits of your own data to split_csv/, where you can edit them."""
    from visa.data.prepare import write_splits

    for file in write_splits(root):
        typer.echo(file)


@command
def synth(
    root: Annotated[Path | None, typer.Argument(help="Folder of the new VisA root; default: one below data/.")] = None,
    objects: Objects = "all",
    normal: Annotated[int, typer.Option(min=1, help="Normal images per object.")] = 90,
    anomaly: Annotated[int, typer.Option(min=1, help="Anomalous images per object.")] = 30,
    scale: Annotated[float, typer.Option(help="Instead: a share, up to 1, of VisA's image counts and splits.")] = 0.0,
    size: Annotated[int, typer.Option(min=64, help="Side of the square images, in pixels.")] = 256,
    seed: int = 0,
    difficulty: Annotated[float, typer.Option(help="Above 1 for subtler defects, below 1 for plainer ones.")] = 1.0,
    workers: Workers = None,
) -> None:
    """Render mini-VisA: synthetic images in the layout of VisA, a new VISA_ROOT."""
    from visa.mini import MODULES, write_mini_visa

    names = _object_names(objects) or tuple(MODULES)
    count = f"scale{scale:g}" if scale else f"{normal}+{anomaly}"
    folder = root or data_root() / f"mini-visa-{count}-{size}px-seed{seed}-difficulty{difficulty:g}"
    try:
        typer.echo(write_mini_visa(folder, names, normal, anomaly, size, seed, workers, True, difficulty, scale))
    except ValueError as error:
        raise VisaError(str(error)) from error


@command
def pretrain(
    object: Annotated[str, typer.Option(help="Train on the normal images of an object, or of all.")] = "all",
    images: Annotated[str, typer.Option(help="Train on an ImageNet-style folder of classes instead.")] = "",
    dataset: Annotated[str, typer.Option(help="Name for that folder's images; default: the folder's name.")] = "",
    method: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(METHODS)}; default: {DEFAULT}, with --weights {DEFAULT_ADAPTATION}."),
    ] = "",
    arch: Annotated[str, typer.Option(help="A network of torchvision, or timm/NAME; default: resnet50.")] = "",
    weights: Annotated[str, typer.Option(help="Start from the weights in this file, not from random ones.")] = "",
    spd: Annotated[bool, typer.Option(help="Add the SPD term.")] = True,
    setting: Values = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes here, one per device (several GPUs: untested).")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Number of machines.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, 32-true or bf16-mixed.")] = "auto",
    workers: Workers = None,
    name: RunName = "",
) -> None:
    """Pre-train on one or more devices and machines; after an interruption, the same command resumes."""
    from visa.data.source import open_source
    from visa.pretrain.fabric import make_fabric
    from visa.pretrain.images import folder_data, training_data
    from visa.pretrain.run import run_pretraining
    from visa.pretrain.settings import configured
    from visa.runs import folder_scope, open_run, pretraining_name

    given = {name: value for name, value in (("arch", arch), ("weights", weights)) if value}
    chosen = {**named_values(setting), **given, "seed": seed}
    method = method or (DEFAULT_ADAPTATION if chosen.get("weights") else DEFAULT)
    settings = configured(method, spd, chosen)
    if dataset and not images:
        raise VisaError("dataset names a folder's images: give the folder with --images.")
    source = None if images else open_source("", [] if object == "all" else [object])
    if source and object != "all":
        source.check_object(object)
    run = open_run(name, source or folder_scope(images, dataset))
    fabric, side = make_fabric(device, devices, nodes), settings.image_size
    data = training_data(source, object, "", side) if source else folder_data(images, side, dataset, workers)
    folder = run.pretrain_dir(pretraining_name(method, spd), data.scope, seed)
    run_pretraining(settings, data, folder, fabric, precision)
    if fabric.is_global_zero:
        typer.echo(f"weights, curves and diagnosis: {folder}")


@command
def export(
    weights: Annotated[Path, typer.Argument(help="backbone.safetensors of a finished pre-training.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the weights and their model card.")],
) -> None:
    """Write weights that torchvision, timm and anomalib load, with a model card."""
    from visa.export import export as write

    typer.echo(write(weights, destination))


@command
def fit(
    weights: Annotated[Path, typer.Option(help="The backbone: .safetensors, or a .pth state dict.")],
    out: Annotated[Path, typer.Option(help="The file to write, such as part.safetensors.")],
    images: Annotated[Path | None, typer.Argument(help="A folder of normal images, searched recursively.")] = None,
    object: Annotated[str, typer.Option(help="Instead: the normal training images of this object of VISA_ROOT.")] = "",
    detector: Annotated[str, typer.Option(help="padim or patchcore.")] = "patchcore",
    arch: Annotated[str, typer.Option(help="The backbone's architecture; default: as the weights record.")] = "",
    size: Annotated[str, typer.Option(help="Size that images are resized to: HEIGHTxWIDTH in pixels.")] = "224x224",
    layers: Annotated[str, typer.Option(help="Of layer1 to layer4, comma-separated; default: the paper's.")] = "",
    setting: Values = None,
    false_alarms: Annotated[float, typer.Option(help="Share of normal images that may exceed the threshold.")] = 0.05,
    adapt: Annotated[bool, typer.Option("--adapt", help="First adapt the weights by SPD on the folder.")] = False,
    device: Device = "auto",
) -> None:
    """Fit a detector on normal images and write it, with its backbone and a threshold, to one file."""
    from visa.backbone import load_backbone, pick_device, weights_metadata
    from visa.detect.deploy import fit_detector, save_detector

    if out.suffix != ".safetensors":
        raise VisaError(f"{out} does not end in .safetensors: give it that suffix.")
    if out.is_dir() or not os.access(next(p for p in out.absolute().parents if p.exists()), os.W_OK):
        raise VisaError(f"{out} cannot be written: name a file in a folder where you may write.")
    if adapt and object:
        raise VisaError(f"--adapt takes a folder: adapt by visa pretrain --object {object}, which sees no test image.")
    files = _normal_images(images, object)
    arch = arch or weights_metadata(weights).get("settings", {}).get("arch", "")
    if not arch:
        raise VisaError(f"{weights} does not record its architecture: give --arch.")
    backbone = load_backbone(arch, weights).to(pick_device(device))
    sides, stages, settings = _size(size), _parts(layers), named_values(setting)
    prepare = partial(_adapt, backbone, weights, arch, out.with_name(f"{out.stem}-adapted"), device) if adapt else None
    fitted = fit_detector(detector, arch, backbone, files, sides, stages, settings, false_alarms, prepare, True)
    save_detector(out, fitted)
    typer.echo(f"{out}: {detector} on {arch}, {fitted.made['images']} images of {size}")
    typer.echo(f"threshold {fitted.threshold:.6g}: {fitted.rule}")


@command
def score(
    images: Annotated[Path, typer.Argument(help="An image, or a folder that is searched recursively.")],
    detector: Annotated[Path, typer.Option(help="A file that visa fit wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write scores.csv and heat/ to.")] = Path("visa-scores"),
    device: Device = "auto",
) -> None:
    """Score images; write a table and heat maps over the images. Exit code 1 if an image cannot be read."""
    from visa.backbone import pick_device
    from visa.detect.deploy import load_detector, score_files

    fitted = load_detector(detector, str(pick_device(device)))
    summary = score_files(fitted, images, out, progress=True)
    typer.echo(f"{summary.table}: {summary.scored} images scored, {summary.anomalous} of them anomalous")
    typer.echo(f"threshold {fitted.threshold:.6g}: {fitted.rule}")
    if summary.unreadable:
        for error in summary.unreadable:
            typer.echo(f"  unreadable: {error.encode('utf-8', 'backslashreplace').decode()}", err=True)
        typer.echo(f"visa: {len(summary.unreadable)} images could not be read.", err=True)
        raise typer.Exit(1)


@command
def browser(name: Annotated[str, typer.Argument(help="The run's folder; default: the data set's name.")] = "") -> None:
    """Build the defect browser of a run from its scores on disk, as notebook 04 does after each scoring."""
    from visa.data.source import open_source
    from visa.report.browser.build import build_browser
    from visa.runs import open_run

    if name and not (runs_root() / name).is_dir():
        raise VisaError(f"there is no run {name!r} in {runs_root()}: name a folder there, or omit it.")
    source = open_source()
    typer.echo(build_browser(open_run(name, source, make=False).root, source))


@command
def run(
    objects: Annotated[
        str | None, typer.Option(help="Separated by commas, or all; default: all, or four of mini-VisA's objects.")
    ] = None,
    pretrainings: Annotated[
        str,
        typer.Option(
            help=f"Of random, given (--pretrain weights=FILE), {', '.join(METHODS)}; append +spd to add the SPD term."
        ),
    ] = "",
    detectors: Annotated[str, typer.Option(help=f"Of {', '.join(DETECTORS)}.")] = DEFAULT_DETECTORS,
    setups: Annotated[
        str, typer.Option(help="Of 1cls (for padim, patchcore), 2cls_highshot, 2cls_10shot, 2cls_5shot (for others).")
    ] = "1cls,2cls_highshot,2cls_10shot,2cls_5shot",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    scope: Annotated[str, typer.Option(help="object: pre-train on each object; all: once on all.")] = "object",
    weights: Annotated[list[str] | None, typer.Option(help="Other weights to score: NAME=ARCH:FILE.")] = None,
    pretrain: Annotated[list[str] | None, typer.Option(help="Set a setting of the pre-trainings, NAME=VALUE.")] = None,
    score: Annotated[list[str] | None, typer.Option(help="Set a setting of the scoring, NAME=VALUE.")] = None,
    name: RunName = "",
    workers: Annotated[int, typer.Option(min=1, help="Stages to run in parallel on this machine.")] = 1,
    scheduler: Annotated[str, typer.Option(help="Instead: run on the Dask scheduler's workers at this address.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List stages and their durations; run none.")] = False,
) -> None:
    """Run all notebooks in order, from images to tables; stages that are up to date are skipped."""
    from visa import pipeline
    from visa.data.setups import SETUPS
    from visa.data.source import default_objects, open_source
    from visa.runs import open_run

    check_choice("scope", scope, ("object", "all"))
    names = _object_names(",".join(default_objects()) if objects is None else objects)
    source = open_source("", names or ["all"])
    trained = named_values(pretrain)
    usual = pipeline.ADAPTATIONS if trained.get("weights") else pipeline.DEFAULT_PRETRAININGS
    matrix = pipeline.Matrix(
        objects=[source.check_object(o) for o in names or source.objects],
        pretrainings=_chosen("pretraining", pretrainings or ",".join(usual), pipeline.PRETRAININGS),
        detectors=_chosen("detector", detectors, tuple(DETECTORS)),
        setups=_chosen("setup", setups, SETUPS),
        seeds=[_number("seed", s) for s in _parts(seeds)],
        scope=scope,
        weights=[pipeline.GivenWeights.parse(text) for text in weights or ()],
        pretrain=trained,
        score=named_values(score),
    )
    target = open_run(name, source, make=False)
    stages = pipeline.plan(source, target, matrix)
    pipeline.check_parameters(stages)
    jobs = pipeline.make_jobs(stages, source, target)
    current = {job.stage.name for job in jobs if job.is_current()}
    if dry_run:
        typer.echo(pipeline.listing(jobs, current))
    typer.echo(f"plan for {target.root.name}: {len(jobs)} stages, {len(jobs) - len(current)} to run")
    if dry_run:
        return
    open_run(name, source)  # creates the run, now that the plan has passed its checks
    outcome = _carry_out(jobs, current, workers, scheduler)
    done = f"{outcome.ran} of {len(stages)} stages ran on {source.name}"
    if outcome.failed:
        left = f"; {len(outcome.left_out)} dependents were skipped" if outcome.left_out else ""
        typer.echo(f"visa: {done}, and {len(outcome.failed)} failed{left}:", err=True)
        for sentence in outcome.failed.values():
            typer.echo(f"  {sentence}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{done}, the rest were up to date. Results: {target.root}")


def _carry_out(jobs: "list[Job]", current: set[str], workers: int, scheduler: str) -> "Outcome":
    """Run a plan here or on a scheduler's workers; an interruption prints one sentence and exits with code 130."""
    from visa.execute import execute, on_dask, on_threads

    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    run = jobs[0].run.root
    try:
        with locked(run), on_dask(run, scheduler) if scheduler else on_threads(run, workers) as submit:
            return execute(jobs, current, submit)
    except KeyboardInterrupt:
        typer.echo("visa: interrupted; run the same command to resume.", err=True)
        raise typer.Exit(130) from None


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Interrupt once; a second signal is ignored, so that it cannot keep the first one from stopping the kernels."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake prints one sentence and exits with code 2."""
    warnings.filterwarnings("ignore", module="PIL")  # palettes and very large images are read all the same
    try:
        app(args=arguments)
    except VisaError as error:
        typer.echo(f"visa: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        name = re.sub(r"/[^/]*\.partial\..*", "", str(error.filename2 or error.filename or ""))[:300]
        what = str(error.strerror or error).removesuffix(".")
        typer.echo(f"visa: {what}{name and f': {name}'}. Check the path, the disk and permissions.", err=True)
        sys.exit(2)


def _normal_images(folder: Path | None, object: str) -> list[Path]:
    from visa.data.source import open_source
    from visa.detect.deploy import image_files

    if (folder is None) == (not object):
        raise VisaError("give a folder of normal images, or an object with --object, and not both.")
    if folder is not None:
        inside = (d for name in NOT_NORMAL for pattern in (name, f"*/{name}") for d in folder.glob(pattern))
        if other := next(filter(Path.is_dir, inside), None):
            raise VisaError(f"{folder} holds {other}, which is not for normal images: name the folder of good ones.")
        return image_files(folder)
    source = open_source("", [object])
    samples = source.samples("1cls", object=source.check_object(object), split="train", label="normal")
    return [source.root / s.image for s in samples]


def _adapt(
    backbone: "nn.Module", weights: Path, arch: str, folder: Path, device: str, files: Sequence[Path]
) -> dict[str, object]:
    """Adapt a backbone by SPD on normal images, resuming from a checkpoint in `folder`; return the diagnosis."""
    import torch

    from visa.backbone import load_weights
    from visa.data.dataset import load_images
    from visa.data.splits import Sample
    from visa.pretrain.fabric import make_fabric
    from visa.pretrain.images import HELD_OUT_LEAST, ImagesInMemory, TrainingData, held_out_of
    from visa.pretrain.run import run_pretraining
    from visa.pretrain.settings import configured
    from visa.provenance import digest, read_sidecar

    if len(files) < 2 * HELD_OUT_LEAST:
        raise VisaError(f"{len(files)} normal images are too few to adapt weights to: give {2 * HELD_OUT_LEAST}.")
    settings = configured(DEFAULT_ADAPTATION, True, {"arch": arch, "weights": str(weights)})
    samples = [Sample("", "train", "normal", str(file.absolute()), "") for file in files]
    images = load_images(Path(), samples, (settings.image_size * 9 // 8,) * 2, progress=True)
    judged = torch.isin(torch.arange(len(images)), torch.tensor(held_out_of(len(images))))
    content, name = digest([image.sum((1, 2)).tolist() for image in images]), folder.name
    data = TrainingData(ImagesInMemory(images[~judged]), images[judged], name, name, False, content)
    run_pretraining(settings, data, folder, make_fabric(device))
    load_weights(backbone, folder / "backbone.safetensors")
    found = (read_sidecar(folder / "backbone.safetensors") or {})["diagnosis"]
    told = f"SPD's classifier is {found['term']:.0%} right on held-out views (chance 50%)"
    typer.echo(f"{folder}: adapted on {len(data.images)} images; {told}")
    if not found["learned"]:
        typer.echo("visa: the adaptation was not learned: fit without --adapt, or give more images.", err=True)
    return {"adapted": found}


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise VisaError(f"size {text!r} is not of the form HEIGHTxWIDTH, as in 224x336.")
    return int(sides[0]), int(sides[1])


def _parts(text: str) -> list[str]:
    """Split a text at its commas; empty parts are dropped."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _object_names(objects: str) -> list[str] | None:
    """List the named objects, each once; None stands for all. Raises VisaError if none is named."""
    names = None if objects == "all" else list(dict.fromkeys(_parts(objects)))
    if names == []:
        raise VisaError("no object is given: name objects separated by commas, or all.")
    return names


def _chosen(what: str, text: str, choices: Sequence[str]) -> list[str]:
    """List the choices that a text names; raises VisaError if it names none, or an unknown one."""
    names = _parts(text)
    if not names:
        raise VisaError(f"no {what} is given: choose from {', '.join(choices)}.")
    for value in names:
        check_choice(what, value, choices)
    return names


def _number(what: str, text: str) -> int:
    """Read a whole number from a text; raises VisaError for any other text."""
    try:
        return int(text)
    except ValueError:
        raise VisaError(f"{what} {text!r} is not a whole number.") from None
