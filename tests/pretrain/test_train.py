"""Training on a few small images: it learns, is killed, resumes to the same bits, and refuses what cannot work."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import visa
from visa.errors import VisaError
from visa.pretrain import METHODS, simsiam, train
from visa.pretrain import settings as settings_module
from visa.pretrain.diagnose import diagnose
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.simsiam import SimSiam
from visa.pretrain.spd import SpdSettings
from visa.pretrain.train import Training, batch_indices, load_checkpoint

SCRIPT = Path(__file__).parent / "conftest.py"


def same_bits(a, b):
    a, b = a.method.state_dict(), b.method.state_dict()
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def start_killed(checkpoint, where):
    """A training in a process of its own that is killed (SIGKILL) in its sixth step or checkpoint."""
    code = [sys.executable, str(SCRIPT), "killed", str(checkpoint), where]
    return subprocess.Popen(code, cwd=Path(visa.__file__).parents[1], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_any_point_a_run_ends_with_the_same_bits(tiny, images, cpu, tmp_path):
    points = ("after the update", "before the new name")
    running = {w: start_killed(tmp_path / f"{w}.pt", w) for w in points}
    whole = Training(images, tiny, tmp_path / "whole.pt", cpu).run()
    for where, process in running.items():
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == -9, errors
        checkpoint = tmp_path / f"{where}.pt"
        assert load_checkpoint(checkpoint)["step"] == 5
        resumed = Training(images, tiny, checkpoint, cpu).run()
        assert same_bits(resumed, whole) and resumed.curves == whole.curves and len(whole.curves) == 8


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resumes_to_the_same_bits(tiny, images, cpu, tmp_path, method, stopping_at):
    settings = replace(tiny, method=method, queue=10, optimizer="lars" if method == "simclr" else "sgd")
    whole = Training(images, settings, tmp_path / "whole.pt", cpu).run()
    with pytest.raises(KeyboardInterrupt):
        Training(stopping_at(images, 5), settings, tmp_path / "cut.pt", cpu).run(0.0)
    resumed = Training(images, settings, tmp_path / "cut.pt", cpu).run()
    assert same_bits(resumed, whole) and resumed.curves == whole.curves and resumed.where == whole.where
    assert [row["step"] for row in whole.curves] == list(range(8)) and whole.skipped == ["corrupt.jpg: no JPEG"]
    assert whole.images_per_second > 0 and whole.seconds > 0 and not whole.method.training


def test_a_finished_run_is_not_trained_again_and_no_corrupt_image_is_forgotten(
    tiny, images, cpu, tmp_path, stopping_at
):
    with pytest.raises(KeyboardInterrupt):
        Training(stopping_at(images, 5), tiny, tmp_path / "c.pt", cpu).run(0.0)
    images.skipped = ["another.jpg: no JPEG"]
    first = Training(images, tiny, tmp_path / "c.pt", cpu).run()
    assert first.skipped == ["another.jpg: no JPEG", "corrupt.jpg: no JPEG"]
    again = Training(stopping_at(images, 0), tiny, tmp_path / "c.pt", cpu).run()
    assert list(Training(images, tiny, tmp_path / "c.pt", cpu).steps()) == first.curves, "each step is told again"
    assert same_bits(again, first)
    for fact in ("curves", "seconds", "images_per_second", "skipped", "where"):
        assert getattr(again, fact) == getattr(first, fact)


def test_checkpoints_that_take_long_are_written_rarely(tiny, images, cpu, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(train, "save_checkpoint", lambda path, content: written.append(content["step"]))
    monkeypatch.setattr(train, "PAUSE", 1e12)
    Training(images, tiny, tmp_path / "c.pt", cpu).run(1e-9)
    assert written == [1, 8], "the first, and the finished one"


def test_each_epoch_sees_every_image_once_in_an_order_of_its_own(tiny):
    settings = replace(tiny, batch_size=6)
    seen = list(batch_indices(16, settings, 0, 0, 1))
    assert [len(indices) for indices in seen] == [6] * 4, "an incomplete batch is left out"
    first, second = seen[0] + seen[1], seen[2] + seen[3]
    assert len(set(first)) == len(set(second)) == 12 and first != second
    assert list(batch_indices(16, settings, 3, 0, 1)) == seen[3:]
    parts = [list(batch_indices(16, settings, 0, part, 2)) for part in range(2)]
    assert [own + other for own, other in zip(*parts, strict=True)] == seen


@pytest.mark.parametrize("epochs", [4, 1])
def test_a_diverging_run_stops_with_a_sentence(tiny, images, cpu, tmp_path, epochs):
    settings = replace(tiny, epochs=epochs, batch_size=16)
    object.__setattr__(settings, "base_lr", float("nan"))  # past its check: weights are NaN from step 0 on
    with pytest.raises(VisaError, match=r"nan at step [01] of .*lower base_lr"):
        Training(images, settings, tmp_path / "c.pt", cpu).run(0.0)
    assert not (tmp_path / "c.pt").exists()


def test_the_term_that_is_not_finite_is_named_and_the_last_good_checkpoint_stays(
    tiny, images, cpu, tmp_path, monkeypatch
):
    calls = []

    def breaking(*z):
        calls.append(1)
        return torch.cosine_similarity(z[0], z[1]).mean() * (math.inf if len(calls) == 6 else 1)

    monkeypatch.setattr("visa.pretrain.spd.spd_loss", breaking)
    with pytest.raises(VisaError, match=r"'spd' of the loss is -?inf at step 5 of 8"):
        Training(images, tiny, tmp_path / "c.pt", cpu).run(0.0)
    good = load_checkpoint(tmp_path / "c.pt")
    assert good["step"] == 5 and all(t.isfinite().all() for t in good["method"].values())


@pytest.mark.parametrize(("warmup", "healthy", "stops"), [(0.0, (), 9), (1.0, (), 13), (0.0, (5,), 15)])
def test_collapse_stops_the_run_after_warm_up(tiny, images, cpu, tmp_path, monkeypatch, warmup, healthy, stops):
    values = iter([0.9 if i in healthy else 0.01 for i in range(40)])
    monkeypatch.setattr(simsiam, "feature_std", lambda z: torch.tensor(next(values)))
    monkeypatch.setattr(train, "COLLAPSE_STEPS", 10)
    settings = replace(tiny, epochs=10, warmup_epochs=warmup)
    with pytest.raises(VisaError, match=rf"collapsed: feature_std is 0\.010.*step {stops} .*lower base_lr"):
        Training(images, settings, tmp_path / "c.pt", cpu).run()


def test_too_few_images_are_refused(tiny, images, cpu, tmp_path):
    with pytest.raises(VisaError, match="16 images make no batch of 32"):
        Training(images, PretrainSettings(batch_size=32), tmp_path / "c.pt", cpu).run()


def test_diagnosis_sees_what_an_oracle_sees(tiny, images):
    class Oracle(SimSiam):  # embeds an image by its mean alone: a small patch hardly moves it
        def embed(self, x):
            return x.mean((2, 3))

    oracle = Oracle(settings_module.create_backbone("resnet18", 0), tiny)
    found = diagnose(oracle, images.images, 32, SpdSettings())
    assert found["cos_blend"] > 0.99 and 0 <= found["triplet"] <= 1 and 0 <= found["probe_auroc"] <= 1
