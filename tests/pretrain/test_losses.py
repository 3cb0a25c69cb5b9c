"""The losses against sums written out, and where their gradients stop."""

import math

import numpy as np
import pytest
import torch

from visa.pretrain.mocov2 import info_nce
from visa.pretrain.simclr import nt_xent
from visa.pretrain.simsiam import simsiam_loss
from visa.pretrain.spd import feature_std, spd_cross_entropy, spd_loss


def cos(x, y):
    return float(x @ y / (x.norm() * y.norm()))


def naive_cosine(a, b):
    return sum(map(cos, a, b)) / len(a)


def naive_info_nce(q, k, queue, temperature):
    total = 0.0
    for i in range(len(q)):
        positive = math.exp(cos(q[i], k[i]) / temperature)
        negatives = sum(math.exp(cos(q[i], row) / temperature) for row in queue)
        total -= math.log(positive / (positive + negatives))
    return total / len(q)


def naive_nt_xent(z1, z2, temperature):
    z, n, total = [*z1, *z2], len(z1), 0.0
    for i in range(2 * n):
        others = sum(math.exp(cos(z[i], z[j]) / temperature) for j in range(2 * n) if j != i)
        total -= math.log(math.exp(cos(z[i], z[(i + n) % (2 * n)]) / temperature) / others)
    return total / (2 * n)


def embeddings(count, seed=0):
    return torch.randn(count, 8, 5, generator=torch.Generator().manual_seed(seed)).unbind()


@pytest.fixture
def queue():
    return torch.nn.functional.normalize(embeddings(3, seed=9)[0], dim=1)


def test_losses_equal_their_definitions(queue):
    p1, p2, z1, z2 = embeddings(4)
    expected = -(naive_cosine(p1, z2) + naive_cosine(p2, z1)) / 2
    assert np.isclose(float(simsiam_loss(p1, p2, z1, z2)), expected, atol=1e-6)
    anchor, negative, positive = embeddings(3, seed=1)
    expected = naive_cosine(anchor, negative) - naive_cosine(anchor, positive)
    assert np.isclose(float(spd_loss(anchor, negative, positive)), expected, atol=1e-6)
    for t in (0.1, 0.2, 1.0):
        assert np.isclose(float(info_nce(z1, z2, queue, t)), naive_info_nce(z1, z2, queue, t), rtol=1e-5)
        assert np.isclose(float(nt_xent(z1, z2, t)), naive_nt_xent(z1, z2, t), rtol=1e-5)
    assert float(spd_cross_entropy(torch.zeros(3, 2), torch.zeros(3, 2))) == pytest.approx(math.log(2))
    sure = torch.tensor([[50.0, 0.0]])
    assert float(spd_cross_entropy(sure, sure.flip(1))) == pytest.approx(0, abs=1e-6)
    assert float(spd_cross_entropy(sure.flip(1), sure)) == pytest.approx(50)


def test_gradients_stop_where_the_papers_stop_them(queue):
    p1, p2, z1, z2 = (t.requires_grad_() for t in embeddings(4))
    simsiam_loss(p1, p2, z1, z2).backward()
    assert z1.grad is None and z2.grad is None, "SimSiam's projections"
    assert p1.grad.abs().sum() > 0 and p2.grad.abs().sum() > 0
    q, k = (t.requires_grad_() for t in embeddings(2))
    info_nce(q, k, queue.requires_grad_(), 0.2).backward()
    assert k.grad is None and queue.grad is None and q.grad.abs().sum() > 0, "MoCo's keys"


def test_feature_std_tells_spread_from_collapse():
    spread = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0))
    assert 0.97 < float(feature_std(spread)) < 1.03
    assert float(feature_std(torch.ones(16, 32))) < 1e-3


def test_autocast_does_not_round_the_logits(queue):
    z1, z2 = embeddings(2, seed=4)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = nt_xent(z1, z2, 0.1), info_nce(z1, z2, queue, 0.1)
    exact = nt_xent(z1, z2, 0.1), info_nce(z1, z2, queue, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(mixed, exact, strict=True))
