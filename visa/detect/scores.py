"""Save and load scores and anomaly maps at the evaluation size, and write pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from visa.errors import VisaError
from visa.paths import written_whole

EVALUATION_SIZE = (224, 224)  # height, width: pixel metrics, AU-PRO above all, depend on it; images are squashed to it
COLUMNS = (  # of a `metrics.csv`, which holds one metric per row
    *("dataset", "object", "setup", "draw", "pretraining", "seed"),
    *("detector", "defect", "level", "metric", "value"),
)


@dataclass(frozen=True)
class Scores:
    """A detector's scores of N test images of one object, with the ground truth.

    `paths` relative to the root, `labels` (N,) uint8 with 1 for an anomaly, `image_scores` (N,) float32, `maps`
    (N, h, w) float32 and `masks` (N, h, w) uint8 in {0, 1} at EVALUATION_SIZE, both None for a detector that judges
    whole images only. `known` (N,) bool: whether the mask is the ground truth, False for an anomaly without a mask.
    `draw` numbers the few-shot draws.
    Raises VisaError if their lengths or shapes do not fit together.
    """

    paths: list[str]
    labels: NDArray[np.uint8]
    image_scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None
    masks: NDArray[np.uint8] | None
    known: NDArray[np.bool_]
    setup: str
    object: str
    detector: str
    draw: int = 0

    def __post_init__(self) -> None:
        arrays: tuple[Any, ...] = (self.paths, self.labels, self.image_scores, self.known, self.maps, self.masks)
        shapes = [np.shape(array) for array in arrays]  # () of None
        if len({s[0] for s in shapes if s}) != 1 or shapes[4] != shapes[5] or len(shapes[4]) not in (0, 3):
            raise VisaError(
                f"scores of {self.object} do not fit together: paths, labels, image scores, known, maps and masks "
                f"have the shapes {', '.join(map(str, shapes))}."
            )


def save_scores(path: Path, scores: Scores) -> None:
    """Write `scores` as a plain .npz, atomically.

    Masks take one bit per pixel; maps are stored in half precision if that is exact.
    """
    types = {"labels": np.uint8, "image_scores": np.float32, "maps": np.float32, "known": np.bool_}
    arrays: dict[str, Any] = {name: np.asarray(x, types.get(name)) for name, x in vars(scores).items() if x is not None}
    if scores.maps is not None and scores.masks is not None:
        half = arrays["maps"].astype(np.float16)
        arrays["maps"] = half if np.array_equal(half, arrays["maps"]) else arrays["maps"]
        arrays["masks"] = np.packbits(scores.masks.astype(np.uint8))
    with written_whole(path) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)


def load_scores(path: Path) -> Scores:
    """Load scores of `save_scores` without executing code; raises VisaError if they are missing or malformed."""
    if not path.is_file():
        raise VisaError(f"no scores at {path}: score the object first.")
    try:
        with np.load(path, allow_pickle=False) as file:
            here = [n for n in Scores.__dataclass_fields__ if n in file or n not in ("maps", "masks")]
            fields: dict[str, Any] = {"maps": None, "masks": None} | {name: file[name] for name in here}
        if fields["maps"] is not None and fields["masks"] is not None:
            maps = fields["maps"] = fields["maps"].astype(np.float32)
            fields["masks"] = np.unpackbits(fields["masks"], count=maps.size).reshape(maps.shape)
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
        raise VisaError(f"{path} holds no scores ({error}): score the object again.") from error
    text = {name: str(fields[name]) for name in ("setup", "object", "detector")}
    return Scores(**fields | text | {"paths": fields["paths"].tolist(), "draw": int(fields["draw"])})


def write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write grey (H, W) or RGB (H, W, 3) pixels as PNG, atomically; raises VisaError if they cannot be encoded."""
    turned = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, content = cv2.imencode(".png", turned, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise VisaError(f"{path} cannot be encoded as PNG: its image is {pixels.shape[1]} x {pixels.shape[0]}.")
    with written_whole(path) as partial:
        partial.write_bytes(content.tobytes())
