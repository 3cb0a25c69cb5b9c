"""Image and pixel metrics, exact, with intervals and paired tests; and the reference tool's two functions.

On all images of a test set in memory: `image_metrics`, `pixel_metrics`. Bootstrap over images: `image_intervals`,
`pixel_intervals`. Two runs on the same images: `compare_runs`, `compare_images`, `compare_pixels`, `delong`.
Two areas go by the name of AU-PR. The reference tool, and so the paper, takes the trapezoid under the precision-recall
curve: `au_pr` here. Average precision, the step-wise sum, is `ap`. They differ most where positives are few.
"""

from visa.metrics.exact import image_metrics, pixel_metrics
from visa.metrics.intervals import Interval, image_intervals, pixel_intervals
from visa.metrics.paired import Difference, Scored, compare_images, compare_pixels, compare_runs, delong
from visa.metrics.reference import compute_classification_metrics, compute_localization_metrics

__all__ = [
    "Difference",
    "Interval",
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
