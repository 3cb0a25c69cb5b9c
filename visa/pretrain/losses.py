"""The losses, as pure functions of embeddings N,D."""

import torch.nn.functional as F
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of N pairs of embeddings N,D: N values in [-1,1]."""
    return F.cosine_similarity(a, b, dim=1)


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """SimSiam's D(p, stopgrad(z)), a mean in [-1,1] (Chen & He 2021, equations 1 and 3)."""
    return -cosine(p, z.detach()).mean()


def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """The symmetric loss D(p1, stopgrad(z2))/2 + D(p2, stopgrad(z1))/2 (Chen & He 2021, equation 4)."""
    return (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2


def spd_loss(z_anchor: Tensor, z_negative: Tensor, z_positive: Tensor) -> Tensor:
    """L_SPD = cos(z(anchor), z(negative)) - cos(z(anchor), z(positive)), a mean in [-2,2] (paper, section 3.2).

    The gradient flows through all three embeddings. They come from the projection head, not from SimSiam's
    predictor: a predictor learns to point away from the negative while the embeddings stay as they are.
    """
    return (cosine(z_anchor, z_negative) - cosine(z_anchor, z_positive)).mean()
