"""Make the picture of the first page and the README: PaDiM's anomaly maps in a run on mini-VisA.

python book/_ext/overview.py [runs/mini-visa]

One column an object: the anomalous test image with the median image score, so that the choice flatters nobody.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from visa.data.dataset import read_image, resize_image
from visa.data.source import open_source
from visa.detect.scores import load_scores
from visa.errors import VisaError
from visa.paths import runs_root
from visa.report.figures import show_maps, use_style

PICTURE = Path(__file__).resolve().parents[1] / "_static" / "mini_visa_maps.png"
PRETRAINING, SEED, SIZE = "simsiam+spd", 0, 224


def main(run: Path) -> None:
    mpl.use("Agg")
    use_style()
    source = open_source()
    if not source.synthetic:
        raise VisaError("the picture shows mini-VisA: unset VISA_ROOT.")
    columns = [_column(source.root, run, name) for name in source.objects]
    images, maps, masks = (np.stack(part) for part in list(zip(*columns, strict=True)))
    figure = show_maps(images, maps, masks, titles=source.objects, limits=(0, 1))
    figure.savefig(PICTURE, dpi=100, facecolor="white", pil_kwargs={"optimize": True})


def _column(root: Path, run: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, map and mask."""
    scored = run / "scores" / name / PRETRAINING / "all" / f"seed{SEED}" / "1cls"
    s = load_scores(scored / "padim" / "draw0" / "scores.npz")
    bad = np.flatnonzero(s.labels)
    k = bad[np.argsort(s.image_scores[bad])[len(bad) // 2]]
    low, high = np.quantile(s.maps, 0.8), s.maps.max()  # each object has its own colour scale
    image = resize_image(read_image(root / s.paths[k]), (SIZE, SIZE)).numpy()
    return image, (s.maps[k] - low) / (high - low), s.masks[k]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else runs_root() / "mini-visa")
