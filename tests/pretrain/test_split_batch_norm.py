"""Batch norm over groups of a batch equals a batch norm that sees each group alone."""

import copy

import pytest
import torch
from torch import nn

from visa.backbone import create_backbone
from visa.pretrain.split_batch_norm import split_batch_norm


@pytest.fixture
def net():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU()).train()


def test_each_group_is_normalised_alone(net):
    x = torch.randn(6, 3, 8, 8)
    alone = copy.deepcopy(net)
    split = split_batch_norm(copy.deepcopy(net), group=2)
    assert torch.allclose(split(x), torch.cat([copy.deepcopy(alone)(part) for part in x.split(2)]), atol=1e-5)
    means = []
    for part in x.split(2):
        fresh = copy.deepcopy(alone)
        fresh(part)
        means.append(fresh[1].running_mean)
    assert torch.allclose(split[1].running_mean, torch.stack(means).mean(0), atol=1e-6)
    assert torch.allclose(split.eval()(x[:1]), split(x)[:1], atol=1e-6), "in evaluation mode images stand alone"


def test_gradients_are_those_of_the_groups(net):
    x = torch.randn(6, 3, 8, 8)
    split = split_batch_norm(copy.deepcopy(net), group=3)
    split(x).pow(2).sum().backward()
    for part in x.split(3):
        net(part).pow(2).sum().backward()
    for own, theirs in zip(split.parameters(), net.parameters(), strict=True):
        assert torch.allclose(own.grad, theirs.grad, atol=1e-3, rtol=1e-3)


def test_a_batch_that_the_group_does_not_divide_is_one_group(net):
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(split_batch_norm(copy.deepcopy(net), group=2)(x), net(x))


@pytest.mark.parametrize("arch", ["resnet18", "timm/tf_efficientnet_lite0"])
def test_weights_and_names_stay(arch):
    plain = create_backbone(arch)
    split = split_batch_norm(create_backbone(arch), group=2)
    assert plain.state_dict().keys() == split.state_dict().keys()
    split.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert torch.allclose(plain.train()(x), split.train()(x), atol=1e-5)


def test_passes_of_one_and_of_several_groups_go_back_together(net):
    """A query of one group and SPD's images in several, as in MoCo with a batch of the group's size."""
    split = split_batch_norm(copy.deepcopy(net), group=2)
    one, several = torch.randn(2, 3, 8, 8), torch.randn(6, 3, 8, 8)
    (split(one).pow(2).sum() + split(several).pow(2).sum()).backward()
    for part in (one, *several.split(2)):
        net(part).pow(2).sum().backward()
    for own, theirs in zip(split.parameters(), net.parameters(), strict=True):
        assert torch.allclose(own.grad, theirs.grad, atol=1e-3, rtol=1e-3)
