"""What a pre-training leaves behind: weights, curves and diagnosis, with their provenance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from visa.backbone import save_weights
from visa.pretrain.settings import PretrainSettings
from visa.provenance import write_rows, write_sidecar, write_text


def write_pretraining(
    folder: Path,
    method: Any,
    settings: PretrainSettings,
    curves: Sequence[Mapping[str, float]],
    diagnosis: Mapping[str, float],
    key: str,
    **facts: object,
) -> Path:
    """Write `backbone.safetensors`, its JSON sidecar, `curves.csv` (a row a step) and `diagnosis.json`.

    `method` has a `backbone`, and a `classifier` where it was trained with labels: it is kept as `fc`. `key`
    identifies settings, data and code. `facts` (dataset, images, seconds, ...) go into the sidecar, and the weights'
    own metadata name settings and data. Returns the path of the weights.
    """
    if curves:
        write_rows(folder / "curves.csv", list(curves[0]), curves)
    write_text(folder / "diagnosis.json", json.dumps(dict(diagnosis), indent=1) + "\n")
    weights = folder / "backbone.safetensors"
    classifier: nn.Module | None = getattr(method, "classifier", None)
    save_weights(method.backbone, weights, {"settings": asdict(settings), **facts}, classifier)
    write_sidecar(weights, key, asdict(settings), diagnosis=dict(diagnosis), **facts)
    return weights
