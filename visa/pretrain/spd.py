"""Settings of the SPD term."""

from dataclasses import dataclass
from typing import Literal

from visa.backbone import STAGES
from visa.errors import VisaError, check_choice
from visa.pretrain.augment import WEAK, View
from visa.pretrain.blend import BLEND, SmoothBlend

FORMS = ("cosine", "cross-entropy")


@dataclass(frozen=True)
class SpdSettings:
    """What the SPD term sees and weighs.

    `eta`: its weight (0.1, the best of the paper's 0.1, 0.5 and 1.0). `form`: "cosine" compares embeddings (L_SPD);
    "cross-entropy" has an auxiliary classifier on the pooled features of `head_layer` say which images are blended:
    always so beside supervised pre-training, and a variant in the paper's ablation elsewhere. `negative_of`: the weak
    view that SmoothBlend perturbs, one of its own or the anchor's. `joint_pass`: the term's images share one batch, and
    with it the statistics of batch normalisation; in separate batches the statistics alone can tell them apart.
    """

    eta: float = 0.1
    form: Literal["cosine", "cross-entropy"] = "cosine"
    head_layer: str = "layer4"
    negative_of: Literal["own view", "anchor"] = "own view"
    joint_pass: bool = True
    weak: View = WEAK
    blend: SmoothBlend = BLEND

    def __post_init__(self) -> None:
        check_choice("form of the SPD term", self.form, FORMS)
        if not 0 <= self.eta <= 1e6:
            raise VisaError(f"eta is {self.eta}: give a weight from 0 on, at most 1e6.")
        check_choice("head_layer", self.head_layer, STAGES)
        check_choice("negative_of", self.negative_of, ("own view", "anchor"))
