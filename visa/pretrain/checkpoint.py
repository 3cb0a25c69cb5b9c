"""Checkpoints of a training: written whole by one process, the last two kept, read without executing code."""

import io
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from visa.errors import VisaError
from visa.paths import written_whole
from visa.pretrain import VERSION
from visa.pretrain.settings import PretrainSettings
from visa.provenance import digest, file_digest

Content = dict[str, Any]


def training_key(settings: PretrainSettings, data: str) -> str:
    """Digest settings, data (its fingerprint), the file of weights to start from, and VERSION: the name of a training.

    An edit of code that does not change training keeps the name, and with it checkpoint and result.
    """
    weights = file_digest(Path(settings.weights)) if settings.weights else ""
    return digest([asdict(settings), weights, data, VERSION])


def save(path: Path, content: Content) -> None:
    """Write a checkpoint, whole or not at all; the one that bore the name until now is kept beside it.

    `content` is of tensors, numbers, texts, lists and dictionaries.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written_whole(path) as partial:
        with partial.open("wb") as stream:
            stream.write(buffer.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())  # a name must not outlive a power cut that its bytes do not
        if path.is_file():
            path.replace(previous(path))


def save_final(path: Path, content: Content) -> None:
    """Write a finished training's checkpoint, and remove the one before it."""
    save(path, content)
    previous(path).unlink(missing_ok=True)


def load(path: Path) -> Content | None:
    """Read the newest checkpoint that can be read, on the CPU, or None where there is none.

    Raises VisaError if there are checkpoints and none can be read.
    """
    files = [file for file in (path, previous(path)) if file.is_file()]
    for file in files:
        content = _read(file)
        if content is None:
            print(f"The checkpoint {file} cannot be read; there may be one from before it.")
            continue
        if file != path:
            print(f"Training goes on from the checkpoint before, at step {content['step']}.")
            file.replace(path)  # else the next save would put a broken one in its place
        return content
    if files:
        names = " and ".join(str(file) for file in files)
        raise VisaError(f"the checkpoint {names} cannot be read: delete it to start anew.")
    return None


def load_shared(path: Path, fabric: Fabric) -> Content | None:
    """Have the first process `load` for all of them, so that they go on from the same step.

    Checkpoints need not be seen by the other processes: the first alone reads and writes them.
    """
    content, mistake = None, ""
    if fabric.global_rank == 0:
        try:
            content = load(path)
        except VisaError as error:
            mistake = str(error)
    content, mistake = fabric.broadcast((content, mistake))
    if mistake:
        raise VisaError(mistake)
    return content


def previous(path: Path) -> Path:
    """Return where the checkpoint before the newest lies."""
    return path.with_name(path.name + ".previous")


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether no value is NaN or infinite; waits for the device once."""
    found = [t.isfinite().all() for t in tensors if t.is_floating_point()]
    return not found or bool(torch.stack(found).all())


def _read(path: Path) -> Content | None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a broken file
        return None
    return content if isinstance(content, dict) and "step" in content else None
