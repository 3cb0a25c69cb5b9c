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
def s3_server():
    """Address of an S3-compatible server on this machine."""
    import logging

    moto_server = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch: pytest.MonkeyPatch):
    """The file system with an empty bucket of that name, and an environment in which everyone finds it."""
    pytest.importorskip("s3fs")
    import fsspec

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {"AWS_ENDPOINT_URL": s3_server, **keys}.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    files = fsspec.filesystem("s3", use_listings_cache=False)
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    return files


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
