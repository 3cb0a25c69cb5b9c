"""Two CPU processes train together: equal weights, gradients as of one process, and checkpoints handed over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import visa
from visa.errors import VisaError
from visa.pretrain import METHODS
from visa.pretrain.fabric import _started, make_fabric
from visa.pretrain.images import default_workers
from visa.pretrain.simclr import nt_xent
from visa.pretrain.train import Training

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


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_all_processes_hold_the_same_weights_and_curves(two_processes, method):
    found = [json.loads((two_processes / f"found{rank}.json").read_text())[method] for rank in range(SIZE)]
    assert len(found[0]["curves"]) == 4 and not found[1]["curves"], "the first process keeps them"
    assert all(f["skipped"] == ["0.jpg: no JPEG", "1.jpg: no JPEG"] for f in found)
    one, other = (torch.load(two_processes / f"{method}.weights{rank}", weights_only=True) for rank in range(SIZE))
    for name, value in one.items():
        assert torch.equal(value, other[name]) or "running_" in name, name


@pytest.mark.slow
def test_moco_trains_as_one_process_does(two_processes, tiny, images, cpu, tmp_path, of_method):
    """Its batch norms work on groups of images, whichever process has them."""
    both = json.loads((two_processes / "found0.json").read_text())["mocov2"]["curves"]
    alone = Training(images, of_method("mocov2"), tmp_path / "c.pt", cpu).run()
    for two, one in zip(both, alone.curves, strict=True):
        for term in ("loss", "base", "spd", "lr"):
            assert two[term] == pytest.approx(one[term], abs=1e-4), (term, one["step"])
    weights = torch.load(two_processes / "mocov2.weights0", weights_only=True)
    for name, value in alone.method.state_dict().items():
        if "running_" not in name:  # the mean over a process's own groups
            assert torch.allclose(weights[name].float(), value.float(), atol=1e-3), name


@pytest.mark.slow
def test_the_gradient_through_gathered_negatives_is_that_of_one_process(two_processes):
    views = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(1)).unbind()
    views = [v.clone().requires_grad_() for v in views]
    nt_xent(*views, 0.5).backward()
    for rank in range(SIZE):
        found = json.loads((two_processes / f"found{rank}.json").read_text())["gradient"]
        for view, own in zip(views, found, strict=True):
            torch.testing.assert_close(torch.tensor(own), view.grad.chunk(SIZE)[rank], atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_one_process_goes_on_where_two_have_stopped(two_processes, tiny, images, cpu, of_method):
    stopped = torch.load(two_processes / "stopped.pt", weights_only=True)
    assert stopped["step"] == 3
    resumed = Training(images, of_method("simsiam"), two_processes / "stopped.pt", cpu).run()
    before = json.loads((two_processes / "found0.json").read_text())["simsiam"]["curves"]
    assert resumed.curves[:3] == before[:3] and len(resumed.curves) == 4
    assert resumed.curves[3]["loss"] == pytest.approx(before[3]["loss"], abs=0.1)


@pytest.mark.parametrize(
    ("device", "there", "said"),
    [("cuda", 1, "4 devices of kind cuda are asked for, and this machine has 1"), ("cuda:1", 8, "a single one")],
)
def test_absent_gpus_are_told(monkeypatch, device, there, said):
    monkeypatch.setattr("visa.pretrain.fabric.pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(VisaError, match=said):
        make_fabric(device, devices=4)


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
