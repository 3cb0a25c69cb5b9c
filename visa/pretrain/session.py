"""One pre-training from images to files, as notebook 3 and `visa pretrain` both do it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from visa.backbone import calibrate_batch_norm, create_backbone, load_weights, save_weights
from visa.data.source import Source
from visa.errors import VisaError, check_choice
from visa.paths import locked
from visa.pretrain.checkpoint import checkpoint_path, load_shared, previous, save
from visa.pretrain.diagnose import diagnose, probe_backbone
from visa.pretrain.input.images import Images, folder_images, object_images
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdSettings
from visa.pretrain.step import PRECISIONS
from visa.pretrain.train import Result, pretrain
from visa.provenance import digest, read_sidecar, write_rows, write_sidecar, write_text
from visa.runs import folder_scope, pretraining_name

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingData:
    """Images to train on, some held out (uint8 N,3,S,S), and what names them.

    `scope`: the object, `all`, or the folder's name.
    """

    images: Images
    held_out: Tensor
    scope: str
    dataset: str
    synthetic: bool
    fingerprint: str


def training_data(
    source: Source, object: str, folder: str, view_side: int, device: torch.device = _CPU
) -> TrainingData:
    """Normal training images of an object (or `all`), or every image below `folder` where one is given.

    They are a little larger than the views. Raises VisaError as `folder_data`.
    """
    if folder:
        return folder_data(folder, view_side, device)
    trained_on = source.objects if object == "all" else [object]
    images, held_out = object_images(source, object, _side(view_side))
    return TrainingData(images, held_out, object, source.name, source.synthetic, source.fingerprint(*trained_on))


def folder_data(
    folder: str,
    view_side: int,
    device: torch.device = _CPU,
    dataset: str = "",
    workers: int | None = None,
    decoder: str = "cpu",
) -> TrainingData:
    """Every image below `folder`, of classes or of shards, called `dataset` or by the folder's name.

    `workers` and `decoder` (on `device`): see `EncodedImages`. Raises VisaError for an absent folder, a name that is
    taken (see `folder_scope`), and too few or too many corrupt images.
    """
    scope, root = folder_scope(folder, dataset), Path(folder).expanduser().resolve()
    images, held_out = folder_images(root, _side(view_side), workers, decoder, device)
    return TrainingData(images, held_out, scope, scope, False, images.files.fingerprint())


def run_pretraining(
    settings: PretrainSettings,
    data: TrainingData,
    folder: Path,
    fabric: Fabric,
    precision: str = "auto",
    judge: SpdSettings | None = None,
    resume_from: Path | None = None,
) -> None:
    """Train, judge and write `backbone.safetensors`, `curves.csv` and `diagnosis.json` to `folder`.

    Interrupted or killed, the same call goes on from its last checkpoint; the first process alone judges and writes.
    `precision`: 32-true, bf16-mixed, or auto: what is fast on the device. `judge`: the SPD views to judge with, by
    default those of the settings. `resume_from`: where there is no checkpoint of this code and data yet, go on from
    this one of equal settings. Raises VisaError as `pretrain`, and if another process trains in that folder.
    """
    check_choice("precision", precision, ("auto", *PRECISIONS))
    checkpoint = checkpoint_path(folder, settings, data.fingerprint)
    with _locked_for_all(folder, fabric):
        _begin(checkpoint, settings, data, fabric, resume_from)
        speed = None if precision == "auto" else precision
        result = pretrain(data.images, settings, checkpoint, fabric, precision=speed)
        if fabric.is_global_zero:
            judge = judge or settings.spd or SpdSettings()
            device = fabric.device if fabric.device.type == "cuda" else _CPU
            method, held_out = result.method.to(device), data.held_out.to(device)
            diagnosis = diagnose(method, held_out, settings.image_size, judge, settings.seed)
            facts = _facts(settings, data, result, fabric)
            write_pretraining(folder, method, settings, result.curves, diagnosis, key=_key(checkpoint), **facts)
        fabric.barrier()


@contextmanager
def _locked_for_all(folder: Path, fabric: Fabric) -> Iterator[None]:
    """The first process locks `folder` for all of them; where it cannot, all raise the same VisaError."""
    with ExitStack() as stack:
        mistake = ""
        if fabric.is_global_zero:
            try:
                stack.enter_context(locked(folder))
            except VisaError as error:
                mistake = str(error)
        if mistake := fabric.broadcast(mistake):
            raise VisaError(mistake)
        yield


def _begin(
    checkpoint: Path, settings: PretrainSettings, data: TrainingData, fabric: Fabric, resume_from: Path | None
) -> None:
    """Where there is no checkpoint, put `resume_from` in its place, or name the one of something else that lies there.

    Its name is made of settings, data and code; what is in it must fit the settings alone.
    """
    absent = fabric.broadcast(not (checkpoint.is_file() or previous(checkpoint).is_file()))
    if absent and resume_from:
        content = load_shared(resume_from, digest(asdict(settings)), fabric)
        if content is None:
            raise VisaError(f"there is no checkpoint {str(resume_from)!r} to go on from: check the path.")
        steps = settings.epochs * (len(data.images) // settings.batch_size)
        if content["step"] > steps:
            raise VisaError(f"{str(resume_from)!r} is of step {content['step']}, and these images make {steps} in all.")
        if settings.method == "supervised" and content["classes"] != data.images.classes:
            raise VisaError(
                f"{str(resume_from)!r} was trained on {content['classes']} classes, and these images have "
                f"{data.images.classes}: go on with as many."
            )
        if fabric.is_global_zero:
            save(checkpoint, content)
    elif absent and fabric.is_global_zero:
        others = sorted(checkpoint.parent.glob("checkpoint-*.pt"), key=lambda file: file.stat().st_mtime)
        if others:
            print(
                f"Training begins anew: {os.path.relpath(others[-1])} is of other settings, data or code "
                "(visa pretrain --resume-from goes on from it if the settings are equal)."
            )
    fabric.barrier()


def write_pretraining(
    folder: Path,
    method: Any,
    settings: PretrainSettings,
    curves: Sequence[Mapping[str, float]],
    diagnosis: Mapping[str, float],
    key: str,
    **facts: object,
) -> None:
    """Write `backbone.safetensors`, its JSON sidecar, `curves.csv` (a row a step) and `diagnosis.json`.

    `method` has a `backbone`, and a `classifier` where it was trained with labels: it is kept as `fc`. `key`
    identifies settings, data and code. `facts` (dataset, images, seconds, ...) go into the sidecar; all but the times
    go into the weights' own metadata, so that the same run makes the same file.
    """
    if curves:
        write_rows(folder / "curves.csv", list(curves[0]), curves)
    write_text(folder / "diagnosis.json", json.dumps(dict(diagnosis), indent=1) + "\n")
    weights = folder / "backbone.safetensors"
    classifier: nn.Module | None = getattr(method, "classifier", None)
    named = {name: fact for name, fact in facts.items() if name not in ("seconds", "images_per_second")}
    save_weights(method.backbone, weights, {"settings": asdict(settings), **named}, classifier)
    write_sidecar(weights, key, asdict(settings), diagnosis=dict(diagnosis), **facts)


def is_finished(settings: PretrainSettings, data: TrainingData, folder: Path) -> bool:
    """Whether `folder` holds the result of these settings, this data and this code."""
    record = read_sidecar(folder / "backbone.safetensors")
    return record is not None and record["key"] == _key(checkpoint_path(folder, settings, data.fingerprint))


def run_random(settings: PretrainSettings, data: TrainingData, folder: Path) -> None:
    """Write the untrained backbone of the same seed, its batch statistics calibrated: the paired baseline."""
    backbone = create_backbone(settings.arch, settings.seed)
    if settings.weights:
        load_weights(backbone, Path(settings.weights))
    else:
        spread = torch.linspace(0, len(data.images) - 1, min(len(data.images), 64)).long().tolist()
        (batch,) = data.images.batches([spread])
        calibrate_batch_norm(backbone, [batch.images.cpu().float() / 255])  # a GPU may have decoded them
    diagnosis = probe_backbone(backbone.eval(), data.held_out, settings.image_size, SpdSettings(), settings.seed)
    key = _key(checkpoint_path(folder, settings, data.fingerprint))
    facts = {**_names("random", data), "seconds": 0.0}
    write_pretraining(folder, _Untrained(backbone), settings, [], diagnosis, key=key, **facts)


def in_processes(arguments: Sequence[str], source: Source) -> None:
    """Run `visa pretrain` with `arguments` on `source` in processes of its own: devices cannot share a notebook's.

    Raises VisaError if it fails; its own sentence stands above.
    """
    command = [sys.executable, "-m", "visa_spd", "pretrain", *arguments]
    done = subprocess.run(command, env={**os.environ, "VISA_ROOT": str(source.root)})
    if done.returncode:
        raise VisaError(f"visa pretrain ended with exit code {done.returncode}: its last line above says why.")


class _Untrained(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


def _side(view_side: int) -> int:
    """Side of the images that views of a side are cut from."""
    return view_side * 9 // 8


def _key(checkpoint: Path) -> str:
    return checkpoint.stem.removeprefix("checkpoint-")


def _names(pretraining: str, data: TrainingData) -> dict[str, object]:
    return {
        "pretraining": pretraining,
        "dataset": data.dataset,
        "synthetic": data.synthetic,
        "scope": data.scope,
        "images": len(data.images),
        "data": data.fingerprint,
    }


def _facts(settings: PretrainSettings, data: TrainingData, result: Result, fabric: Fabric) -> dict[str, object]:
    return {
        **_names(pretraining_name(settings.method, settings.spd is not None), data),
        "skipped": list(result.skipped),
        "seconds": round(result.seconds, 1),
        "images_per_second": round(result.images_per_second, 2),
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "speed": asdict(result.speed),
    }
