"""The losses against sums written out, closed forms, their gradients' directions, and stop-gradients."""

import math

import numpy as np
import pytest
import torch

from visa.pretrain.mocov2 import info_nce
from visa.pretrain.simclr import nt_xent
from visa.pretrain.simsiam import feature_std, negative_cosine, simsiam_loss
from visa.pretrain.spd import spd_cross_entropy, spd_loss


def naive_cosine(a, b):
    return sum(float(x @ y / (x.norm() * y.norm())) for x, y in zip(a, b, strict=True)) / len(a)


def cos(x, y):
    return float(x @ y / (x.norm() * y.norm()))


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


def test_closed_forms():
    z = torch.eye(4)
    assert float(negative_cosine(z, 3 * z)) == -1
    assert float(spd_loss(z, -z, z)) == -2 and float(spd_loss(z, z, -z)) == 2
    assert float(spd_loss(z, z, z)) == 0
    # all similarities equal: one among 1 + K keys, and one among 2N - 1 others
    one = torch.ones(4, 3)
    unit = torch.nn.functional.normalize(torch.ones(10, 3), dim=1)
    assert float(info_nce(one, one, unit, 0.2)) == pytest.approx(math.log(11), abs=1e-5)
    assert float(nt_xent(one, one, 0.1)) == pytest.approx(math.log(7), abs=1e-5)
    assert float(nt_xent(z, z, 0.01)) == pytest.approx(0, abs=1e-5), "orthogonal images, equal views"
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


def test_a_step_down_a_loss_moves_embeddings_where_it_should(queue):
    def stepped(loss, count, rate):
        before = [t.requires_grad_() for t in embeddings(count, seed=2)]
        loss(*before).backward()
        assert all(t.grad.abs().sum() > 0 for t in before)
        return [t.detach() for t in before], [(t - rate * t.grad).detach() for t in before]

    (z1, z2), (after1, after2) = stepped(lambda a, b: nt_xent(a, b, 0.5), 2, 1.0)
    assert naive_cosine(after1, after2) > naive_cosine(z1, z2), "SimCLR pulls views together"
    (anchor, negative, positive), (moved, _, _) = stepped(spd_loss, 3, 0.1)
    assert naive_cosine(moved, negative) < naive_cosine(anchor, negative)
    assert naive_cosine(moved, positive) > naive_cosine(anchor, positive)


def test_the_order_of_the_batch_does_not_matter(queue):
    tensors = embeddings(4, seed=3)
    order = torch.randperm(8)
    shuffled = [t[order] for t in tensors]
    for loss, count in ((simsiam_loss, 4), (spd_loss, 3)):
        assert torch.allclose(loss(*tensors[:count]), loss(*shuffled[:count]), atol=1e-6)
    assert torch.allclose(nt_xent(*tensors[:2], 0.1), nt_xent(*shuffled[:2], 0.1), atol=1e-5)
    assert torch.allclose(info_nce(*tensors[:2], queue, 0.1), info_nce(*shuffled[:2], queue[order], 0.1), atol=1e-5)
    clean, blended = tensors[0][:, :2], tensors[1][:, :2]
    assert torch.allclose(spd_cross_entropy(clean, blended), spd_cross_entropy(clean[order], blended[order]), atol=1e-6)


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
