"""A network and images so small that a training takes a fraction of a second; as a script, a training to be watched.

`python conftest.py killed CHECKPOINT WHERE` trains until it kills itself; `python conftest.py member FOLDER` is one of
several processes that train every method together.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from copy import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from visa.pretrain import METHODS, settings, simsiam
from visa.pretrain.fabric import gathered, make_fabric
from visa.pretrain.images import ImagesInMemory
from visa.pretrain.settings import PretrainSettings
from visa.pretrain.simclr import nt_xent
from visa.pretrain.spd import SpdSettings
from visa.pretrain.train import Training

TINY = PretrainSettings(arch="resnet18", epochs=2, batch_size=4, image_size=32, base_lr=0.5, spd=SpdSettings())


class TinyNet(nn.Module):
    """A ResNet's parts, with one small convolution a stage."""

    num_features = 12

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 5, 4, 2), nn.BatchNorm2d(8), nn.ReLU()
        self.maxpool = self.layer1 = self.layer2 = nn.Identity()
        self.layer3 = nn.Sequential(nn.Conv2d(8, 10, 3, 1, 1), nn.BatchNorm2d(10), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(10, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())

    def forward(self, x):
        return self.layer4(self.layer3(self.relu(self.bn1(self.conv1(x))))).mean((2, 3))


def tiny_images(skipped="corrupt.jpg: no JPEG"):
    """Sixteen smooth images of 36 x 36 pixels, each a class of its own, and a corrupt one."""
    base = torch.rand(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images = ImagesInMemory((nn.functional.interpolate(base, 36, mode="bilinear") * 255).to(torch.uint8))
    images.skipped = [skipped]
    return images


def create_tiny(arch, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet()


def tiny_method(method, **changes):
    optimizer = "lars" if method == "simclr" else "sgd"
    given = {"epochs": 2, "base_lr": 0.05, "optimizer": optimizer, "queue": 20, "bn_group": 2} | changes
    return PretrainSettings(method=method, batch_size=8, image_size=32, spd=SpdSettings(), **given)


SMALL_PARTS = {settings: {"create_backbone": create_tiny}}
SMALL_PARTS[simsiam] = {"SimSiam": partial(simsiam.SimSiam, width=32, hidden=16)}


@pytest.fixture
def tiny(monkeypatch):
    """Settings of a training in which every backbone is a TinyNet, and SimSiam's heads are narrow."""
    for module, parts in SMALL_PARTS.items():
        for name, part in parts.items():
            monkeypatch.setattr(module, name, part)
    return TINY


@pytest.fixture
def of_method():
    """Settings of a training of two epochs by a method's name."""
    return tiny_method


@pytest.fixture
def stopping_at():
    """What makes images interrupt their training before a step."""
    return interrupted_at


@pytest.fixture
def images():
    return tiny_images()


@pytest.fixture(scope="session")
def cpu():
    return make_fabric("cpu")


def killed(path, where):
    """Train with a checkpoint after each step, and die (SIGKILL) at the sixth call of what `where` names."""
    calls = []

    def then_die(function):
        def dying(*args, **kwargs):
            calls.append(1)
            result = function(*args, **kwargs)
            if len(calls) == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return dying

    if where == "after the update":
        torch.optim.SGD.step = then_die(torch.optim.SGD.step)
    else:  # before the new name
        os.fsync = then_die(os.fsync)
    Training(tiny_images(), TINY, Path(path), make_fabric("cpu")).run(0.0)


def member(folder):
    """Train every method in a group of processes; each writes what it saw. SimSiam stops after 3 of its 4 steps."""
    folder, rank, size = Path(folder), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    fabric = make_fabric("cpu")
    found = {"gradient": gradient_of_gathered(rank, size)}
    for method in METHODS:
        result = Training(
            tiny_images(f"{rank}.jpg: no JPEG"), tiny_method(method), folder / f"{method}.pt", fabric
        ).run()
        found[method] = {"curves": result.curves, "skipped": result.skipped}
        torch.save(result.method.state_dict(), folder / f"{method}.weights{rank}")
    (folder / f"found{rank}.json").write_text(json.dumps(found))
    with suppress(KeyboardInterrupt):
        Training(interrupted_at(tiny_images(), 3), tiny_method("simsiam"), folder / "stopped.pt", fabric).run(0.0)
    torch.distributed.destroy_process_group()


def gradient_of_gathered(rank, size):
    """The gradient of NT-Xent in this process's rows of two views, as the processes' mean hands it to the weights."""
    whole = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(1))
    views = [v.chunk(size)[rank].clone().requires_grad_() for v in whole]
    nt_xent(*(gathered(v) for v in views), 0.5).backward()
    return [(v.grad / size).tolist() for v in views]


def interrupted_at(images, step):
    """The images, interrupted before batch `step`."""

    def batches(order):
        for i, batch in enumerate(images.batches(order)):
            if i == step:
                raise KeyboardInterrupt
            yield batch

    stopping = copy(images)
    stopping.batches = batches
    return stopping


if __name__ == "__main__":
    torch.set_num_threads(1)
    for module, parts in SMALL_PARTS.items():
        vars(module).update(parts)
    {"killed": killed, "member": member}[sys.argv[1]](*sys.argv[2:])
