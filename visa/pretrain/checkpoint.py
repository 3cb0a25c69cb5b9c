"""The checkpoint of a training: written whole by the first process, read without executing code."""

import io
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from visa.errors import VisaError
from visa.paths import written_whole
from visa.pretrain import VERSION
from visa.pretrain.settings import PretrainSettings
from visa.provenance import digest, file_digest


def training_key(settings: PretrainSettings, data: str) -> str:
    """Digest settings, data (its fingerprint), the file of weights to start from, and VERSION: the name of a training.

    An edit of code that does not change training keeps the name, and with it checkpoint and result.
    """
    weights = file_digest(Path(settings.weights)) if settings.weights else ""
    return digest([asdict(settings), weights, data, VERSION])


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, in the place of the last one."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written_whole(path) as partial, partial.open("wb") as stream:
        stream.write(buffer.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())  # a name must not outlive a power cut that its bytes do not


def load(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint on the CPU, or None where there is none; raises VisaError if it cannot be read."""
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise VisaError(f"the checkpoint {path} cannot be read: delete it to start anew.") from error
    return content
