"""The losses, as pure functions of embeddings N,D or logits N,C."""

import torch
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


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo's -log softmax of the positive key among itself and the queue's K,D keys (He et al. 2020, equation 1).

    Queries and keys N,D are normalised here, the queue's keys are unit vectors; no gradient reaches the keys.
    """
    with _in_float32(q):
        q, k = F.normalize(q.float(), dim=1), F.normalize(k.detach().float(), dim=1)
        positive = (q * k).sum(1, keepdim=True)
        logits = torch.cat([positive, q @ queue.detach().T], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """SimCLR's normalised temperature-scaled cross-entropy (Chen et al. 2020, equation 1).

    Row i of z1 and of z2, N,D, are views of one image; each of the 2N embeddings is told from the 2N - 2 others.
    """
    with _in_float32(z1):
        z = F.normalize(torch.cat([z1, z2]).float(), dim=1)
        logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
        return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z1)))


def spd_loss(z_anchor: Tensor, z_negative: Tensor, z_positive: Tensor) -> Tensor:
    """L_SPD = cos(z(anchor), z(negative)) - cos(z(anchor), z(positive)), a mean in [-2,2] (paper, section 3.2).

    The gradient flows through all three embeddings. They come from the projection head, not from SimSiam's
    predictor: a predictor learns to point away from the negative while the embeddings stay as they are.
    """
    return (cosine(z_anchor, z_negative) - cosine(z_anchor, z_positive)).mean()


def spd_cross_entropy(clean: Tensor, blended: Tensor) -> Tensor:
    """Cross-entropy of an auxiliary classifier that says which images carry a local perturbation.

    Logits N,2 of N clean and of N blended images. SPD's form beside supervised pre-training (paper, section 3.2), and
    the variant that the paper's ablation sets against `spd_loss`.
    """
    labels = torch.arange(2, device=clean.device).repeat_interleave(len(clean))
    return F.cross_entropy(torch.cat([clean, blended]), labels)


def _in_float32(z: Tensor) -> torch.autocast:
    """Autocast switched off: divided by a small temperature, bfloat16's rounding of a cosine is no longer small."""
    return torch.autocast("cpu" if z.is_meta else z.device.type, enabled=False)
