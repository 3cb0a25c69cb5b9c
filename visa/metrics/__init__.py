"""Image and pixel figures, exact or with a certified error, their intervals, and the reference tool's two functions.

Exact, in memory: `image_metrics`, `pixel_metrics`. From a stream of any size: `PixelMetrics` (one pass, error stated)
and `ExactPixelMetrics` (two passes). Over images: `image_intervals`, `pixel_intervals`, `compare_runs`, `delong`.
Two areas go by the name of AU-PR. The reference tool, and so the paper, takes the trapezoid under the precision-recall
curve: `au_pr` here. Average precision, the step-wise sum, is `ap`. They differ most where positives are few.
Loops are compiled when they first meet arrays of a kind; that takes a second, and the machine code is kept.
"""

from visa.metrics.exact import ExactPixelMetrics, image_metrics, pixel_metrics
from visa.metrics.histogram import PixelMetrics
from visa.metrics.intervals import Interval, image_intervals, pixel_intervals
from visa.metrics.paired import Difference, Scored, compare_images, compare_pixels, compare_runs, delong
from visa.metrics.reference import compute_classification_metrics, compute_localization_metrics

__all__ = [
    "Difference",
    "ExactPixelMetrics",
    "Interval",
    "PixelMetrics",
    "Scored",
    "compare_images",
    "compare_pixels",
    "compare_runs",
    "compute_classification_metrics",
    "compute_localization_metrics",
    "delong",
    "image_intervals",
    "image_metrics",
    "pixel_intervals",
    "pixel_metrics",
]
