"""What figures cannot be computed from, refused in one sentence; and the positive pixels with their regions."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from visa.errors import VisaError


class Positives(NamedTuple):
    """The P anomalous pixels of an image."""

    scores: NDArray[Any]  # (P,)
    shares: NDArray[np.float64]  # (P,) 1 / size of the pixel's own region (8-connectivity)
    regions: int
    values: frozenset[float]  # least and greatest that the mask holds beside 0


def positives(scores: NDArray[Any], mask: NDArray[Any]) -> Positives:
    """The anomalous pixels of one image (H, W), from a mask of bool, 0/1 or 0/255 (not checked here)."""
    binary = mask if mask.dtype == np.uint8 else (mask if mask.dtype == bool else mask != 0).view(np.uint8)
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(binary))
    if not width:
        return Positives(scores[:0, 0], np.zeros(0), 0, frozenset())
    box = np.s_[y : y + height, x : x + width]
    count, labels = cv2.connectedComponents(np.ascontiguousarray(binary[box]), connectivity=8)
    inside = labels > 0
    region = labels[inside]
    shares = 1 / np.bincount(region)[region]
    held = mask[box][inside]
    return Positives(scores[box][inside], shares, count - 1, frozenset((held.min().item(), held.max().item())))


def check_values(values: Iterable[float], what: str = "pixel") -> None:
    """Refuse masks or labels that hold anything beside 0 but one of 1, True and 255."""
    found = sorted(set(values))
    if len(found) > 1 or sum(found) not in (0, 1, 255):
        listed = ", ".join(str(v) for v in found[:5])
        raise VisaError(f"{what} truth holds {listed} beside 0: it must be bool, 0/1 or 0/255 (class ids: mask > 0).")


def check_both(count: int, total: int, what: str = "pixel") -> None:
    """Refuse a test set without any normal or without any anomalous member."""
    if count in (0, total):
        absent = "anomalous" if count == 0 else "normal"
        raise VisaError(f"the test set holds no {absent} {what}s: its figures need normal and anomalous ones.")


def check_scores(scores: NDArray[Any], what: str = "pixel") -> None:
    """Refuse NaN."""
    if scores.size and np.isnan(scores.min()):  # the minimum carries a NaN on, without a second array
        raise VisaError(f"some {what} scores are NaN: look for a diverged model or an empty training set.")


def check_max_fpr(max_fpr: float) -> None:
    """Refuse a false-positive rate that AU-PRO cannot stop at."""
    if not 0 < max_fpr <= 1:
        raise VisaError(f"max_fpr is {max_fpr}: AU-PRO needs a false-positive rate above 0 and up to 1.")


def check_resampling(resamples: int, confidence: float) -> None:
    """Refuse an interval without draws, or of no confidence."""
    if resamples < 1 or not 0 < confidence < 1:
        raise VisaError(f"resamples is {resamples}, confidence {confidence}: give at least 1, and a share like 0.95.")


def same_shape(scores: ArrayLike, truth: ArrayLike, ndim: int, what: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores, as floats, and truth, as arrays of one shape with `ndim` axes."""
    s, t = np.asarray(scores), np.asarray(truth)
    if s.ndim != ndim or s.shape != t.shape:
        shape = "(N,)" if ndim == 1 else "(N, H, W)"
        raise VisaError(f"{what} scores are of shape {s.shape}, their truth of {t.shape}: both must be {shape}.")
    if s.dtype not in (np.float32, np.float64):
        s = s.astype(np.float32 if s.dtype == np.float16 else np.float64)
    return s, t


def labelled(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Image scores (N,) and labels as bool, checked."""
    s, t = same_shape(scores, labels, ndim=1, what="image")
    positive = np.asarray(t != 0)
    check_values(np.unique(t[positive]).tolist(), "image")
    check_both(int(positive.sum()), t.size, "image")
    check_scores(s, "image")
    return s, positive
