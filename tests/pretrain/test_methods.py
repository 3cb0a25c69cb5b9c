"""The interface of the methods and what sets each apart: heads, stop-gradients, MoCo's queue and keys, the SPD term."""

import pytest
import torch
from torch import nn

from visa.backbone import stage_maps
from visa.errors import VisaError
from visa.pretrain import methods
from visa.pretrain.augment import Draws
from visa.pretrain.losses import spd_cross_entropy, spd_loss
from visa.pretrain.methods import MoCoV2, SimCLR, SimSiam, Supervised, build
from visa.pretrain.settings import METHODS, PretrainSettings, published
from visa.pretrain.spd import SpdSettings
from visa.pretrain.views import Views, draw_views

SIDE = 16


class SmallNet(nn.Module):
    """A ResNet-like net of four small stages, so that a test takes a fraction of a second."""

    num_features = 12

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Identity(),
        )
        self.layer1 = self.layer2 = nn.Identity()
        self.layer3 = nn.Sequential(nn.Conv2d(8, 10, 3, 2, 1), nn.BatchNorm2d(10), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(10, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())

    def forward(self, x):
        return self.layer4(self.layer3(self.relu(self.bn1(self.conv1(x))))).mean((2, 3))


@pytest.fixture(autouse=True)
def small_backbone(monkeypatch):
    def create(arch, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return SmallNet()

    monkeypatch.setattr(methods, "create_backbone", create)


def settings(method, **changes):
    return published(method, **{"batch_size": 8, "queue": 20, "image_size": SIDE} | changes)


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
    learner = build(settings(method, spd=spd), classes=4).train()
    terms = learner(views())
    assert all(t.ndim == 0 for t in terms.values())
    assert torch.isclose(terms["loss"], terms["base"] + 0.3 * terms.get("spd", torch.tensor(0.0)))
    assert ("spd" in terms) is bool(form)
    terms["loss"].backward()
    for name, p in learner.named_parameters():
        assert (p.grad is not None) is p.requires_grad, name


@pytest.mark.parametrize("method", METHODS)
def test_with_and_without_spd_start_from_the_same_weights(method):
    plain, spd = (build(settings(method, seed=3, spd=s), 4) for s in (None, SpdSettings(form="cross-entropy")))
    assert all(torch.equal(v, spd.state_dict()[k]) for k, v in plain.state_dict().items())
    other = build(settings(method, seed=4), 4)
    assert any(not torch.equal(v, other.state_dict()[k]) for k, v in plain.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_batch_does_not_matter(method):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    v = views()
    shuffled = Views(v.first[order], v.second[order], v.labels[order], tuple(x[order] for x in v.spd), v.shuffle)
    one, two = (build(settings(method, spd=SpdSettings()), 4).train()(x) for x in (v, shuffled))
    for name in ("loss", "base", "spd"):
        assert torch.isclose(one[name], two[name], atol=1e-5), name


def test_the_published_heads():
    simsiam = SimSiam(SmallNet())
    assert [type(m).__name__ for m in simsiam.projector] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + [
        "Linear",
        "BatchNorm1d",
    ]
    assert not simsiam.projector[-1].affine and simsiam.embed(torch.rand(2, 3, SIDE, SIDE)).shape == (2, 2048)
    assert [m.out_features for m in simsiam.predictor if isinstance(m, nn.Linear)] == [512, 2048]
    moco = MoCoV2(SmallNet(), queue=10)
    assert [type(m).__name__ for m in moco.projector] == ["Linear", "ReLU", "Linear"]
    assert moco.projector[0].out_features == 12 and moco.projector[2].out_features == 128
    simclr = SimCLR(SmallNet())
    assert [type(m).__name__ for m in simclr.projector] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert not simclr.projector[-1].bias.requires_grad and simclr.projector[-1].weight.requires_grad


def test_the_published_settings_are_each_paper_s():
    assert published("simsiam", batch_size=512).lr == pytest.approx(0.1)
    assert published("simclr").lr == pytest.approx(4.8) and published("simclr").optimizer == "lars"
    assert (published("mocov2").queue, published("mocov2").temperature) == (65536, 0.2)
    assert (published("supervised").schedule, published("supervised").epochs) == ("steps", 90)


def test_moco_s_queue_holds_the_newest_keys_around_its_end():
    moco = MoCoV2(SmallNet(), queue=20, dim=6).train()
    kept = list(moco.queue.clone())
    at = 0
    for step in range(7):
        v = views(8, seed=step, spd=False)
        moco(v)
        with torch.no_grad():  # the key encoder as it is after its step, in training mode as in the forward pass
            keys = nn.functional.normalize(
                moco.key_projector(moco.key_backbone(methods.normalize(v.second, moco.backbone))), dim=1
            )
        for key in keys:
            kept[at % 20], at = key, at + 1
        assert torch.allclose(moco.queue, torch.stack(kept), atol=1e-5)
        assert int(moco.queue_at) == at % 20
    assert torch.allclose(moco.queue.norm(dim=1), torch.ones(20), atol=1e-5)


def test_moco_compares_with_the_queue_as_it_was_before_the_batch():
    moco = MoCoV2(SmallNet(), queue=20).train()
    before = moco.queue.clone()
    v = views(spd=False)
    base = moco(v)["base"]
    fresh = MoCoV2(SmallNet(), queue=20)
    fresh.load_state_dict(moco.state_dict())
    with torch.no_grad():
        q = fresh.train().embed(v.first)
        k = fresh.key_projector(fresh.key_backbone(methods.normalize(v.second, fresh.backbone)))
    assert torch.isclose(base, methods.info_nce(q, k, before, moco.temperature), atol=1e-5)


def test_the_key_encoder_follows_by_its_momentum_and_gets_no_gradient():
    moco = MoCoV2(SmallNet(), queue=20, momentum=0.9).train()
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
def test_the_spd_term_is_the_loss_of_z_in_one_joint_pass(method):
    learner = build(settings(method, spd=SpdSettings()), 4).eval()
    v = views()
    anchor, positive, negative = (learner.embed(x) for x in v.spd)
    assert torch.isclose(learner(v)["spd"], spd_loss(anchor, negative, positive), atol=1e-5)


def test_joint_pass_shares_batch_statistics():
    v = views()
    joint, apart = (SimSiam(SmallNet(), SpdSettings(joint_pass=j)).train() for j in (True, False))
    apart.load_state_dict(joint.state_dict())
    together, one_by_one = (m.embed(torch.cat(v.spd)).chunk(3) for m in (joint, apart))
    assert torch.isclose(joint(v)["spd"], spd_loss(together[0], together[2], together[1]), atol=1e-5)
    assert not torch.isclose(apart(v)["spd"], spd_loss(one_by_one[0], one_by_one[2], one_by_one[1]), atol=1e-4)


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_supervised_spd_is_an_auxiliary_classifier_on_a_layer(layer):
    learner = build(settings("supervised", spd=SpdSettings(head_layer=layer)), 4).eval()
    v = views()
    maps = stage_maps(learner.backbone, methods.normalize(torch.cat(v.spd[1:]), learner.backbone), (layer,))
    logits = learner.spd.head(maps[layer].mean((2, 3)))
    assert torch.isclose(learner(v)["spd"], spd_cross_entropy(*logits.chunk(2)), atol=1e-5)
    learner(v)["spd"].backward()
    assert learner.backbone.conv1.weight.grad.abs().sum() > 0
    assert (learner.backbone.layer4[0].weight.grad is None) is (layer == "layer3")


def test_one_class_is_no_task():
    with pytest.raises(VisaError, match="2 classes"):
        Supervised(SmallNet(), None, classes=1)


@pytest.mark.parametrize(
    "setting", [{"epochs": 0}, {"batch_size": 1}, {"image_size": 4}, {"seed": -1}, {"temperature": 0.0}]
)
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(VisaError, match=next(iter(setting))):
        PretrainSettings(**setting)


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(VisaError, match="mocov2"):
        published("moco")
    with pytest.raises(VisaError, match="epochs"):
        published("simsiam", epoch=3)
    with pytest.raises(VisaError, match="queue"):
        published("mocov2", batch_size=64, queue=32)
    with pytest.raises(VisaError, match="cross-entropy"):
        SpdSettings(form="crossentropy")


def test_strong_views_are_the_same_with_and_without_spd():
    images, labels = torch.rand(4, 3, 20, 20), torch.arange(4)
    plain, spd = (
        draw_views(images, labels, SIDE, PretrainSettings().strong, True, s, Draws(torch.Generator().manual_seed(0)))
        for s in (None, SpdSettings())
    )
    assert torch.equal(plain.first, spd.first) and torch.equal(plain.second, spd.second) and plain.spd is None


def test_the_negative_differs_from_its_clean_view_in_a_patch_only():
    images = torch.rand(4, 3, 20, 20)
    anchor, positive, negative = draw_views(
        images,
        torch.arange(4),
        SIDE,
        PretrainSettings().strong,
        True,
        SpdSettings(negative_of="anchor"),
        Draws(torch.Generator().manual_seed(0)),
    ).spd
    share = ((negative - anchor).abs().amax(1) > 1e-3).float().mean((1, 2))
    assert ((share > 0) & (share < 0.5)).all()
    assert ((positive - anchor).abs().amax(1) > 1e-3).float().mean() > 0.5


def test_moco_s_keys_share_no_group_with_their_queries():
    moco = MoCoV2(SmallNet(), queue=20, bn_group=2).train()
    v = views(spd=False)
    normed = methods.normalize(v.second[v.shuffle], moco.backbone)
    with torch.no_grad():
        expected = torch.cat([moco.key_projector(moco.key_backbone(part)) for part in normed.split(2)])
    keys = moco._keys(v.second, v.shuffle)
    assert torch.allclose(keys[v.shuffle], nn.functional.normalize(expected, dim=1), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "zeros"), [("simsiam", True), ("simclr", True), ("mocov2", False), ("supervised", False)]
)
def test_residual_branches_start_at_zero_where_the_paper_says_so(monkeypatch, method, zeros):
    monkeypatch.undo()
    blocks = build(settings(method, arch="resnet18"), 4).backbone.layer3
    for block in blocks:
        assert bool((block.bn2.weight == 0).all()) is zeros and bool((block.bn1.weight == 1).all())
