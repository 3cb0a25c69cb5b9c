"""A checkpoint: read again as it was written, named by what made it, and no code in it is executed."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from visa.errors import VisaError
from visa.pretrain import train
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.spd import SpdSettings
from visa.pretrain.train import load_checkpoint, save_checkpoint, training_key


def test_the_newest_is_read_and_a_broken_one_is_refused(tmp_path):
    file = tmp_path / "c.pt"
    assert load_checkpoint(file) is None
    for step in (1, 2):
        save_checkpoint(file, {"step": step, "method": {"w": torch.ones(3)}})
    assert load_checkpoint(file)["step"] == 2 and [p.name for p in tmp_path.iterdir()] == ["c.pt"]
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        file.write_bytes(broken)
        with pytest.raises(VisaError, match=r"c\.pt cannot be read: delete"):
            load_checkpoint(file)


def test_code_in_a_checkpoint_is_never_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"step": 1, "bomb": Bomb()}, tmp_path / "zip.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"bomb": Bomb()}))
    for name in ("zip.pt", "pickle.pt"):
        with pytest.raises(VisaError, match="cannot be read"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_other_settings_data_weights_or_version_have_another_name(tmp_path, monkeypatch):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"1")
    base = PretrainSettings()
    every = (base, replace(base, spd=SpdSettings()), replace(base, spd=SpdSettings(eta=1.0)), replace(base, seed=1))
    names = {training_key(s, d) for s in (*every, replace(base, weights=str(weights))) for d in "ab"}
    weights.write_bytes(b"2")
    names.add(training_key(replace(base, weights=str(weights)), "a"))
    monkeypatch.setattr(train, "VERSION", train.VERSION + 1)
    names.add(training_key(base, "a"))
    assert len(names) == 12
