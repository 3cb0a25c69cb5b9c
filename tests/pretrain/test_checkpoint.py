"""Checkpoints: two are kept, a broken one gives way to the one before, and no code in them is executed."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from visa.errors import VisaError
from visa.pretrain import checkpoint
from visa.pretrain.checkpoint import is_finite, load, previous, save, save_final, training_key
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdSettings


def content(step):
    return {"step": step, "method": {"w": torch.full((3,), float(step))}}


def test_the_last_two_are_kept_and_the_final_one_stands_alone(tmp_path):
    file = tmp_path / "c.pt"
    assert load(file) is None
    for step in (1, 2, 3):
        save(file, content(step))
    assert load(file)["step"] == 3 and torch.load(previous(file))["step"] == 2
    save_final(file, content(4))
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"] and load(file)["step"] == 4


@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "absent"])
def test_a_broken_newest_gives_way_to_the_one_before_and_never_displaces_it(tmp_path, capsys, damage):
    file = tmp_path / "c.pt"
    save(file, content(1))
    save(file, content(2))
    whole = file.read_bytes()
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "other": b"no checkpoint"}[damage])
    assert load(file)["step"] == 1
    assert "step 1" in capsys.readouterr().out
    assert load(file)["step"] == 1 and capsys.readouterr().out == ""
    save(file, content(5))
    assert torch.load(previous(file))["step"] == 1


def test_nothing_readable_is_told_in_a_sentence(tmp_path):
    file = tmp_path / "c.pt"
    file.write_bytes(b"")
    previous(file).write_bytes(b"no checkpoint")
    with pytest.raises(VisaError, match=r"c\.pt and .*c\.pt\.previous cannot be read: delete"):
        load(file)
    previous(file).unlink()
    with pytest.raises(VisaError, match=r"c\.pt cannot be read: delete"):
        load(file)


def test_code_in_a_checkpoint_is_never_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"step": 1, "bomb": Bomb()}, tmp_path / "zip.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"bomb": Bomb()}))
    for name in ("zip.pt", "pickle.pt"):
        with pytest.raises(VisaError, match="cannot be read"):
            load(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_other_settings_data_weights_or_version_have_another_name(tmp_path, monkeypatch):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"1")
    base = PretrainSettings()
    every = (base, replace(base, spd=SpdSettings()), replace(base, spd=SpdSettings(eta=1.0)), replace(base, seed=1))
    names = {training_key(s, d) for s in (*every, replace(base, weights=str(weights))) for d in "ab"}
    weights.write_bytes(b"2")
    names.add(training_key(replace(base, weights=str(weights)), "a"))
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    names.add(training_key(base, "a"))
    assert len(names) == 12


def test_finite_means_every_value():
    ones, whole = torch.ones(4), torch.tensor([1, 2])
    assert is_finite([ones, whole]) and is_finite([])
    assert not is_finite([ones, torch.tensor([0.0, torch.nan])]) and not is_finite([ones * torch.inf])
