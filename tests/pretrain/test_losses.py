"""The losses against sums written out, their gradients' directions, and stop-gradients."""

import numpy as np
import torch

from visa.pretrain.losses import negative_cosine, simsiam_loss, spd_loss
from visa.pretrain.methods import feature_std


def naive_cosine(a, b):
    return sum(float(x @ y / (x.norm() * y.norm())) for x, y in zip(a, b, strict=True)) / len(a)


def embeddings(count, seed=0):
    return torch.randn(count, 8, 5, generator=torch.Generator().manual_seed(seed)).unbind()


def test_losses_equal_their_definitions():
    p1, p2, z1, z2 = embeddings(4)
    expected = -(naive_cosine(p1, z2) + naive_cosine(p2, z1)) / 2
    assert np.isclose(float(simsiam_loss(p1, p2, z1, z2)), expected, atol=1e-6)
    anchor, negative, positive = embeddings(3, seed=1)
    expected = naive_cosine(anchor, negative) - naive_cosine(anchor, positive)
    assert np.isclose(float(spd_loss(anchor, negative, positive)), expected, atol=1e-6)


def test_closed_forms():
    z = torch.eye(4)
    assert float(negative_cosine(z, 3 * z)) == -1
    assert float(spd_loss(z, -z, z)) == -2 and float(spd_loss(z, z, -z)) == 2
    assert float(spd_loss(z, z, z)) == 0


def test_simsiam_stops_the_gradient_of_z():
    p1, p2, z1, z2 = (t.requires_grad_() for t in embeddings(4))
    simsiam_loss(p1, p2, z1, z2).backward()
    assert z1.grad is None and z2.grad is None
    assert p1.grad.abs().sum() > 0 and p2.grad.abs().sum() > 0


def test_a_step_down_spd_moves_anchor_from_negative_and_towards_positive():
    anchor, negative, positive = (t.requires_grad_() for t in embeddings(3, seed=2))
    spd_loss(anchor, negative, positive).backward()
    for t in (anchor, negative, positive):
        assert t.grad.abs().sum() > 0, "the gradient flows through all three"
    after = (anchor - 0.1 * anchor.grad).detach()
    assert naive_cosine(after, negative) < naive_cosine(anchor, negative)
    assert naive_cosine(after, positive) > naive_cosine(anchor, positive)


def test_the_order_of_the_batch_does_not_matter():
    tensors = embeddings(4, seed=3)
    order = torch.randperm(8)
    shuffled = [t[order] for t in tensors]
    assert torch.allclose(simsiam_loss(*tensors), simsiam_loss(*shuffled), atol=1e-6)
    assert torch.allclose(spd_loss(*tensors[:3]), spd_loss(*shuffled[:3]), atol=1e-6)


def test_feature_std_tells_spread_from_collapse():
    spread = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0))
    assert 0.97 < float(feature_std(spread)) < 1.03
    assert float(feature_std(torch.ones(16, 32))) < 1e-3
