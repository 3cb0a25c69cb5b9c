"""The detectors by name: where each lies, which setups train it, and the version of its results."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorEntry:
    """A row of DETECTORS.

    `module`: its file, imported when it is used, so that planning and help start without torch. It offers
    `score_split(context, split)`: the scores (N,) and maps (N, h, w), or None, of the split's test images.
    `one_class`: it trains on normal images alone (setup 1cls), else on both classes; one that does can be deployed,
    too (see `visa.detect.shared.OneClass`). `settings`: the fields of `visa.detect.shared.ScoreSettings`
    that it reads. `version`: raise it when the same backbone, data and settings give other scores; scores of an earlier
    version are then made anew. `default`: it runs where nobody chooses.
    """

    module: str
    one_class: bool
    settings: tuple[str, ...]
    version: int
    default: bool


DETECTORS = {
    "padim": DetectorEntry("visa.detect.padim", one_class=True, settings=("seed",), version=2, default=True),
    "patchcore": DetectorEntry(
        "visa.detect.patchcore", one_class=True, settings=("seed", "coreset_ratio"), version=2, default=True
    ),
    "probe": DetectorEntry("visa.detect.probe", one_class=False, settings=(), version=2, default=True),
    "classifier": DetectorEntry(
        "visa.detect.classifier", one_class=False, settings=("seed", "two_class"), version=3, default=False
    ),
    "unet": DetectorEntry(
        "visa.detect.unet", one_class=False, settings=("seed", "two_class"), version=3, default=False
    ),
}
