"""The commands around scores: a detector for the line, images scored with it, and the browser of a run's scores."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from visa.cli_text import parse_settings
from visa.errors import VisaError

NOT_NORMAL = ("bad", "masks", "test", "ground_truth")  # folders of plain objects and of MVTec-AD's
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def fit(
    weights: Annotated[Path, typer.Option(help="The backbone: .safetensors, or a .pth state dict.")],
    out: Annotated[Path, typer.Option(help="The file to write, as in part.safetensors.")],
    images: Annotated[Path | None, typer.Argument(help="A folder of normal images; all below it count.")] = None,
    object: Annotated[str, typer.Option(help="Instead: the normal training images of this object of VISA_ROOT.")] = "",
    detector: Annotated[str, typer.Option(help="padim or patchcore.")] = "patchcore",
    arch: Annotated[str, typer.Option(help="The backbone's; default: what the weights say.")] = "",
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels that images are resized to.")] = "224x224",
    layers: Annotated[str, typer.Option(help="Stages layer1 to layer4, with commas; default: the paper's.")] = "",
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of the detector's settings.")] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of normal images that may exceed the threshold.")] = 0.05,
    device: Device = "auto",
) -> None:
    """Fit a detector on normal images and write it, with its backbone and a threshold, to one file."""
    from visa.backbone import load_backbone, pick_device
    from visa.detect.deploy import fit_detector, save_detector

    if out.suffix != ".safetensors":
        raise VisaError(f"{out} does not end in .safetensors: name the file so.")
    if out.is_dir() or not os.access(next(p for p in out.absolute().parents if p.exists()), os.W_OK):
        raise VisaError(f"{out} cannot be written: name a file in a folder where you may write.")
    files = _normal_images(images, object)
    arch = arch or _arch(weights)
    backbone = load_backbone(arch, weights).to(pick_device(device))
    stages = [name.strip() for name in layers.split(",") if name.strip()]
    settings = parse_settings(setting)
    fitted = fit_detector(detector, arch, backbone, files, _size(size), stages, settings, false_alarms, progress=True)
    save_detector(out, fitted)
    typer.echo(f"{out}: {detector} on {arch}, {fitted.made['images']} images of {size}")
    typer.echo(f"threshold {fitted.threshold:.6g}: {fitted.rule}")


def score(
    images: Annotated[Path, typer.Argument(help="An image, or a folder; all images below it count.")],
    detector: Annotated[Path, typer.Option(help="A file that visa fit wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of scores.csv and heat/.")] = Path("visa-scores"),
    device: Device = "auto",
) -> None:
    """Score images: a table, and heat maps over the images. Exit code 1 if an image cannot be read."""
    from visa.backbone import pick_device
    from visa.detect.deploy import load_detector, score_files

    fitted = load_detector(detector, str(pick_device(device)))
    summary = score_files(fitted, images, out, progress=True)
    typer.echo(f"{summary.table}: {summary.scored} images scored, {summary.anomalous} of them anomalous")
    if summary.unreadable:
        for error in summary.unreadable:
            typer.echo(f"  unreadable: {error.encode('utf-8', 'backslashreplace').decode()}", err=True)
        typer.echo(f"visa: {len(summary.unreadable)} images could not be read.", err=True)
        raise typer.Exit(1)


def browser(
    name: Annotated[str, typer.Argument(help="The run's folder; default: the data set's name.")] = "",
) -> None:
    """Build the defect browser of a run from its scores on disk, as notebook 04 does after each scoring."""
    from visa.data.source import open_source
    from visa.paths import runs_root
    from visa.report.browser.build import build_browser
    from visa.runs import open_run

    if name and not (runs_root() / name).is_dir():
        raise VisaError(f"there is no run {name!r} in {runs_root()}: name a folder there, or none for the data set's.")
    source = open_source()
    typer.echo(build_browser(open_run(name, source, make=False).root, source))


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
    samples = source.samples("1cls", object=source.check_object(object), split="train")
    return [source.root / s.image for s in samples if s.label == "normal"]


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise VisaError(f"size {text!r} is not of the form HEIGHTxWIDTH, as in 224x336.")
    return int(sides[0]), int(sides[1])


def _arch(weights: Path) -> str:
    """The architecture that a pre-training's file names."""
    from safetensors import SafetensorError, safe_open

    if not weights.is_file():
        raise VisaError(f"no weights at {weights}: give the path of a .safetensors or .pth file.")
    try:
        with safe_open(weights, "pt") as file:
            arch = json.loads((file.metadata() or {})["visa"])["settings"]["arch"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        arch = None
    if not isinstance(arch, str):
        raise VisaError(f"{weights} does not say what architecture it is of: give --arch.")
    return arch
