"""The commands around pre-training: the training, and the weights for others."""

from pathlib import Path
from typing import Annotated

import typer

from visa.cli_text import parse_settings
from visa.errors import VisaError

Workers = Annotated[int | None, typer.Option(min=1, help="Parallel workers; default: one a core.")]


def pretrain(
    object: Annotated[str, typer.Option(help="Train on the normal images of an object, or of all.")] = "all",
    images: Annotated[str, typer.Option(help="Train on a folder of classes instead.")] = "",
    dataset: Annotated[str, typer.Option(help="What to call that folder's images; default: its name.")] = "",
    method: Annotated[str, typer.Option(help="simsiam, mocov2, simclr or supervised.")] = "simsiam",
    spd: Annotated[bool, typer.Option(help="Add the SPD term.")] = True,
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE; the rest is as published.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, one a device (several GPUs: untried).")
    ] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, 32-true or bf16-mixed.")] = "auto",
    workers: Workers = None,
    name: Annotated[str, typer.Option(help="The run's folder; default: the data set's name.")] = "",
) -> None:
    """Pre-train on one or many devices and machines; the same command goes on where it was stopped."""
    from visa.data.source import open_source
    from visa.pretrain.fabric import make_fabric
    from visa.pretrain.run import folder_data, run_pretraining, training_data
    from visa.pretrain.settings import configured
    from visa.runs import folder_scope, open_folder_run, open_run, pretraining_name

    settings = configured(method, spd, parse_settings(setting) | {"seed": seed})
    if images:
        run = open_folder_run(name, folder_scope(images, dataset))
        fabric = make_fabric(device, devices, nodes)
        data = folder_data(images, settings.image_size, dataset, workers)
    elif dataset:
        raise VisaError("dataset names a folder's images: give the folder with --images.")
    else:
        source = open_source("", [] if object == "all" else [object])
        if object != "all":
            source.check_object(object)
        run = open_run(name, source)
        fabric = make_fabric(device, devices, nodes)
        data = training_data(source, object, "", settings.image_size)
    folder = run.pretrain_dir(pretraining_name(method, spd), data.scope, seed)
    try:
        run_pretraining(settings, data, folder, fabric, precision)
    except KeyboardInterrupt:
        typer.echo("visa: interrupted; the same command goes on from its last checkpoint.", err=True)
        raise typer.Exit(130) from None
    if fabric.is_global_zero:
        typer.echo(f"weights, curves and diagnosis: {folder}")


def export(
    weights: Annotated[Path, typer.Argument(help="backbone.safetensors of a finished pre-training.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the weights and their model card.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
) -> None:
    """Write weights that torchvision, timm and anomalib load, with a model card."""
    from visa.export import export as write

    typer.echo(write(weights, destination, overwrite=overwrite))
