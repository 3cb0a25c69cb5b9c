"""What a pre-training learned.

It is judged on held-out images, in evaluation mode, on z and on the backbone. The SPD loss itself is no evidence: a
predictor or the batch statistics of training can bring it down alone.
"""

import math
from collections.abc import Callable
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
from visa.pretrain.simsiam import feature_std
from visa.pretrain.smoothblend import draw_patches, smooth_blend
from visa.pretrain.spd import SpdSettings, cosine

VIEWS = 200  # of each kind that are judged


@torch.no_grad()
def diagnose(method: Any, images: Tensor, side: int, spd: SpdSettings, seed: int = 0) -> dict[str, float]:
    """Measure a linear probe on a method's `backbone`, and the cosines of its `embed` where it has one.

    `images` are held-out normal ones, uint8 N,3,H,W; few are drawn several times, to VIEWS of each kind.
    `cos_weak`: mean cos z(w), z(w2) of two weak views; `cos_blend`: of w and SmoothBlend(w); `triplet`: share of images
    with cos(w, w2) > cos(w, SmoothBlend(w)), near 0 where only global change is seen and 1 at best; `triplet_own`: the
    same against the blend of a third weak view, as in training, where chance is .5; `feature_std` of z over images: 1
    spread, 0 collapsed. `probe_auroc`, `probe_accuracy`: how well the probe tells SmoothBlend-ed views from clean by
    their pooled features, in five folds, with both views of an image in one; chance is .5 for both.
    """
    method.eval()
    views = _views(images, side, spd, seed)
    found = _probe(method.backbone, views[1], views[2], len(images), seed)
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


def _views(images: Tensor, side: int, spd: SpdSettings, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two weak views, and SmoothBlend of the first and of a third."""
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
