"""What a pre-training leaves behind: weights, curves and diagnosis, with their provenance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from visa.backbone import save_weights
from visa.pretrain.train import PretrainSettings
from visa.provenance import digest, write_rows, write_sidecar, write_text


def write_pretraining(
    folder: Path,
    backbone: nn.Module,
    settings: PretrainSettings,
    curves: Sequence[Mapping[str, float]],
    diagnosis: Mapping[str, float],
    **facts: object,
) -> Path:
    """Write `backbone.safetensors`, its JSON sidecar, `curves.csv` (a row a step) and `diagnosis.json`.

    `facts` (dataset, images, seconds, ...) go into the sidecar, and the weights' own metadata name settings and data.
    Returns the path of the weights.
    """
    if curves:
        write_rows(folder / "curves.csv", list(curves[0]), curves)
    write_text(folder / "diagnosis.json", json.dumps(dict(diagnosis), indent=1) + "\n")
    weights = folder / "backbone.safetensors"
    save_weights(backbone, weights, {"settings": asdict(settings), **facts})
    write_sidecar(weights, digest(asdict(settings)), asdict(settings), diagnosis=dict(diagnosis), **facts)
    return weights
