"""Training on a few small images: it learns, stops, resumes to the same bits, and refuses what cannot work."""

import math

import pytest
import torch
from torch import nn

from visa.errors import VisaError
from visa.pretrain import methods, train
from visa.pretrain.diagnose import diagnose
from visa.pretrain.images import ImagesInMemory, folder_images
from visa.pretrain.methods import SpdSettings
from visa.pretrain.train import PretrainSettings, checkpoint_path, learning_rate, pretrain

CPU = torch.device("cpu")
TINY = PretrainSettings(epochs=2, batch_size=4, image_size=32, base_lr=0.5, spd=SpdSettings())


class SmallNet(nn.Module):
    """A backbone of two layers, so that a test takes a fraction of a second."""

    num_features = 16

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 16, 5, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return self.net(x).flatten(1)


@pytest.fixture(autouse=True)
def small_backbone(monkeypatch):
    def create(arch, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return SmallNet()

    monkeypatch.setattr(train, "create_backbone", create)


class Fixed(ImagesInMemory):
    def __init__(self, images):
        self.images = images


@pytest.fixture
def images():
    base = torch.rand(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return Fixed((nn.functional.interpolate(base, 36, mode="bilinear") * 255).to(torch.uint8))


def weights(result):
    return {k: v.clone() for k, v in result.method.state_dict().items()}


@pytest.mark.parametrize("where", ["forward pass", "after the update"])
def test_a_run_stopped_in_the_middle_of_a_step_resumes_to_the_same_bits(images, tmp_path, monkeypatch, where):
    whole = pretrain(images, TINY, tmp_path / "whole.pt", CPU)
    calls = []

    def stopping(function):
        def stopped(*args, **kwargs):
            result = function(*args, **kwargs)  # what it changes (batch statistics, weights) has happened
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return result

        return stopped

    with monkeypatch.context() as patch:
        if where == "forward pass":
            patch.setattr(methods, "simsiam_loss", stopping(methods.simsiam_loss))
        else:
            patch.setattr(torch.optim.SGD, "step", stopping(torch.optim.SGD.step))
        with pytest.raises(KeyboardInterrupt):
            pretrain(images, TINY, tmp_path / "cut.pt", CPU, save_every=0.0)
    assert (tmp_path / "cut.pt").is_file()
    resumed = pretrain(images, TINY, tmp_path / "cut.pt", CPU)
    assert resumed.curves == whole.curves and len(whole.curves) == 8
    assert all(torch.equal(v, weights(resumed)[k]) for k, v in weights(whole).items())


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"batch_size": 1}, {"image_size": 4}, {"seed": -1}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(VisaError, match=next(iter(setting))):
        PretrainSettings(**setting)


def test_methods_of_one_seed_start_from_the_same_weights(images):
    plain, spd = (train.build_method(PretrainSettings(seed=3, spd=s)) for s in (None, SpdSettings()))
    assert all(torch.equal(v, spd.state_dict()[k]) for k, v in plain.state_dict().items())
    other = train.build_method(PretrainSettings(seed=4))
    assert any(not torch.equal(v, other.state_dict()[k]) for k, v in plain.state_dict().items())


def test_the_total_is_base_plus_eta_times_spd(images, tmp_path):
    curves = pretrain(images, TINY, tmp_path / "c.pt", CPU).curves
    for row in curves:
        assert math.isclose(row["loss"], row["base"] + 0.1 * row["spd"], abs_tol=1e-5)
    without = pretrain(images, PretrainSettings(epochs=1, batch_size=4, image_size=32), tmp_path / "d.pt", CPU).curves
    assert "spd" not in without[0] and without[0]["loss"] == without[0]["base"]


def test_training_brings_the_loss_down(images, tmp_path):
    settings = PretrainSettings(epochs=40, batch_size=8, image_size=32, base_lr=1.0, spd=SpdSettings(eta=0.5))
    curves = pretrain(images, settings, tmp_path / "c.pt", CPU).curves
    mean = [sum(row["loss"] for row in part) / len(part) for part in (curves[:10], curves[-10:])]
    assert mean[1] < mean[0] - 0.1


def test_joint_pass_shares_batch_statistics():
    views = methods.draw_views(torch.rand(4, 3, 36, 36), 32, SpdSettings(), torch.Generator().manual_seed(0))
    joint, apart = (methods.SimSiam(SmallNet(), SpdSettings(joint_pass=j)).train() for j in (True, False))
    apart.load_state_dict(joint.state_dict())
    together = joint._embed_spd(views.spd)
    one_batch = joint.embed(torch.cat(views.spd))
    assert torch.allclose(torch.cat(together), one_batch, atol=1e-5)
    assert not torch.allclose(torch.cat(apart._embed_spd(views.spd)), one_batch, atol=1e-3)


def test_the_rate_warms_up_and_falls_to_zero():
    settings = PretrainSettings(epochs=10, batch_size=256, base_lr=0.05, warmup_epochs=2)
    rates = [learning_rate(settings, e / 10) for e in range(101)]
    assert rates[0] < 1e-4 and rates[20] == pytest.approx(0.05) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[:20] == sorted(rates[:20]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert PretrainSettings(batch_size=64, base_lr=0.05).lr == pytest.approx(0.0125)


def test_other_settings_or_data_have_another_checkpoint(tmp_path):
    names = {checkpoint_path(tmp_path, s, d) for s in (TINY, PretrainSettings()) for d in ("a", "b")}
    assert len(names) == 4


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_broken_checkpoint_is_named(images, tmp_path, content):
    file = tmp_path / "c.pt"
    file.write_bytes(content)
    with pytest.raises(VisaError, match=r"c\.pt cannot be read"):
        pretrain(images, TINY, file, CPU)


def test_a_diverging_run_stops_with_a_sentence(images, tmp_path):
    settings = PretrainSettings(epochs=4, batch_size=4, image_size=32, base_lr=float("nan"))
    with pytest.raises(VisaError, match="lower base_lr"):
        pretrain(images, settings, tmp_path / "c.pt", CPU)


def test_too_few_images_are_refused(images, tmp_path):
    with pytest.raises(VisaError, match="16 images make no batch of 32"):
        pretrain(images, PretrainSettings(batch_size=32), tmp_path / "c.pt", CPU)


def test_diagnosis_sees_what_an_oracle_sees(images):
    class Oracle(methods.SimSiam):
        """Embeds an image by its mean alone: a small patch hardly moves it."""

        def embed(self, x):
            return x.mean((2, 3))

    oracle = Oracle(SmallNet())
    found = diagnose(oracle, images.images, 32, SpdSettings())
    assert found["cos_blend"] > 0.99 and 0 <= found["triplet"] <= 1 and 0 <= found["probe_auroc"] <= 1


def test_folder_images_hold_some_out(tmp_path):
    from PIL import Image

    for i in range(25):
        folder = tmp_path / f"class{i % 2}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40 + i), (i, i, i)).save(folder / f"{i}.png")
    train_images, held_out = folder_images(tmp_path, 32)
    assert len(train_images) == 20 and held_out.shape == (5, 3, 32, 32)
    train_images.workers = 0
    batches = list(train_images.batches([[0, 1], [2, 3, 4]]))
    assert [b.shape[0] for b in batches] == [2, 3] and batches[0].dtype == torch.uint8
    with pytest.raises(VisaError, match="0 images below pretrain_root"):
        folder_images(tmp_path / "none", 32)
