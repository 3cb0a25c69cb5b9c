"""The `visa` command: thin verbs over the package's functions."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from visa import cli_pretrain, cli_score
from visa.cli_pretrain import Workers
from visa.cli_text import chosen, number, object_names, parse_settings, parts
from visa.errors import VisaError, check_choice
from visa.paths import data_root, runs_root

if TYPE_CHECKING:
    from visa.runner import Job
    from visa.schedule import Outcome

app = typer.Typer(
    help="Research companion to VisA and SPD: data, pre-training, scoring, metrics, book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

P = ParamSpec("P")
Objects = Annotated[str, typer.Option(help="Objects, separated by commas, or all.")]


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function a command, which ends in one sentence where it is interrupted."""

    @wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("visa: interrupted; give the same command again.", err=True)
            raise typer.Exit(130) from None

    app.command()(told)
    return function


@command
def download(
    destination: Annotated[Path | None, typer.Argument(help="Folder of the VisA root; default: data/VisA.")] = None,
) -> None:
    """Fetch VisA (1.8 GB), check it, and unpack it. A broken download continues where it stopped."""
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

    reports = check(root, object_names(objects), workers=workers, progress=True)
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
    save_folder: Annotated[Path, typer.Option(help="Where the tree is made.")] = Path("./VisA_pytorch"),
    split_file: Annotated[Path | None, typer.Option(help="Default: the root's own split file.")] = None,
    objects: Objects = "all",
    link: Annotated[bool, typer.Option(help="Hard-link the images where possible, else copy.")] = True,
    workers: Workers = None,
) -> None:
    """Write the train/test tree of VisA's own script, with binary masks."""
    from visa.data.prepare import prepare as make

    summary = make(
        split_type,
        data_folder,
        save_folder,
        split_file,
        objects=object_names(objects),
        link=link,
        workers=workers,
        progress=True,
    )
    typer.echo(f"{summary.folder}: {summary.written} files written, {summary.kept} up to date")
    if summary.absent:
        typer.echo(f"absent: {', '.join(summary.absent)} (no folder in {data_folder}), left out")
    if summary.unmasked:
        typer.echo(f"{summary.unmasked} anomalies have no mask: only whole images can be judged by them")


@command
def splits(
    root: Annotated[Path, typer.Argument(help="A folder of your own data without split files.")],
) -> None:
    """Write the splits that a folder of your own stands for as split_csv/, to see and to edit."""
    from visa.data.prepare import write_splits

    for file in write_splits(root):
        typer.echo(file)


@command
def synth(
    root: Annotated[Path | None, typer.Argument(help="Folder of the new VisA root; default: one below data/.")] = None,
    objects: Objects = "all",
    normal: Annotated[int, typer.Option(min=1, help="Normal images of an object.")] = 90,
    anomaly: Annotated[int, typer.Option(min=1, help="Anomalous images of an object.")] = 30,
    scale: Annotated[float, typer.Option(help="Instead: this share of VisA's own numbers and splits, up to 1.")] = 0.0,
    size: Annotated[int, typer.Option(min=64, help="Side of the square images, in pixels.")] = 256,
    seed: int = 0,
    difficulty: Annotated[float, typer.Option(help="Above 1 for subtler defects, below 1 for plainer ones.")] = 1.0,
    workers: Workers = None,
) -> None:
    """Render mini-VisA: synthetic images in the layout of VisA, a new VISA_ROOT."""
    from visa.mini import MODULES, write_mini_visa

    names = object_names(objects) or tuple(MODULES)
    count = f"scale{scale:g}" if scale else f"{normal}+{anomaly}"
    folder = root or data_root() / f"mini-visa-{count}-{size}px-seed{seed}-difficulty{difficulty:g}"
    try:
        typer.echo(write_mini_visa(folder, names, normal, anomaly, size, seed, workers, True, difficulty, scale))
    except ValueError as error:
        raise VisaError(str(error)) from error


for _command in (
    cli_pretrain.pretrain,
    cli_pretrain.export,
    cli_score.fit,
    cli_score.score,
    cli_score.browser,
):
    command(_command)


@command
def run(
    objects: Annotated[
        str | None, typer.Option(help="Separated by commas, or all; default: all, or four of mini-VisA's objects.")
    ] = None,
    pretrainings: Annotated[
        str, typer.Option(help="Of random, and simsiam, mocov2, simclr, supervised, each also with +spd.")
    ] = "random,simsiam,simsiam+spd",
    detectors: Annotated[
        str, typer.Option(help="Of padim, patchcore, probe, and the slower classifier and unet.")
    ] = "padim,patchcore,probe",
    setups: Annotated[
        str, typer.Option(help="Of 1cls (padim, patchcore), 2cls_highshot, 2cls_10shot, 2cls_5shot (the others).")
    ] = "1cls,2cls_highshot,2cls_10shot,2cls_5shot",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    scope: Annotated[str, typer.Option(help="Pre-train on each object, or once on all.")] = "object",
    weights: Annotated[list[str] | None, typer.Option(help="Other weights to score: NAME=ARCH:FILE.")] = None,
    pretrain: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of 03_pretrain's parameters.")] = None,
    score: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of 04_score's parameters.")] = None,
    ablation: Annotated[bool, typer.Option("--ablation", help="Run the ablation on the first object, too.")] = False,
    name: Annotated[str, typer.Option(help="The run's folder; default: the data set's name.")] = "",
    workers: Annotated[int, typer.Option(min=0, help="Processes that run stages side by side; 0: none.")] = 0,
    scheduler: Annotated[str, typer.Option(help="Run on the workers of the Dask scheduler at this address.")] = "",
    timeout: Annotated[float, typer.Option(min=0, help="Minutes after which a stage counts as hung; 0: never.")] = 0,
    retries: Annotated[int, typer.Option(min=0, help="Tries more for a stage that was lost with its worker.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the stages and their cost, and stop.")] = False,
) -> None:
    """Run all notebooks in order, from images to tables; what is up to date is skipped."""
    from visa import forecast
    from visa.data.setups import SETUPS
    from visa.data.source import default_objects, open_source
    from visa.detect import DETECTORS
    from visa.plan import PRETRAININGS, GivenWeights, Matrix, plan
    from visa.runner import check_parameters, current_stages, make_jobs
    from visa.runs import open_run

    check_choice("scope", scope, ("object", "all"))
    names = object_names(",".join(default_objects()) if objects is None else objects)
    source = open_source("", names or ["all"])
    matrix = Matrix(
        objects=[source.check_object(o) for o in names or source.objects],
        pretrainings=chosen("pretraining", pretrainings, PRETRAININGS),
        detectors=chosen("detector", detectors, tuple(DETECTORS)),
        setups=chosen("setup", setups, SETUPS),
        seeds=[number("seed", s) for s in parts(seeds)],
        scope=scope,
        weights=[GivenWeights.parse(text) for text in weights or ()],
        pretrain=parse_settings(pretrain),
        score=parse_settings(score),
        ablation=ablation,
    )
    target = open_run(name, source, make=False)
    stages = plan(source, target, matrix)
    check_parameters(stages)
    jobs = make_jobs(stages, source, target, timeout * 60 or None)
    current = current_stages(jobs)
    if dry_run:
        typer.echo("\n".join(stage.name for stage in stages))
    typer.echo(forecast.report(forecast.forecast(jobs, current, runs_root(), source.synthetic), target.root.name))
    if dry_run:
        return
    open_run(name, source)  # made now that the plan is known to be sound
    outcome = _carry_out(jobs, current, workers, scheduler, retries)
    done = f"{outcome.ran} of {len(stages)} stages ran on {source.name}"
    if outcome.failed:
        left = f"; {len(outcome.left_out)} that read their results were left out" if outcome.left_out else ""
        typer.echo(f"visa: {done}, and {len(outcome.failed)} failed{left}:", err=True)
        for sentence in outcome.failed.values():
            typer.echo(f"  {sentence}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{done}, the rest was up to date. Results: {target.root}")


def _carry_out(jobs: "list[Job]", current: set[str], workers: int, scheduler: str, retries: int) -> "Outcome":
    """Run a plan in this process or on workers; an interruption ends in a sentence and exit code 130."""
    from visa.cluster import dask_pool
    from visa.paths import locked
    from visa.schedule import InProcess, execute

    stop = _Interruption()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        pools = dask_pool(workers, scheduler) if workers or scheduler else nullcontext(InProcess())
        with locked(jobs[0].run.root), pools as pool:
            return execute(jobs, current, pool, retries, interrupted=lambda: stop.requested)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # it would tell of the kernel that was just stopped
        typer.echo("visa: interrupted; the same command goes on from here.", err=True)
        raise typer.Exit(130) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one sentence and exit code 2."""
    warnings.filterwarnings("ignore", module="PIL")  # of palettes and very large images, which are read all the same
    try:
        app(args=arguments)
    except VisaError as error:
        typer.echo(f"visa: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        what = str(error.strerror or error).removesuffix(".")
        typer.echo(f"visa: {what}{_where(error)}. Check the path, the disk and permissions.", err=True)
        sys.exit(2)


def _where(error: OSError) -> str:
    """What an error is about: of two files the one that is written, of a partial file its folder."""
    name = str(error.filename2 or error.filename or "")
    if ".partial." in name:
        name = name.partition(".partial.")[0].rpartition(os.sep)[0]
    name = name if len(name) <= 300 else f"{name[:300]}..."
    return f": {name}" if name else ""


class _Interruption:
    """A signal handler that interrupts, and remembers that it was asked to."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
        raise KeyboardInterrupt
