"""What a pre-training learned, judged where training could not cheat: held-out images, evaluation mode, z and backbone.

The SPD loss itself is no evidence: a predictor or the batch statistics of training can bring it down alone.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from visa.backbone import normalize
from visa.pretrain.augment import draw_patches, random_view, smooth_blend
from visa.pretrain.losses import cosine
from visa.pretrain.methods import SimSiam, SpdSettings


@torch.no_grad()
def diagnose(method: SimSiam, images: Tensor, side: int, spd: SpdSettings, seed: int = 0) -> dict[str, float]:
    """Cosines and probe on held-out normal images, uint8 N,3,H,W.

    `cos_weak`: mean cos z(w), z(w2) of two weak views; `cos_blend`: of w and SmoothBlend(w); `triplet`: share of
    images with cos(w, w2) > cos(w, blend), 1 is best; `probe_auroc`: see `probe_backbone`.
    """
    w, w2, blend = _views(images, side, spd, seed)
    method.eval()
    z, z2, zb = (_batched(method.embed, view) for view in (w, w2, blend))
    weak, local = cosine(z, z2), cosine(z, zb)
    return {
        "cos_weak": float(weak.mean()),
        "cos_blend": float(local.mean()),
        "triplet": float((weak > local).float().mean()),
        "probe_auroc": probe_backbone(method.backbone, images, side, spd, seed),
    }


@torch.no_grad()
def probe_backbone(backbone: nn.Module, images: Tensor, side: int, spd: SpdSettings, seed: int = 0) -> float:
    """Five-fold AU-ROC of a linear probe on pooled features that tells SmoothBlend-ed views from clean ones.

    `images` are held-out, uint8 N,3,H,W; both views of an image lie in one fold.
    """
    _, clean, blend = _views(images, side, spd, seed)
    backbone.eval()

    def pooled(view: Tensor) -> Tensor:
        features: Tensor = backbone(normalize(view, backbone))
        return features

    return _probe(_batched(pooled, clean), _batched(pooled, blend), seed)


def _views(images: Tensor, side: int, spd: SpdSettings, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two weak views, and SmoothBlend of the first."""
    generator = torch.Generator(images.device).manual_seed(seed)
    x = images.float() / 255
    w, w2 = (random_view(x, side, spd.weak, generator) for _ in range(2))
    blend, _ = smooth_blend(w, draw_patches(w, spd.blend, generator), spd.blend.onto)
    return w, w2, blend


def _probe(clean: Tensor, blended: Tensor, seed: int) -> float:
    x = torch.cat([clean, blended]).cpu().numpy()
    y = np.repeat([0, 1], len(clean))
    folds = np.random.default_rng(seed).permutation(len(clean)) % 5
    image_fold = np.tile(folds, 2)
    splits = [(np.flatnonzero(image_fold != k), np.flatnonzero(image_fold == k)) for k in range(5)]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    scores = cross_val_predict(model, x, y, cv=splits, method="decision_function")
    return float(roc_auc_score(y, scores))


def _batched(function: Callable[[Tensor], Tensor], images: Tensor, size: int = 64) -> Tensor:
    return torch.cat([function(images[i : i + size]) for i in range(0, len(images), size)])
