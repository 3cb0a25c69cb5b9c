"""The interface of the methods and what sets each apart: heads, stop-gradients, MoCo's queue and keys, the SPD term."""

import copy

import pytest
import torch
from torch import nn

from visa.backbone import create_backbone, normalize, stage_maps
from visa.errors import VisaError
from visa.pretrain import METHODS
from visa.pretrain import settings as settings_module
from visa.pretrain.augment import Draws, Views
from visa.pretrain.mocov2 import info_nce, split_batch_norm
from visa.pretrain.settings import PretrainSettings, build, configured, published
from visa.pretrain.simsiam import SimSiam
from visa.pretrain.spd import SpdSettings, spd_cross_entropy, spd_loss, spd_views

SIDE = 16
OF_PAPER = [name for name in METHODS if name != "auxiliary"]  # those that there are without the SPD term, too


pytestmark = pytest.mark.usefixtures("tiny")


def small_net():
    return settings_module.create_backbone("resnet18", 0)


def settings(method, **changes):
    return published(method, **{"batch_size": 8, "queue": 20, "image_size": SIDE} | changes)


def made(method, spd=None, **changes):
    return build(settings(method, spd=spd, **changes), classes=4)


def views(count=8, seed=0, spd=True):
    g = torch.Generator().manual_seed(seed)
    first, second, *three = torch.rand(5, count, 3, SIDE, SIDE, generator=g).unbind()
    return Views(
        first, second, torch.arange(count) % 4, tuple(three) if spd else None, torch.randperm(count, generator=g)
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", [None, "cosine", "cross-entropy"])
def test_terms_add_up_and_every_trained_weight_gets_a_gradient(method, form):
    spd = SpdSettings(eta=0.3, form=form) if form else None
    if method == "auxiliary" and not form:
        with pytest.raises(VisaError, match="the SPD term alone: leave spd on"):
            made(method)
        return
    learner = made(method, spd).train()
    terms = learner(views())
    assert all(t.ndim == 0 for t in terms.values())
    eta = 1.0 if method == "auxiliary" else 0.3  # it is SPD's term alone
    assert torch.isclose(terms["loss"], terms["base"] + eta * terms.get("spd", torch.tensor(0.0)))
    assert ("spd" in terms) is bool(form)
    terms["loss"].backward()
    for name, p in learner.named_parameters():
        assert (p.grad is not None) is p.requires_grad, name


@pytest.mark.parametrize("method", OF_PAPER)
def test_with_and_without_spd_start_from_the_same_weights(method):
    plain, spd = (made(method, s, seed=3) for s in (None, SpdSettings(form="cross-entropy")))
    assert all(torch.equal(v, spd.state_dict()[k]) for k, v in plain.state_dict().items())
    other = made(method, seed=4)
    assert any(not torch.equal(v, other.state_dict()[k]) for k, v in plain.state_dict().items())


def test_the_published_heads():
    def kinds(head):
        return [type(m).__name__.removesuffix("1d") for m in head]

    simsiam, moco, simclr = SimSiam(small_net(), settings("simsiam")), made("mocov2"), made("simclr")
    assert kinds(simsiam.projector) == ["Linear", "BatchNorm", "ReLU"] * 2 + ["Linear", "BatchNorm"]
    assert not simsiam.projector[-1].affine and simsiam.embed(torch.rand(2, 3, SIDE, SIDE)).shape == (2, 2048)
    assert [m.out_features for m in simsiam.predictor if isinstance(m, nn.Linear)] == [512, 2048]
    assert kinds(moco.projector) == ["Linear", "ReLU", "Linear"]
    assert moco.projector[0].out_features == 12 and moco.projector[2].out_features == 128
    assert kinds(simclr.projector) == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm"]
    assert not simclr.projector[-1].bias.requires_grad and simclr.projector[-1].weight.requires_grad
    assert published("simclr").lr == pytest.approx(4.8)


@pytest.mark.parametrize("method", OF_PAPER)
def test_residual_branches_start_at_zero_where_the_paper_says_so(monkeypatch, method):
    monkeypatch.undo()
    for block in made(method, arch="resnet18").backbone.layer3:
        assert bool((block.bn2.weight == 0).all()) is (method in ("simsiam", "simclr"))


def test_moco_s_queue_holds_the_newest_keys_around_its_end():
    moco = made("mocov2").train()
    kept = list(moco.queue.clone())
    at = 0
    for step in range(7):
        v, before = views(8, seed=step, spd=False), torch.stack(kept)
        base = moco(v)["base"]
        with torch.no_grad():  # the key encoder as it is after its step, in training mode as in the forward pass
            keys = nn.functional.normalize(
                moco.key_projector(moco.key_backbone(normalize(v.second, moco.backbone))), dim=1
            )
            expected = info_nce(moco.embed(v.first), keys, before, moco.temperature)
        assert torch.isclose(base, expected, atol=1e-5), "compared with the queue as it was before the batch"
        for key in keys:
            kept[at % 20], at = key, at + 1
        assert torch.allclose(moco.queue, torch.stack(kept), atol=1e-5)
        assert int(moco.queue_at) == at % 20


def test_the_key_encoder_follows_by_its_momentum_and_gets_no_gradient():
    moco = made("mocov2", key_momentum=0.9).train()
    with torch.no_grad():
        for p in (*moco.backbone.parameters(), *moco.projector.parameters()):
            p.add_(1.0)
    before = [p.clone() for p in moco.key_backbone.parameters()]
    moco(views(spd=False))["loss"].backward()
    for old, new in zip(before, moco.key_backbone.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1, atol=1e-5) and new.grad is None
    still = [p.clone() for p in moco.key_backbone.parameters()]
    queue = moco.queue.clone()
    moco.eval()(views(spd=False))
    assert all(torch.equal(a, b) for a, b in zip(still, moco.key_backbone.parameters(), strict=True))
    assert torch.equal(queue, moco.queue), "judging a method does not change it"


@pytest.mark.parametrize("method", ["simsiam", "mocov2", "simclr"])
def test_the_spd_term_is_the_loss_of_z_and_only_the_backbone_shares_a_joint_pass_s_batch_statistics(method):
    v = views()
    joint, apart = (made(method, SpdSettings(joint_pass=j), bn_group=32).train() for j in (True, False))
    for learner in (joint, apart):
        with torch.no_grad():
            learner(v)
        learner.projector.eval()  # as the term has it
    together, one_by_one = (m.embed(torch.cat(v.spd)).chunk(3) for m in (joint, apart))
    assert torch.isclose(joint(v)["spd"], spd_loss(together[0], together[2], together[1]), atol=1e-5)
    assert not torch.isclose(apart(v)["spd"], spd_loss(one_by_one[0], one_by_one[2], one_by_one[1]), atol=1e-4)


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_supervised_spd_is_an_auxiliary_classifier_on_a_layer(layer):
    learner = made("supervised", SpdSettings(head_layer=layer)).eval()
    v = views()
    maps = stage_maps(learner.backbone, normalize(torch.cat(v.spd[1:]), learner.backbone), (layer,))
    logits = learner.spd.head(maps[layer].mean((2, 3)))
    assert torch.isclose(learner(v)["spd"], spd_cross_entropy(*logits.chunk(2)), atol=1e-5)
    learner(v)["spd"].backward()
    assert learner.backbone.conv1.weight.grad.abs().sum() > 0
    assert (learner.backbone.layer4[0].weight.grad is None) is (layer == "layer3")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: PretrainSettings(epochs=0), "epochs is 0: give 1 or more"),
        (lambda: PretrainSettings(batch_size=1), "batch_size is 1"),
        (lambda: published("moco"), "unknown method 'moco'.*mocov2"),
        (lambda: published("simsiam", epoch=3), "Did you mean 'epochs'"),
        (lambda: published("mocov2", batch_size=64, queue=32), "queue is 32: give 64"),
        (lambda: SpdSettings(form="crossentropy"), "cross-entropy"),
        (lambda: SpdSettings(eta=-1.0), "eta is -1"),
        (lambda: build(settings("supervised"), classes=1), "2 classes"),
        (lambda: configured("simsiam", True, {"epochs": "three"}), "give int"),
        (lambda: configured("simsiam", True, {"epochs": True}), "give int"),
        (lambda: configured("simsiam", True, {"joint_pass": 1}), "give bool"),
        (lambda: configured("simsiam", True, {"strong": "x"}), "unknown setting 'strong'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(wrong, said):
    with pytest.raises(VisaError, match=said):
        wrong()


def test_the_negative_differs_from_its_clean_view_in_a_patch_only():
    draws = Draws(torch.Generator().manual_seed(0))
    anchor, _, negative = spd_views(torch.rand(4, 3, 20, 20), SIDE, SpdSettings(negative_of="anchor"), draws)
    share = ((negative - anchor).abs().amax(1) > 1e-3).float().mean((1, 2))
    assert ((share > 0) & (share < 0.5)).all()


def test_moco_s_keys_share_no_group_with_their_queries():
    moco = made("mocov2", bn_group=2).train()
    v = views(spd=False)
    normed = normalize(v.second[v.shuffle], moco.backbone)
    with torch.no_grad():
        expected = torch.cat([moco.key_projector(moco.key_backbone(part)) for part in normed.split(2)])
    keys = moco._keys(v.second, v.shuffle)
    assert torch.allclose(keys[v.shuffle], nn.functional.normalize(expected, dim=1), atol=1e-5)


@pytest.fixture
def net():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU()).train()


def test_split_batch_norm_normalises_each_group_alone(net):
    x = torch.randn(6, 3, 8, 8)
    alone = [copy.deepcopy(net) for _ in range(3)]
    split = split_batch_norm(copy.deepcopy(net), group=2)
    expected = torch.cat([one(part) for one, part in zip(alone, x.split(2), strict=True)])
    assert torch.allclose(split(x), expected, atol=1e-5)
    means = torch.stack([one[1].running_mean for one in alone])
    assert torch.allclose(split[1].running_mean, means.mean(0), atol=1e-6)
    assert torch.allclose(split.eval()(x[:1]), split(x)[:1], atol=1e-6), "in evaluation mode images stand alone"
    five = torch.randn(5, 3, 8, 8)
    assert torch.equal(split_batch_norm(copy.deepcopy(net), group=2)(five), net(five)), "indivisible: one group"


def test_split_batch_norm_has_the_groups_gradients_over_several_passes(net):
    """A query of one group and SPD's images in several, as in MoCo with a batch of the group's size."""
    split = split_batch_norm(copy.deepcopy(net), group=2)
    one, several = torch.randn(2, 3, 8, 8), torch.randn(6, 3, 8, 8)
    (split(one).pow(2).sum() + split(several).pow(2).sum()).backward()
    for part in (one, *several.split(2)):
        net(part).pow(2).sum().backward()
    for own, theirs in zip(split.parameters(), net.parameters(), strict=True):
        assert torch.allclose(own.grad, theirs.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("arch", ["resnet18", "timm/tf_efficientnet_lite0"])
def test_split_batch_norm_keeps_weights_names_and_activations(arch):
    plain = create_backbone(arch)
    split = split_batch_norm(create_backbone(arch), group=2)
    assert plain.state_dict().keys() == split.state_dict().keys()
    split.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64)
    assert torch.allclose(plain.train()(x), split.train()(x), atol=1e-5)
