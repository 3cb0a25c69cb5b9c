"""Compare two runs on the same test images: is the difference larger than that between draws of images?

Differences are second minus first. They say nothing about other training seeds.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from visa.errors import VisaError
from visa.metrics.exact import Floats, image_metrics, labelled, pixel_metrics, same_shape
from visa.metrics.intervals import check_resampling, ends, images_drawn, pixels_drawn, resample

_ROUNDING = 1e-12  # of the difference of two equal metrics


class Difference(NamedTuple):
    """Second minus first, its interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p: float


class Scored(Protocol):
    """The part of a run that `compare_runs` reads; `visa.detect.scores.Scores` has it."""

    @property
    def paths(self) -> list[str]: ...  # noqa: D102
    @property
    def labels(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def image_scores(self) -> NDArray[Any]: ...  # noqa: D102
    @property
    def maps(self) -> NDArray[Any] | None: ...  # noqa: D102
    @property
    def masks(self) -> NDArray[Any] | None: ...  # noqa: D102
    @property
    def known(self) -> NDArray[np.bool_]: ...  # noqa: D102


def delong(first: ArrayLike, second: ArrayLike, labels: ArrayLike, confidence: float = 0.95) -> Difference:
    """Test the difference of two correlated AU-ROCs at image level (DeLong et al. 1988).

    first, second: (N,) scores of the same images; labels (N,). The interval assumes a normal distribution.
    Raises VisaError as `image_metrics` does, and for fewer than two images of a kind.
    """
    a, positive = labelled(first, labels)
    b, _ = labelled(second, labels)
    if min(positive.sum(), (~positive).sum()) < 2:
        raise VisaError("DeLong's test needs at least two normal and two anomalous images.")
    inside, outside = zip(*(_placements(s, positive) for s in (a, b)), strict=True)
    gain = float(inside[1].mean() - inside[0].mean())
    spread = (np.var(part[1] - part[0], ddof=1) / part[0].size for part in (inside, outside))
    error = float(np.sqrt(sum(spread)))
    z = gain / error if error else np.inf * np.sign(gain) if gain else 0.0
    half = float(ndtri((1 + confidence) / 2)) * error
    return Difference(gain, gain - half, gain + half, float(2 * ndtr(-abs(z))))


def compare_images(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two runs by a paired bootstrap over images, for each metric of `image_intervals`.

    first, second: (N,) scores of the same images; labels (N,). Both runs get the same draws. The p-value is twice the
    share of draws on the rarer side of 0 (at least 2 / (resamples + 1)); a draw with difference 0 counts on both sides.
    Raises VisaError as `image_metrics` does.
    """
    check_resampling(resamples, confidence)
    a, positive = labelled(first, labels)
    b, _ = labelled(second, labels)
    samples = [resample(images_drawn(s, positive), positive, resamples, seed) for s in (a, b)]
    return _differences([image_metrics(s, positive) for s in (a, b)], samples, confidence)


def compare_pixels(
    first: ArrayLike,
    second: ArrayLike,
    masks: ArrayLike,
    max_fpr: float = 0.3,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Do `compare_images` for maps and each metric of `pixel_intervals`; first, second, masks: (N, H, W)."""
    check_resampling(resamples, confidence)
    pairs = [same_shape(maps, masks, ndim=3, what="pixel") for maps in (first, second)]
    values = [pixel_metrics(s, t, max_fpr) for s, t in pairs]
    positive = np.asarray(pairs[0][1].any(axis=(1, 2)))
    samples = [resample(pixels_drawn(s, t, max_fpr), positive, resamples, seed) for s, t in pairs]
    return _differences(values, samples, confidence)


def compare_runs(
    first: Scored, second: Scored, resamples: int = 1000, seed: int = 0
) -> dict[tuple[str, str], Difference]:
    """Compare every metric of two runs, second minus first, by (level, metric); images are matched by path.

    `("image", "auroc")` and the like come from `compare_images`, `("image", "auroc, DeLong")` from `delong` if there
    are two images of each kind, and `("pixel", "au_pro")` and the like from `compare_pixels` over the images whose mask
    is known, if both runs have maps and an anomaly has a mask.
    Raises VisaError if the runs' images, labels or masks differ.
    """
    order = _matched(first.paths, second.paths)
    if not np.array_equal(first.labels, second.labels[order]):
        raise VisaError("the two runs' labels differ on the same images: score both with the same data.")
    pair = first.image_scores, second.image_scores[order]
    images = compare_images(*pair, first.labels, resamples=resamples, seed=seed)
    found = {("image", name): difference for name, difference in images.items()}
    positive = labelled(pair[0], first.labels)[1]
    if min(positive.sum(), (~positive).sum()) > 1:
        found = {("image", "auroc, DeLong"): delong(*pair, first.labels), **found}
    if first.maps is None or second.maps is None or first.masks is None or second.masks is None:
        return found
    known = np.asarray(first.known, bool)
    if not np.array_equal(first.masks[known], second.masks[order][known]):
        raise VisaError("the two runs' masks differ on the same images: score both with the same data and size.")
    if not first.masks[known].any():
        return found
    maps = first.maps[known], second.maps[order][known]
    pixels = compare_pixels(*maps, first.masks[known], resamples=resamples, seed=seed)
    return found | {("pixel", name): difference for name, difference in pixels.items()}


def _placements(scores: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Find each positive's share of negatives below it, and each negative's of positives above; ties count half."""
    inside, outside = scores[positive], scores[~positive]
    return _share_below(inside, outside), 1 - _share_below(outside, inside)


def _share_below(scores: NDArray[Any], others: NDArray[Any]) -> Floats:
    ranked = np.sort(others)
    return (np.searchsorted(ranked, scores, "left") + np.searchsorted(ranked, scores, "right")) / (2 * ranked.size)


def _matched(first: list[str], second: list[str]) -> NDArray[np.int64]:
    """Return the place in `second` of each path of `first`; raises VisaError if the paths differ."""
    place = {path: i for i, path in enumerate(second)}
    apart = sorted(set(first) ^ set(second))
    if apart or not len(first) == len(second) == len(place):
        named = f"{len(apart)} are in one of them only (such as {apart[0]})" if apart else "some are there twice"
        raise VisaError(f"the two runs scored different images, {named}: compare runs on the same test images.")
    return np.array([place[path] for path in first])


def _differences(
    values: list[dict[str, float]], samples: list[dict[str, Floats]], confidence: float
) -> dict[str, Difference]:
    found = {}
    for name in samples[0]:
        drawn = samples[1][name] - samples[0][name]
        rarer = min(np.count_nonzero(drawn <= _ROUNDING), np.count_nonzero(drawn >= -_ROUNDING))
        p = min(1.0, 2 * (1 + rarer) / (1 + drawn.size))
        found[name] = Difference(values[1][name] - values[0][name], *ends(drawn, confidence), float(p))
    return found
