"""What is fastest is found by measuring, and what fails is left out and told."""

import math

import pytest
import torch

from visa.errors import VisaError
from visa.pretrain import speed, train
from visa.pretrain.speed import fastest
from visa.pretrain.step import Speed, default_speed
from visa.pretrain.train import pretrain

CPU = torch.device("cpu")


@pytest.fixture
def rates(monkeypatch):
    """Pretend rates: `rates(f)` makes a trial of a Speed run at f(speed) images a second."""

    def pretend(rate):
        monkeypatch.setattr(speed, "_measure", lambda settings, device, classes, trial: rate(trial))
        monkeypatch.setattr(speed, "_physical_cores", lambda: 2)
        monkeypatch.setattr(speed, "cpu_computes_in_bf16", lambda: True)
        monkeypatch.setattr(speed, "_threads", lambda: 4)

    return pretend


def test_each_change_that_pays_is_kept(rates, tiny):
    rates(lambda s: 10 + 5 * s.channels_last + 5 * (s.threads == 2) - 5 * (s.precision == "bf16-mixed"))
    found, table = fastest(tiny, CPU)
    assert found == Speed(channels_last=True, threads=2)
    assert table[0] == {**vars(Speed()), "images_per_second": 10.0, "error": ""}
    assert max(row["images_per_second"] for row in table) == 20.0 and len(table) == 5


def test_a_gain_within_the_noise_changes_nothing(rates, tiny):
    rates(lambda s: 100 + s.channels_last)
    assert fastest(tiny, CPU)[0] == Speed()


def test_a_given_precision_is_kept_while_the_rest_is_measured(rates, tiny):
    rates(lambda s: 10 + 5 * s.channels_last + 5 * (s.precision == "bf16-mixed"))
    assert fastest(tiny, CPU)[0] == Speed("bf16-mixed", channels_last=True)
    for precision in ("32-true", "bf16-mixed"):
        found, table = fastest(tiny, CPU, precision=precision)
        assert found.channels_last and {row["precision"] for row in table} == {precision}


def test_what_fails_is_left_out_and_told(rates, tiny):
    def rate(trial):
        if trial.compile:
            raise RuntimeError("no compiler here\nand a long story")
        return 10.0

    rates(rate)
    found, table = fastest(tiny, CPU)
    assert found == Speed() and table[-1]["error"] == "RuntimeError: no compiler here"


def test_compilation_is_tried_only_where_it_can_pay(rates, tiny):
    rates(lambda s: 10.0)
    assert not any(row["compile"] for row in fastest(tiny, CPU, images=100)[1])
    assert any(row["compile"] for row in fastest(tiny, CPU, images=1e6)[1])


def test_a_real_measurement(tiny):
    found, table = fastest(tiny, CPU, images=0)
    assert all(row["images_per_second"] > 0 and not row["error"] for row in table)
    assert vars(found) in [{k: row[k] for k in vars(found)} for row in table]


def test_defaults_by_device(monkeypatch):
    assert default_speed(CPU) == Speed() and default_speed(torch.device("mps")) == Speed()
    for bf16, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, bf16=bf16: bf16)
        assert default_speed(torch.device("cuda")) == Speed(precision, channels_last=True)
    with pytest.raises(VisaError, match="precision"):
        Speed("fp8")


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with Speed(threads=before + 1).applied():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_long_new_runs_measure_and_a_resumed_one_goes_on_as_it_began(tiny, images, cpu, tmp_path, monkeypatch):
    chosen = Speed(channels_last=True)
    monkeypatch.setattr(train, "fastest", lambda *_: (chosen, []))
    assert pretrain(images, tiny, tmp_path / "short.pt", cpu).speed == Speed()
    monkeypatch.setattr(train, "MEASURED_FROM", 8)
    assert pretrain(images, tiny, tmp_path / "long.pt", cpu).speed == chosen
    monkeypatch.setattr(train, "fastest", lambda *_: pytest.fail("measured again"))
    assert pretrain(images, tiny, tmp_path / "long.pt", cpu).speed == chosen
    assert pretrain(images, tiny, tmp_path / "named.pt", cpu, speed=Speed()).speed == Speed()


def test_a_run_killed_before_its_first_step_keeps_what_it_measured(
    tiny, cpu, images, tmp_path, monkeypatch, stopping_at
):
    chosen = Speed(channels_last=True)
    monkeypatch.setattr(train, "MEASURED_FROM", 8)
    monkeypatch.setattr(train, "fastest", lambda *_: (chosen, []))
    with pytest.raises(KeyboardInterrupt):
        pretrain(stopping_at(images, 0), tiny, tmp_path / "c.pt", cpu)
    monkeypatch.setattr(train, "fastest", lambda *_: pytest.fail("measured again"))
    result = pretrain(images, tiny, tmp_path / "c.pt", cpu)
    assert result.speed == chosen and len(result.curves) == 8


def test_another_precision_is_taken_under_way_and_told(tiny, cpu, images, tmp_path, capsys, stopping_at):
    began, other = Speed(channels_last=True), Speed("bf16-mixed", channels_last=True)
    checkpoint = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        pretrain(stopping_at(images, 3), tiny, checkpoint, cpu, speed=began, save_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        pretrain(stopping_at(images, 1), tiny, checkpoint, cpu, "32-true", save_every=0.0)
    assert "goes on with" not in capsys.readouterr().out
    assert pretrain(images, tiny, checkpoint, cpu, "bf16-mixed").speed == other
    assert f"began with {began} and goes on with {other}" in capsys.readouterr().out
    assert pretrain(images, tiny, checkpoint, cpu, "32-true").speed == other, "finished: nothing goes on"


def test_channels_last_and_bf16_train_as_well(tiny, images, cpu, tmp_path):
    plain = pretrain(images, tiny, tmp_path / "a.pt", cpu, speed=Speed()).curves
    for name, choice, tolerance in (("b", Speed(channels_last=True), 1e-4), ("c", Speed("bf16-mixed"), 0.1)):
        curves = pretrain(images, tiny, tmp_path / f"{name}.pt", cpu, speed=choice).curves
        close = [math.isclose(a["loss"], b["loss"], abs_tol=tolerance) for a, b in zip(plain, curves, strict=True)]
        assert all(close[:3]), "rounding grows from step to step"
