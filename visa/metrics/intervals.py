"""Bootstrap intervals over images: what figures would be on other test images of the same kind.

Whole images are drawn, not pixels: those of one image depend on each other. Images are drawn with replacement, normal
and anomalous ones apart, so that every draw has the test set's numbers of both. Intervals are percentile intervals.
They hold the luck of the test images alone, not that of training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visa.errors import VisaError
from visa.metrics import checks
from visa.metrics.curves import Floats, curve_figures, steps_of_groups
from visa.metrics.exact import image_metrics, pixel_metrics
from visa.metrics.tally import Tally

CUTS = 2048  # scores at which draws are counted
_DRAWS = 32  # at once

Drawn = Callable[[Floats], dict[str, Floats]]  # (D, N) how often each image is drawn -> (D,) of each figure


class Interval(NamedTuple):
    """A figure on all images, and the interval around it."""

    value: float
    low: float
    high: float


def image_intervals(
    scores: ArrayLike, labels: ArrayLike, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """`auroc`, `au_pr`, `ap`, `f1_max` of `image_metrics`, exact in each of the `resamples`, with their intervals.

    scores (N,), labels (N,) as there; F1's threshold is chosen anew in each draw. Raises VisaError as there.
    """
    checks.check_resampling(resamples, confidence)
    s, positive = checks.labelled(scores, labels)
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
    """`auroc`, `au_pr`, `ap`, `f1_max`, `au_pro` of `pixel_metrics`, exact, with intervals over images.

    maps, masks (N, H, W) as there. In the draws, scores between neighbours of some 2,048 anomalous pixels' scores,
    equally many anomalous pixels apart, count as equal, which moves an end by some 1e-4. Memory: 100 kB an image.
    Raises VisaError as there, and if a draw holds no normal pixel.
    """
    checks.check_resampling(resamples, confidence)
    s, t = checks.same_shape(maps, masks, ndim=3, what="pixel")
    exact = pixel_metrics(s, t, max_fpr)
    samples = resample(pixels_drawn(s, t, max_fpr), np.asarray(t.any(axis=(1, 2))), resamples, seed)
    return _intervals(exact, samples, confidence)


def resample(figures: Drawn, positive: NDArray[np.bool_], resamples: int, seed: int) -> dict[str, Floats]:
    """(resamples,) values of each figure; the draws depend on `positive` (N,) and the seed alone."""
    random = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, _DRAWS):
        times = np.zeros((min(_DRAWS, resamples - start), positive.size))
        for stratum in (np.flatnonzero(positive), np.flatnonzero(~positive)):
            if stratum.size:
                times[:, stratum] = random.multinomial(
                    stratum.size, np.full(stratum.size, 1 / stratum.size), len(times)
                )
        parts.append(figures(times))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ends(samples: Floats, confidence: float) -> tuple[float, float]:
    """The percentile interval of resampled values."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def images_drawn(scores: NDArray[Any], positive: NDArray[np.bool_]) -> Drawn:
    """Exact image figures of drawn images."""
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # of each group of equal scores

    def figures(times: Floats) -> dict[str, Floats]:
        counts = (np.add.reduceat((times * part)[:, order], starts, axis=1) for part in (positive, ~positive))
        return curve_figures(steps_of_groups(*counts))

    return figures


def pixels_drawn(maps: NDArray[Any], masks: NDArray[Any], max_fpr: float) -> Drawn:
    """Pixel figures of drawn images, from each image's own counts in groups of scores."""
    positives, negatives, shares, regions = _counts(maps, masks)

    def figures(times: Floats) -> dict[str, Floats]:
        steps = steps_of_groups(times @ positives, times @ negatives)
        if not steps.negatives.all():
            raise VisaError("some draws of these images hold no normal pixel: intervals need more images that do.")
        return curve_figures(steps, times @ shares / (times @ regions)[:, None], max_fpr)

    return figures


def _counts(maps: NDArray[Any], masks: NDArray[Any]) -> tuple[Floats, Floats, Floats, Floats]:
    """Of each image: positives, negatives, regions' shares (N, K) in groups from high to low scores; regions (N,)."""
    found = [checks.positives(image, mask) for image, mask in zip(maps, masks, strict=True)]
    levels = _cuts(np.concatenate([f.scores for f in found]))
    everything, positives, shares = (np.zeros((len(maps), 2 * levels.size + 1)) for _ in range(3))
    for i, (image, f) in enumerate(zip(maps, found, strict=True)):
        tally = Tally(levels)
        tally.add(image)
        everything[i, ::2], everything[i, 1::2] = tally.between, tally.equal
        place = np.searchsorted(levels, f.scores)  # group 2k + 1 is level k, group 2k what lies right below
        group = 2 * place + (levels.take(place, mode="clip") == f.scores)
        positives[i] = np.bincount(group, minlength=positives.shape[1])
        shares[i] = np.bincount(group, f.shares, minlength=positives.shape[1])
    regions = np.array([f.regions for f in found], np.float64)
    return positives[:, ::-1], (everything - positives)[:, ::-1], shares[:, ::-1], regions


def _cuts(scores: NDArray[Any]) -> NDArray[Any]:
    """Up to CUTS of the scores, at equal steps among them: of few, all."""
    ranked = np.sort(scores)
    return np.unique(ranked[np.linspace(0, ranked.size - 1, CUTS).astype(np.int64)])


def _intervals(values: dict[str, float], samples: dict[str, Floats], confidence: float) -> dict[str, Interval]:
    return {name: Interval(values[name], *ends(drawn, confidence)) for name, drawn in samples.items()}
