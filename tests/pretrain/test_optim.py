"""Optimisers and schedules against closed forms and slow re-derivations."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from visa.pretrain.settings import PretrainSettings
from visa.pretrain.train import build_optimizer, learning_rate, set_lr

LARS = PretrainSettings(optimizer="lars", batch_size=256, base_lr=0.3, weight_decay=1e-2, epochs=10)


class Method(nn.Module):
    """A weight, a bias and norm scales, a frozen layer, and a predictor."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
            self.key_backbone = nn.Linear(3, 4).requires_grad_(False)
            self.predictor = nn.Linear(4, 2)

    def loss(self, seed):
        x = torch.rand(8, 3, generator=torch.Generator().manual_seed(seed))
        return self.predictor(self.backbone(x)).square().mean()


def test_schedules_have_their_closed_forms():
    settings = PretrainSettings(epochs=10, batch_size=512, base_lr=0.05, warmup_epochs=2)
    assert learning_rate(settings, 1.0) == pytest.approx(0.1 / 2) and learning_rate(settings, 2.0) == 0.1
    assert learning_rate(settings, 6.0) == pytest.approx(0.1 / 2)
    assert learning_rate(settings, 4.0) == pytest.approx(0.1 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(settings, 10.0) == pytest.approx(0, abs=1e-12)
    assert learning_rate(replace(settings, warmup_epochs=0), 0.0) == 0.1
    steps = PretrainSettings(epochs=90, batch_size=256, base_lr=0.1, schedule="steps")
    rates = [learning_rate(steps, e) for e in (0, 29.9, 30, 59.9, 60, 89.9)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_the_predictor_keeps_its_rate_after_warm_up(optimizer):
    settings = PretrainSettings(epochs=10, batch_size=256, base_lr=0.05, warmup_epochs=2, optimizer=optimizer)
    method = Method()
    built = build_optimizer(method, settings)
    predictor = {id(p) for p in method.predictor.parameters()}

    def rates(epoch):
        set_lr(built, settings, epoch)
        return {(id(p) in predictor, round(g["lr"], 9)) for g in built.param_groups for p in g["params"]}

    assert rates(1.0) == {(True, 0.025), (False, 0.025)}
    assert rates(6.0) == {(True, 0.05), (False, 0.025)}


@pytest.mark.parametrize("settings", [LARS, replace(LARS, weight_decay=0.0)])
def test_three_steps_of_lars_against_a_slow_re_derivation(settings):
    fast, slow = Method(), Method()
    optimizer = build_optimizer(fast, settings)
    trained = [p for p in slow.parameters() if p.requires_grad]
    momenta = [torch.zeros_like(p) for p in trained]
    for seed in range(3):
        set_lr(optimizer, settings, 0.0)
        optimizer.zero_grad()
        fast.loss(seed).backward()
        optimizer.step()
        gradients = torch.autograd.grad(slow.loss(seed), trained)
        for w, g, v in zip(trained, gradients, momenta, strict=True):
            naive_step(settings, w, g, v)
    for a, b in zip(fast.parameters(), slow.parameters(), strict=True):  # frozen ones among them
        assert torch.allclose(a, b, atol=1e-6)


@torch.no_grad()
def naive_step(settings, w, g, v):
    """LARS by You et al. 2017, algorithm 1, with coefficient 0.001; plain SGD for biases and norms, undecayed."""
    wd = settings.weight_decay
    if w.ndim > 1:
        local = 0.001 * w.norm() / (g.norm() + wd * w.norm())
        g = local * (g + wd * w)
    v.mul_(settings.momentum).add_(g)
    w.sub_(settings.lr * v)
