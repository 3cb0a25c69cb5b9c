"""Measure what a pre-training learned.

It is measured on held-out images, in evaluation mode, on z and on the backbone's features. A low SPD loss is no
evidence: a predictor or the batch statistics of training can lower it by themselves.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from visa.backbone import normalize
from visa.pretrain.augment import Draws, random_view
from visa.pretrain.smoothblend import draw_patches, smooth_blend
from visa.pretrain.spd import SpdSettings, cosine, feature_std

VIEWS = 200  # views of each kind

BASE_LEARNED = 0.25
"""Least share of the way from chance to its best value that the base loss of a learned training has come."""

TERM_LEARNED = 0.75
"""Least accuracy of the SPD term on held-out images, where chance is .5."""

SPREAD_LEARNED = 0.5
"""Least standard deviation of the embeddings (see `feature_std`), over images in the base loss's passes and over the
anchors in the SPD term's."""


@torch.no_grad()
def diagnose(method: Any, images: Tensor, side: int, spd: SpdSettings, seed: int = 0) -> dict[str, float]:
    """Measure a linear probe on a method's `backbone`, the cosines of its `embed` and its SPD classifier's accuracy.

    `images` are held-out normal ones, uint8 N,3,H,W, each drawn several times if there are fewer than VIEWS.
    `cos_weak`: mean cos z(w), z(w2) of two weak views; `cos_blend`: of w and SmoothBlend(w); `triplet`: share of images
    with cos(w, w2) > cos(w, SmoothBlend(w)), near 0 if z responds to global changes only and 1 at best; `triplet_own`:
    the same against the blend of a third weak view, as in training, where chance is .5; `feature_std` of z over images:
    1 spread, 0 collapsed. `probe_auroc`, `probe_accuracy`: how well the probe separates SmoothBlend-ed from clean views
    by their pooled features, in five-fold cross-validation with all views of an image in one fold; chance is .5 for
    both. `spd_accuracy`: the auxiliary classifier's. Values that need a part that the method lacks are left out.
    """
    method.eval()
    views = _views(images, side, spd, seed)
    found = _probe(method.backbone, views[1], views[2], len(images), seed)
    if getattr(getattr(method, "spd", None), "head", None):
        pairs = zip(torch.split(views[0], 50), torch.split(views[3], 50), strict=True)
        right = [len(pair[0]) * method.spd.classified(method.backbone, *pair)["spd_accuracy"] for pair in pairs]
        found["spd_accuracy"] = float(torch.stack(right).sum() / len(views[0]))
    if not hasattr(method, "embed"):
        return found
    z, z2, z_blend, z_own = (_batched(method.embed, view) for view in views)
    weak, local = cosine(z, z2), cosine(z, z_blend)
    return {
        "cos_weak": float(weak.mean()),
        "cos_blend": float(local.mean()),
        "triplet": float((weak > local).float().mean()),
        "triplet_own": float((weak > cosine(z, z_own)).float().mean()),
        "feature_std": float(feature_std(z)),
        **found,
    }


def judge(method: Any, curves: Sequence[Mapping[str, float]], diagnosis: Mapping[str, float]) -> dict[str, float]:
    """Decide whether a training learned, by thresholds fixed in advance: BASE_LEARNED, TERM_LEARNED, SPREAD_LEARNED.

    `curves`: rows of loss terms, of which the last tenth, at least ten, count; `diagnosis`: see `diagnose`.
    `base_gain`: how far the base loss has fallen from chance (equal classes, cosine 0) to its best value, as a share;
    `spread`: the least standard deviation of embeddings; `term`: accuracy of the SPD term on held-out images.
    `learned` is 1 if each of these values that the method has reaches its threshold, else 0.
    """
    last = curves[-max(10, len(curves) // 10) :]
    means = {name: sum(row[name] for row in last) / len(last) for name in last[0]}
    found = {}
    if (chance := getattr(method, "chance", None)) is not None:
        found["base_gain"] = (chance - means["base"]) / (chance - getattr(method, "best", 0.0))
    if spreads := [means[name] for name in ("feature_std", "spd_std") if name in means]:
        found["spread"] = min(spreads)
    if "spd" in means:
        found["term"] = diagnosis["spd_accuracy" if "spd_accuracy" in diagnosis else "triplet_own"]
    gates = {"base_gain": BASE_LEARNED, "spread": SPREAD_LEARNED, "term": TERM_LEARNED}
    return found | {"learned": float(all(value >= gates[name] for name, value in found.items()))}


def _views(images: Tensor, side: int, spd: SpdSettings, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw two weak views, and SmoothBlend of the first and of a third one."""
    draws = Draws(torch.Generator(images.device).manual_seed(seed))
    x = images.repeat(math.ceil(VIEWS / len(images)), 1, 1, 1)
    w, w2, w3 = (random_view(x, side, spd.weak, draws) for _ in range(3))
    patches = draw_patches(len(x), side, spd.blend, draws)
    return w, w2, smooth_blend(w, patches, spd.blend.onto)[0], smooth_blend(w3, patches, spd.blend.onto)[0]


def _probe(backbone: nn.Module, clean: Tensor, blended: Tensor, images: int, seed: int) -> dict[str, float]:
    views = (clean, blended)
    x = torch.cat([_batched(lambda v: backbone(normalize(v, backbone)), view) for view in views]).cpu().numpy()
    y = np.repeat([0, 1], len(clean))
    folds = np.random.default_rng(seed).permutation(images) % 5
    image_fold = np.resize(folds, len(x))  # rows go through the images over and over
    splits = [(np.flatnonzero(image_fold != k), np.flatnonzero(image_fold == k)) for k in range(5)]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    scores = cross_val_predict(model, x, y, cv=splits, method="decision_function")
    return {"probe_auroc": float(roc_auc_score(y, scores)), "probe_accuracy": float(((scores > 0) == y).mean())}


def _batched(function: Callable[[Tensor], Tensor], images: Tensor, size: int = 64) -> Tensor:
    return torch.cat([function(images[i : i + size]) for i in range(0, len(images), size)])
