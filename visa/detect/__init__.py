"""The detectors by name: the module of each, the setups that it is trained in, and the version of its results."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorEntry:
    """A row of DETECTORS.

    `module`: its module, imported at first use, so that planning and help start without torch. The module defines
    `score_split(context, split)`, which returns scores (N,) and maps (N, h, w), or None, of the split's test images.
    `one_class`: it trains on normal images alone (setup 1cls) and can be deployed (see `visa.detect.shared.OneClass`);
    otherwise it trains on both classes. `settings`: the fields of `visa.detect.shared.ScoreSettings` that it reads.
    `version`: raise it when the same backbone, data and settings give other scores; scores of an earlier version are
    then computed again. `default`: it runs if no detectors are named.
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
