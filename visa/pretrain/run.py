"""Run one pre-training from images to files, for notebook 03 and for `visa pretrain`."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from visa.backbone import calibrate_batch_norm, create_backbone, load_weights, save_weights
from visa.errors import check_choice
from visa.paths import locked
from visa.pretrain.augment import Draws
from visa.pretrain.diagnose import diagnose, judge
from visa.pretrain.fabric import from_first
from visa.pretrain.images import TrainingData
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdSettings, spd_views
from visa.pretrain.train import PRECISIONS, Result, Training, training_key
from visa.provenance import read_sidecar, write_rows, write_sidecar, write_text
from visa.runs import pretraining_name


def run_pretraining(
    settings: PretrainSettings, data: TrainingData, folder: Path, fabric: Fabric, precision: str = "auto"
) -> None:
    """Run a pre-training to its end; see `training_steps`."""
    for _ in training_steps(settings, data, folder, fabric, precision):
        pass


def training_steps(
    settings: PretrainSettings, data: TrainingData, folder: Path, fabric: Fabric, precision: str = "auto"
) -> Iterator[dict[str, float]]:
    """Train, yield the loss terms of each step, judge, and write weights, `curves.csv`, `diagnosis.json` to `folder`.

    After an interruption the same call resumes from the last checkpoint; only the first process judges and writes.
    A backbone trained from random weights gets batch-norm statistics of training images without augmentation, as in
    `run_untrained`, so both are comparable. The SPD term is judged before that, with statistics of its own views.
    `precision`: 32-true, bf16-mixed, or auto, which is bf16-mixed on a GPU that supports it, else 32-true.
    Raises VisaError as a `Training` and its steps do, and if another process trains in that folder.
    """
    check_choice("precision", precision, ("auto", *PRECISIONS))
    checkpoint = folder / f"checkpoint-{training_key(settings, data.fingerprint)}.pt"
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(locked(folder)), fabric)
        training = Training(data.images, settings, checkpoint, fabric, None if precision == "auto" else precision)
        yield from training.steps()
        result = training.result()
        if fabric.is_global_zero:
            device = fabric.device if fabric.device.type == "cuda" else torch.device("cpu")
            method, held_out = result.method.to(device), data.held_out.to(device)
            backbone, asked = method.get_submodule("backbone"), (settings.image_size, settings.spd or SpdSettings())
            term: dict[str, float] = {}
            if not settings.weights:
                clean = _calibration_images(data, device)
                if settings.spd:
                    draws = Draws(torch.Generator(device).manual_seed(settings.seed))
                    views = spd_views(clean, settings.image_size, settings.spd, draws)
                    calibrate_batch_norm(backbone, [torch.cat(views)])
                    term = diagnose(method, held_out, *asked, settings.seed)
                calibrate_batch_norm(backbone, [clean])
            diagnosis = diagnose(method, held_out, *asked, settings.seed)
            diagnosis |= {name: term[name] for name in ("triplet_own", "spd_accuracy") if name in term}
            diagnosis |= judge(method, result.curves, diagnosis)
            name = pretraining_name(settings.method, settings.spd is not None)
            _write(folder, name, settings, data, result, diagnosis)
        fabric.barrier()


def run_untrained(settings: PretrainSettings, data: TrainingData, folder: Path) -> None:
    """Write the paired baseline: the given weights, or the seed's random weights with calibrated batch norms."""
    backbone = create_backbone(settings.arch, settings.seed)
    if settings.weights:
        load_weights(backbone, Path(settings.weights))
    else:
        calibrate_batch_norm(backbone, [_calibration_images(data, torch.device("cpu"))])
    untrained = nn.ModuleDict({"backbone": backbone})
    diagnosis = diagnose(untrained, data.held_out, settings.image_size, SpdSettings(), settings.seed)
    name, result = "given" if settings.weights else "random", Result(untrained, [], 0.0, 0.0, [], {})
    _write(folder, name, settings, data, result, diagnosis)


def _calibration_images(data: TrainingData, device: torch.device) -> Tensor:
    """Return up to 64 training images without augmentation, N,3,S,S in [0,1], for batch-norm statistics."""
    spread = torch.linspace(0, len(data.images) - 1, min(len(data.images), 64)).long().tolist()
    (batch,) = data.images.batches([spread])
    return batch.images.to(device).float() / 255


def is_finished(settings: PretrainSettings, data: TrainingData, folder: Path) -> bool:
    """Tell whether `folder` holds the result of these settings, this data and this VERSION."""
    record = read_sidecar(folder / "backbone.safetensors")
    return record is not None and record["key"] == training_key(settings, data.fingerprint)


def _write(
    folder: Path,
    pretraining: str,
    settings: PretrainSettings,
    data: TrainingData,
    result: Result,
    diagnosis: dict[str, float],
) -> None:
    """Write `backbone.safetensors`, its JSON sidecar, `curves.csv` (one row per step) and `diagnosis.json`.

    A method's `classifier`, trained with labels, is stored as `fc`. All facts except times are also written to the
    weights' metadata, so that equal runs write equal files.
    """
    if result.curves:
        write_rows(folder / "curves.csv", list(result.curves[0]), result.curves)
    write_text(folder / "diagnosis.json", json.dumps(diagnosis, indent=1) + "\n")
    about = {"dataset": data.dataset, "synthetic": data.synthetic, "scope": data.scope, "data": data.fingerprint}
    named = {"pretraining": pretraining, **about, "images": len(data.images), "skipped": result.skipped, **result.where}
    times = {"seconds": round(result.seconds, 1), "images_per_second": round(result.images_per_second, 2)}
    weights, method = folder / "backbone.safetensors", result.method
    metadata = {"settings": asdict(settings), **named}
    save_weights(method.get_submodule("backbone"), weights, metadata, getattr(method, "classifier", None))
    key = training_key(settings, data.fingerprint)
    seen = {"clean_images": data.seen} if data.seen else {}
    write_sidecar(weights, key, asdict(settings), diagnosis=diagnosis, **named, **times, **seen)
