"""SPD for given weights: what stays as it was, how long it trains, and when a training counts as learned."""

from dataclasses import replace

import pytest
import torch

from visa import cli
from visa.backbone import create_backbone, save_weights
from visa.errors import VisaError
from visa.pretrain.augment import Draws
from visa.pretrain.diagnose import diagnose, judge
from visa.pretrain.settings import build, configured
from visa.pretrain.spd import SpdSettings, spd_views
from visa.pretrain.train import Training, batch_indices, build_optimizer, set_lr

LITE0 = "timm/tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A file of weights of EfficientNet-Lite0 with a classifier of 16 classes, as its stages need no ResNet."""
    file = tmp_path_factory.mktemp("given") / "lite0.safetensors"
    save_weights(create_backbone(LITE0, seed=5), file, {}, torch.nn.Linear(1280, 16))
    return file


def chosen(given, method, spd=True, **changes):
    small = {"steps": 3, "epochs": 3, "batch_size": 12, "image_size": 32, "warmup_epochs": 0.0}
    return configured(method, spd, {"arch": LITE0, "weights": str(given), **small, **changes})


@pytest.mark.parametrize(("method", "form"), [("auxiliary", "cosine"), ("simsiam", "cosine"), ("supervised", "cosine")])
def test_the_statistics_stay_and_the_weights_move_in_bounded_steps(given, images, cpu, tmp_path, method, form):
    settings = chosen(given, method, form=form)
    before = build(settings, images.classes).get_submodule("backbone").state_dict()
    result = Training(images, settings, tmp_path / "c.pt", cpu).run()
    after = result.method.get_submodule("backbone").state_dict()
    kept = {"running_mean", "running_var", "num_batches_tracked"}
    for name, tensor in before.items():
        if method == "auxiliary" and name.startswith(("conv_head", "bn2")):  # behind the layer that it reads
            continue
        assert torch.equal(tensor, after[name]) is (name.rpartition(".")[2] in kept), name
    moved = torch.stack([(after[name] - tensor).float().norm() for name, tensor in before.items()]).norm()
    assert moved < settings.lr * sum(1 + 0.9 * k for k in range(3)) * 1.2, "the gradient's norm is at most 1"
    assert len(result.curves) == 3


def test_steps_go_through_the_images_over_and_over(given):
    settings = chosen(given, "auxiliary", steps=5)
    batches = list(batch_indices(16, settings, 0, 0, 1))
    stream = [index for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [12] * 5
    assert sorted(stream[:16]) == sorted(stream[16:32]) == list(range(16)), "no image is left out of an epoch"
    assert list(batch_indices(16, settings, 3, 0, 1)) == batches[3:]
    assert len(next(batch_indices(5, settings, 0, 0, 1))) == 12, "fewer images than a batch come twice"


def test_new_layers_learn_at_a_rate_of_their_own(given):
    settings = chosen(given, "simsiam")
    method = build(settings, 1)
    optimizer = build_optimizer(method, settings)
    set_lr(optimizer, settings, 0.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in method.backbone.parameters()} == {settings.lr}
    assert {rates[id(p)] for p in method.projector.parameters() if p.requires_grad} == {10 * settings.lr}


def test_supervised_training_goes_on_with_the_given_classifier(given):
    settings = chosen(given, "supervised", spd=False)
    state = torch.nn.Linear(1280, 16).state_dict()
    assert build(settings, 16).classifier.weight.shape == state["weight"].shape
    first, again, other = build(settings, 16), build(replace(settings, seed=1), 16), build(settings, 15)
    assert torch.equal(first.classifier.weight, again.classifier.weight), "the file's, not the seed's"
    assert len(other.classifier.bias) == 15


def test_a_network_without_these_stages_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys, mini_root):
    arch = "timm/vit_tiny_patch16_224"
    save_weights(create_backbone(arch), tmp_path / "vit.safetensors", {})
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrain", "--object", "fryum", "--arch", arch, "--weights", str(tmp_path / "vit.safetensors")])
    assert (
        ended.value.code == 2 and "VisionTransformer has no stages of stride 4, 8, 16 and 32" in capsys.readouterr().err
    )


def test_an_untrained_run_is_marked_so_and_a_learned_one_too(given, images, cpu, tmp_path):
    untrained = Training(images, chosen(given, "auxiliary", base_lr=0.0), tmp_path / "c.pt", cpu).run()
    settings = SpdSettings()
    diagnosis = diagnose(untrained.method, images.images, 32, settings)
    found = judge(untrained.method, untrained.curves, diagnosis)
    assert found["learned"] == 0 and 0.3 < found["term"] < 0.7
    good = judge(untrained.method, untrained.curves, {"spd_accuracy": 0.9})
    assert good == {"term": 0.9, "learned": 1.0}
    simsiam = build(chosen(given, "simsiam"), 1)
    rows = [{"base": base, "feature_std": 0.9, "spd_std": spread, "spd": -0.5} for base, spread in ((-0.8, 0.6),) * 40]
    assert judge(simsiam, rows, {"triplet_own": 0.8}) == pytest.approx(
        {"base_gain": 0.8, "spread": 0.6, "term": 0.8, "learned": 1.0}
    )
    for change in ({"base": -0.1}, {"spd_std": 0.1}, {"feature_std": 0.2}):
        assert judge(simsiam, [row | change for row in rows], {"triplet_own": 0.8})["learned"] == 0
    assert judge(simsiam, rows, {"triplet_own": 0.6})["learned"] == 0


def test_the_classifier_s_accuracy_is_of_views_that_it_was_not_trained_on(given, images):
    method = build(chosen(given, "auxiliary"), 1).eval()
    found = diagnose(method, images.images, 32, SpdSettings(form="cross-entropy"))
    draws = Draws(torch.Generator().manual_seed(3))
    _, clean, blended = spd_views(images.images.float() / 255, 32, SpdSettings(form="cross-entropy"), draws)
    with torch.no_grad():
        accuracy = method.spd.classified(method.backbone, clean, blended)["spd_accuracy"]
    assert abs(found["spd_accuracy"] - float(accuracy)) < 0.2


def test_settings_of_an_adaptation_are_its_own_and_can_be_changed(given):
    settings = configured("simsiam", True, {"weights": str(given)})
    assert (settings.steps, settings.freeze_norms, settings.clip, settings.lr) == (60, True, 1.0, 0.02)
    assert settings.spd.eta == 0.02 and configured("supervised", True, {"weights": str(given)}).spd.eta == 1.0
    assert configured("auxiliary", True, {"weights": str(given)}).heads_lr == 3.0
    assert configured("simsiam", True, {"weights": str(given), "steps": 7, "eta": 0.3}).steps == 7
    with pytest.raises(VisaError, match="unknown setting 'step'"):
        configured("simsiam", True, {"weights": str(given), "step": 7})
