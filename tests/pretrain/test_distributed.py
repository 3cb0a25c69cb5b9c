"""Two processes train as one does with the same global batch: losses, weights, and checkpoints handed over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import visa
from visa.errors import VisaError
from visa.pretrain.batch_norm import sync_batch_norm
from visa.pretrain.fabric import _started, check_shareable, make_fabric
from visa.pretrain.input.loader import default_workers
from visa.pretrain.settings import METHODS
from visa.pretrain.train import pretrain

SCRIPT = Path(__file__).parent / "conftest.py"
SIZE = 2


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder in which two processes have trained every method; they meet at a file, then talk over loopback."""
    folder = tmp_path_factory.mktemp("two")
    started = [subprocess.Popen(**member(folder, rank)) for rank in range(SIZE)]
    errors = [process.communicate(timeout=180)[1] for process in started]
    assert all(process.returncode == 0 for process in started), errors
    return folder


def member(folder, rank):
    env = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": SIZE, "LOCAL_WORLD_SIZE": SIZE}
    env |= {"TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1, "MASTER_ADDR": "127.0.0.1"}
    env |= {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
    return {
        "args": [sys.executable, str(SCRIPT), "member", str(folder)],
        "env": os.environ | {k: str(v) for k, v in env.items()},
        "cwd": Path(visa.__file__).parents[1],
        "stderr": subprocess.PIPE,
        "text": True,
    }


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_weights_are_those_of_one_process(two_processes, tiny, images, cpu, tmp_path, of_method, method):
    found = json.loads((two_processes / "found.json").read_text())[method]
    alone = pretrain(images, of_method(method), tmp_path / "c.pt", cpu)
    assert len(found["curves"]) == len(alone.curves) == 4 and found["skipped"] == ["0.jpg: no JPEG", "1.jpg: no JPEG"]
    for both, one in zip(found["curves"], alone.curves, strict=True):
        for term in ("loss", "base", "spd", "lr"):
            assert both[term] == pytest.approx(one[term], abs=1e-4), (term, one["step"])
    weights = torch.load(two_processes / f"{method}.weights", weights_only=True)
    for name, value in alone.method.state_dict().items():
        if method == "mocov2" and "running" in name:
            continue  # each process keeps statistics of its own groups
        assert torch.allclose(weights[name].float(), value.float(), atol=1e-3), name


def test_one_process_goes_on_where_two_have_stopped(two_processes, tiny, images, cpu, tmp_path, of_method):
    whole = pretrain(images, of_method("simsiam"), tmp_path / "c.pt", cpu)
    resumed = pretrain(images, of_method("simsiam"), two_processes / "stopped.pt", cpu)
    assert torch.load(two_processes / "stopped.pt", weights_only=True)["step"] == len(resumed.curves) == 4
    for a, b in zip(resumed.curves, whole.curves, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    assert resumed.curves[:3] != whole.curves[:3]  # the first three steps are the two processes'


def test_synced_norms_keep_names_weights_and_what_they_do_in_evaluation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d()))
    x = torch.rand(5, 3, 6, 6)
    model(x)
    before, expected = {k: v.clone() for k, v in model.state_dict().items()}, model.eval()(x)
    synced = sync_batch_norm(model, torch.device("cpu"))
    assert [*synced.state_dict()] == [*before] and not any(type(m) is nn.BatchNorm2d for m in synced.modules())
    assert torch.equal(synced(x), expected)


def test_a_batch_that_cannot_be_shared_is_refused(cpu):
    check_shareable(7, cpu)
    three = type("Three", (), {"world_size": 3})()
    check_shareable(6, three)
    with pytest.raises(VisaError, match=r"batch_size is 7, .*multiple of 3"):
        check_shareable(7, three)


@pytest.mark.parametrize("asked,said", [({"devices": 0}, "1 or more"), ({"nodes": 0}, "1 or more")])
def test_impossible_numbers_are_refused(asked, said):
    with pytest.raises(VisaError, match=said):
        make_fabric("cpu", **asked)


@pytest.mark.parametrize("there", [0, 1])
def test_absent_gpus_are_told(monkeypatch, there):
    monkeypatch.setattr("visa.pretrain.fabric.pick_device", lambda name: torch.device(name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(VisaError, match=f"4 devices of kind cuda are asked for, and this machine has {there}"):
        make_fabric("cuda", devices=4)
    with pytest.raises(VisaError, match="a single one"):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
        make_fabric("cuda:1", devices=4)


def test_only_a_step_of_srun_is_joined(monkeypatch):
    """SLURM_NTASKS and SLURM_PROCID are set for a plain command of a batch job, too."""
    for name, value in {"NTASKS": "4", "NNODES": "2", "PROCID": "0", "LOCALID": "0", "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert make_fabric("cpu").world_size == 1
    for name, value in {"NUM_TASKS": "4", "NUM_NODES": "2"}.items():
        monkeypatch.setenv(f"SLURM_STEP_{name}", value)
    assert _started() == (2, 2)
    monkeypatch.delenv("SLURM_PROCID")
    assert _started() is None


def test_processes_that_start_each_other_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    make_fabric("cpu")
    assert default_workers() == 8, "a number from before counts no more"
    with monkeypatch.context() as patch:
        patch.setattr("visa.pretrain.fabric.Fabric.launch", lambda fabric: None)
        make_fabric("cpu", devices=2)
    assert default_workers() == 4
