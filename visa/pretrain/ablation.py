"""The paper's ablations of the SPD term, as named variants of its settings."""

from dataclasses import replace

from visa.pretrain.blend import BLEND, CUTPASTE
from visa.pretrain.spd import SpdSettings

REFERENCE = "reference"


def variants(eta: float) -> dict[str, SpdSettings | None]:
    """Name to settings; all but the first differ from `reference` (weight `eta`) in what their name says.

    The paper reports the three weights, a CutPaste-like hard edge and a cross-entropy form; the strengths are ours.
    """
    reference = SpdSettings(eta=eta)
    blends = {
        "hard edge": CUTPASTE,
        "no dark rim": replace(BLEND, onto="shifted"),
        "faint colour": replace(BLEND, jitter=(0.1, 0.1, 0.1, 0.02)),
        "small patches": replace(BLEND, area=(0.002, 0.02)),
        "large patches": replace(BLEND, area=(0.08, 0.2)),
    }
    return {
        "no SPD": None,
        REFERENCE: reference,
        **{f"eta {e}": SpdSettings(eta=e) for e in (0.1, 0.5, 1.0) if e != eta},
        "cross-entropy": replace(reference, form="cross-entropy"),
        **{name: replace(reference, blend=blend) for name, blend in blends.items()},
        "blend of the anchor": replace(reference, negative_of="anchor"),
        "separate batches": replace(reference, joint_pass=False),
    }
