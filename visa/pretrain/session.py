"""One pre-training from images to files, as notebook 3 and `visa pretrain` both do it."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from visa.backbone import calibrate_batch_norm, create_backbone, load_weights
from visa.data.source import Source
from visa.errors import VisaError, check_choice
from visa.pretrain.checkpoint import checkpoint_path
from visa.pretrain.diagnose import diagnose, probe_backbone
from visa.pretrain.images import Images, folder_images, object_images
from visa.pretrain.output import write_pretraining
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdSettings
from visa.pretrain.step import PRECISIONS, default_speed
from visa.pretrain.train import Result, pretrain
from visa.provenance import folder_fingerprint, read_sidecar
from visa.runs import pretraining_name

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
    """Normal training images of an object (or `all`), or every image below `folder`, a little larger than the views.

    A folder's images are decoded on `device` where that is faster. Raises VisaError for an absent folder.
    """
    side = view_side * 9 // 8
    if folder:
        root = Path(folder).expanduser().resolve()
        if not root.is_dir():
            raise VisaError(f"there is no folder {folder!r} to pre-train on: check the path.")
        return TrainingData(
            *folder_images(root, side, decoder="auto", device=device),
            root.name,
            root.name,
            False,
            folder_fingerprint(root),
        )
    trained_on = source.objects if object == "all" else [object]
    images, held_out = object_images(source, object, side)
    return TrainingData(images, held_out, object, source.name, source.synthetic, source.fingerprint(*trained_on))


def run_pretraining(
    settings: PretrainSettings,
    data: TrainingData,
    folder: Path,
    fabric: Fabric,
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
    judge: SpdSettings | None = None,
) -> None:
    """Train, judge and write `backbone.safetensors`, `curves.csv` and `diagnosis.json` to `folder`.

    Interrupted or killed, the same call goes on from its last checkpoint; the first process alone judges and writes.
    `precision`: 32-true, bf16-mixed, or auto: what is fast on the device. `judge`: the SPD views to judge with, by
    default those of the settings.
    """
    checkpoint = checkpoint_path(folder, settings, data.fingerprint)
    check_choice("precision", precision, ("auto", *PRECISIONS))
    given = None if precision == "auto" else replace(default_speed(fabric.device), precision=precision)
    result = pretrain(data.images, settings, checkpoint, fabric, given)
    if fabric.is_global_zero:
        judge = judge or settings.spd or SpdSettings()
        diagnosis = diagnose(result.method.cpu(), data.held_out, settings.image_size, judge, settings.seed)
        facts = _facts(settings, data, result, fabric)
        write_pretraining(folder, result.method, settings, result.curves, diagnosis, key=_key(checkpoint), **facts)
    fabric.barrier()


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
        calibrate_batch_norm(backbone, [batch.images.float() / 255])
    diagnosis = probe_backbone(backbone.eval(), data.held_out, settings.image_size, SpdSettings(), settings.seed)
    key = _key(checkpoint_path(folder, settings, data.fingerprint))
    facts = {**_names("random", data), "seconds": 0.0}
    write_pretraining(folder, _Untrained(backbone), settings, [], diagnosis, key=key, **facts)


def in_processes(arguments: Sequence[str]) -> None:
    """Run `visa pretrain` with `arguments` in processes of its own: several devices cannot share a notebook's.

    Raises VisaError if it fails; its own sentence stands above.
    """
    done = subprocess.run([sys.executable, "-m", "visa_spd", "pretrain", *arguments])
    if done.returncode:
        raise VisaError(f"visa pretrain ended with exit code {done.returncode}: its last line above says why.")


class _Untrained(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


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
