"""Bootstrap intervals over images: what metrics would be on other test images of the same kind.

Whole images are drawn, because the pixels of an image are dependent. Images are drawn with replacement, normal and
anomalous ones separately, so that every draw has the test set's numbers of both. Intervals are percentile intervals.
They reflect the choice of test images alone, not that of training seeds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visa.errors import VisaError
from visa.metrics.exact import (
    Floats,
    curve_metrics,
    image_metrics,
    labelled,
    pixel_metrics,
    positives,
    same_shape,
    steps_of_groups,
)

CUTS = 2048  # levels of scores at which the pixels of draws are counted
_DRAWS = 32  # draws that are computed together

Drawn = Callable[[Floats], dict[str, Floats]]  # (D, N) how often each image is drawn -> (D,) of each metric


class Interval(NamedTuple):
    """A metric on all images, and the interval around it."""

    value: float
    low: float
    high: float


def image_intervals(
    scores: ArrayLike, labels: ArrayLike, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Compute `auroc`, `au_pr`, `ap`, `f1_max` of `image_metrics` with intervals; each of `resamples` draws is exact.

    scores, labels: (N,). Each draw has its own F1 threshold. Raises VisaError as `image_metrics` does.
    """
    check_resampling(resamples, confidence)
    s, positive = labelled(scores, labels)
    samples = resample(images_drawn(s, positive), positive, resamples, seed)
    return _intervals(image_metrics(s, positive), samples, confidence)


def pixel_intervals(
    maps: ArrayLike,
    masks: ArrayLike,
    max_fpr: float = 0.3,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute `auroc`, `au_pr`, `ap`, `f1_max`, `au_pro` of `pixel_metrics`, exact, with intervals over images.

    maps, masks: (N, H, W). In the draws, scores between two of 2,048 quantiles of the anomalous pixels' scores count
    as equal, which moves an interval's end by some 1e-4. Memory: 100 kB per image.
    Raises VisaError as `pixel_metrics` does, and if a draw holds no normal pixel.
    """
    check_resampling(resamples, confidence)
    s, t = same_shape(maps, masks, ndim=3, what="pixel")
    exact = pixel_metrics(s, t, max_fpr)
    samples = resample(pixels_drawn(s, t, max_fpr), np.asarray(t.any(axis=(1, 2))), resamples, seed)
    return _intervals(exact, samples, confidence)


def check_resampling(resamples: int, confidence: float) -> None:
    """Raise VisaError unless there is at least one resample and `confidence` lies between 0 and 1."""
    if resamples < 1 or not 0 < confidence < 1:
        raise VisaError(f"resamples is {resamples}, confidence {confidence}: give at least 1, and a share like 0.95.")


def resample(metrics: Drawn, positive: NDArray[np.bool_], resamples: int, seed: int) -> dict[str, Floats]:
    """Compute (resamples,) values of each metric; the draws depend on `positive` (N,) and `seed` alone."""
    random = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, _DRAWS):
        times = np.zeros((min(_DRAWS, resamples - start), positive.size))
        for stratum in (np.flatnonzero(positive), np.flatnonzero(~positive)):
            if stratum.size:
                times[:, stratum] = random.multinomial(
                    stratum.size, np.full(stratum.size, 1 / stratum.size), len(times)
                )
        parts.append(metrics(times))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ends(samples: Floats, confidence: float) -> tuple[float, float]:
    """Find the percentile interval of resampled values."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def images_drawn(scores: NDArray[Any], positive: NDArray[np.bool_]) -> Drawn:
    """Return a function that computes the exact image metrics of drawn images."""
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # of each group of equal scores

    def metrics(times: Floats) -> dict[str, Floats]:
        counts = (np.add.reduceat((times * part)[:, order], starts, axis=1) for part in (positive, ~positive))
        return curve_metrics(steps_of_groups(*counts))

    return metrics


def pixels_drawn(maps: NDArray[Any], masks: NDArray[Any], max_fpr: float) -> Drawn:
    """Return a function that computes the pixel metrics of drawn images, from counts per image and group of scores."""
    inside, outside, shares, regions = _counts(maps, masks)

    def metrics(times: Floats) -> dict[str, Floats]:
        steps = steps_of_groups(times @ inside, times @ outside)
        if not steps.negatives.all():
            raise VisaError("some draws of these images hold no normal pixel: intervals need more images that do.")
        return curve_metrics(steps, times @ shares / (times @ regions)[:, None], max_fpr)

    return metrics


def _counts(maps: NDArray[Any], masks: NDArray[Any]) -> tuple[Floats, Floats, Floats, Floats]:
    """Count each image's positives, negatives and regions' shares (N, K), from high to low scores; and regions (N,).

    In ascending order, group 2k + 1 is level k, and group 2k lies between the levels k - 1 and k.
    """
    found = [positives(image, mask) for image, mask in zip(maps, masks, strict=True)]
    levels = _cuts(np.concatenate([f.scores for f in found]))
    everything, inside, shares = (np.zeros((len(maps), 2 * levels.size + 1)) for _ in range(3))
    for i, (image, f) in enumerate(zip(maps, found, strict=True)):
        ranked = np.sort(image, axis=None)
        edges = np.stack([np.searchsorted(ranked, levels, side) for side in ("left", "right")], axis=1)
        everything[i] = np.diff(edges.ravel(), prepend=0, append=ranked.size)
        place = np.searchsorted(levels, f.scores)
        group = 2 * place + (levels.take(place, mode="clip") == f.scores)
        inside[i] = np.bincount(group, minlength=inside.shape[1])
        shares[i] = np.bincount(group, f.shares, minlength=inside.shape[1])
    regions = np.array([f.regions for f in found], np.float64)
    return inside[:, ::-1], (everything - inside)[:, ::-1], shares[:, ::-1], regions


def _cuts(scores: NDArray[Any]) -> NDArray[Any]:
    """Choose up to CUTS of the scores, equally far apart in rank; of fewer scores, choose all."""
    ranked = np.sort(scores)
    return np.unique(ranked[np.linspace(0, ranked.size - 1, CUTS).astype(np.int64)])


def _intervals(values: dict[str, float], samples: dict[str, Floats], confidence: float) -> dict[str, Interval]:
    return {name: Interval(values[name], *ends(drawn, confidence)) for name, drawn in samples.items()}
