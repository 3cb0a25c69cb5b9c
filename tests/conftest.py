"""Fixtures for all tests: a small mini-VisA, an environment of its own for each test, and the real data if named."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the tests run side by side, on tiny inputs


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's data or writes among their runs."""
    monkeypatch.delenv("VISA_ROOT", raising=False)
    monkeypatch.setenv("VISA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VISA_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def mini_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mini-VisA of pcb1 and fryum, 24 normal and 12 anomalous images each, 96 px: read it, never write to it."""
    from visa.data.synthetic.writer import write_mini_visa

    root = tmp_path_factory.mktemp("mini") / "VisA"
    write_mini_visa(root, objects=("pcb1", "fryum"), normal=24, anomaly=12, size=96, workers=1)
    return root


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The real VisA root that `VISA_TEST_ROOT` names; skips where it names none."""
    return _named_folder("VISA_TEST_ROOT")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The recorded outputs of VisA's own tools that `VISA_TEST_REFERENCE` names; skips where it names none."""
    return _named_folder("VISA_TEST_REFERENCE")


def _named_folder(variable: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no folder")
    return Path(os.environ[variable])
