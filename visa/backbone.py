"""Backbones: convolutional networks of torchvision and timm, safe loading and saving, named feature maps."""

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from visa.errors import VisaError, check_choice
from visa.paths import written_whole

ARCHES = ("resnet18", "resnet50", "wide_resnet50_2", "resnet18_half")
STEM = "stem"  # the map before the stages, of stride 2
STAGES = ("layer1", "layer2", "layer3", "layer4")
_STRIDES = {STEM: 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
_GOOGLENET = {"aux_logits": False, "init_weights": False, "transform_input": True}  # as for its ImageNet weights
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def create_backbone(arch: str, seed: int = 0) -> nn.Module:
    """Create a backbone without its classifier, with random weights drawn from `seed`.

    `arch` is one of ARCHES, `timm/NAME`, or another network of torchvision; its weights keep the library's names.
    `resnet18_half`, for small machines, is a ResNet-18 with half the channels in every stage and is three times as
    fast; no library has it. Raises VisaError for an unknown `arch`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch.startswith("timm/"):
            return _create_timm(arch.removeprefix("timm/"))
        if arch == "resnet18_half":
            return _create_timm("resnet18", channels=(32, 64, 128, 256), zero_init_last=False)
        if arch not in torchvision.models.list_models(torchvision.models):
            check_choice("arch", arch, (*ARCHES, "timm/<name>", "<name of torchvision's>"))
        options = _GOOGLENET if arch == "googlenet" else {}
        model: nn.Module = torchvision.models.get_model(arch, weights=None, **options)
        setattr(model, "fc" if hasattr(model, "fc") else "classifier", nn.Flatten())
        return model


def zero_init_residual(backbone: nn.Module) -> None:
    """Set the scale of the last batch norm of every residual block to 0, so that each block begins as the identity.

    Only ResNets have such blocks; other models keep their weights.
    """
    for block in backbone.modules():
        last = getattr(block, "bn3", None) or getattr(block, "bn2", None)
        if isinstance(last, nn.BatchNorm2d) and hasattr(block, "downsample"):
            nn.init.zeros_(last.weight)


def feature_width(backbone: nn.Module) -> int:
    """Channels of the pooled features: 512 for ResNet-18, 2048 for ResNet-50."""
    net: Any = backbone
    if hasattr(net, "num_features"):
        return int(getattr(net, "head_hidden_size", None) or net.num_features)
    return int(looked_at(net, net).shape[1])


def normalize(images: Tensor, backbone: nn.Module) -> Tensor:
    """Normalise images N,3,H,W in [0,1] by the backbone's mean and standard deviation (torchvision: ImageNet's)."""
    mean, std = normalization(backbone)
    return (images - _channels(mean, images.device)) / _channels(std, images.device)


def normalization(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel that the backbone expects."""
    config: Mapping[str, Any] = getattr(backbone, "pretrained_cfg", {})
    return tuple(config.get("mean", _IMAGENET_MEAN)), tuple(config.get("std", _IMAGENET_STD))


@cache  # a new tensor at every step would make a GPU wait for the copy
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(3, 1, 1)


def pick_device(name: str = "auto") -> torch.device:
    """Return the device `name`; `auto`: a CUDA GPU, else Apple's, else the CPU. Raises VisaError if it is missing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if not re.fullmatch(r"(cpu|cuda|mps)(:\d{1,3})?", name):  # torch has more kinds, on which nothing here runs
            raise RuntimeError(name)
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise VisaError(f"device {name!r} is not available here: take auto or cpu.") from error
    return torch.device(name)


class FeatureMaps(nn.Module):
    """Feature maps of the named stages of a frozen backbone, in evaluation mode.

    `layers` are names from STAGES (stride 4, 8, 16, 32; timm's stages are found by stride), or VisaError is raised.
    """

    def __init__(self, backbone: nn.Module, layers: tuple[str, ...] = STAGES) -> None:
        super().__init__()
        for layer in layers:
            check_choice("layer", layer, STAGES)
        self.backbone = backbone.eval()
        self.layers = layers

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one map N,C,H/stride,W/stride for each of `layers`, from images N,3,H,W in [0,1]."""
        stages = stage_maps(self.backbone, normalize(images, self.backbone), self.layers)
        return [stages[layer] for layer in self.layers]


def check_stages(backbone: nn.Module) -> None:
    """Raise VisaError for a network that lacks stages of stride 4 to 32 or takes no small images: a transformer."""
    try:
        looked_at(backbone, lambda x: stage_maps(backbone, x, STAGES))
    except (AssertionError, RuntimeError) as error:
        raise VisaError(f"{type(backbone).__name__} cannot take images of 64 x 64: take another model.") from error


def looked_at(backbone: nn.Module, function: Callable[[Tensor], Any]) -> Any:
    """Return `function` of one normalised image of zeros (1,3,64,64), with the backbone in evaluation mode."""
    was = backbone.training
    backbone.eval()
    with torch.no_grad():
        found = function(torch.zeros(1, 3, 64, 64, device=next(backbone.parameters()).device))
    backbone.train(was)
    return found


def stage_maps(backbone: nn.Module, x: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Return maps N,C,H/stride,W/stride of normalised images by name, for `layers` of STAGES and STEM.

    A model may lack STEM; a ResNet returns earlier stages, too. Raises VisaError if a stride of 4 to 32 is missing.
    """
    net: Any = backbone
    if all(hasattr(net, name) for name in ("conv1", "bn1", "maxpool", *STAGES)):
        x = (net.act1 if hasattr(net, "act1") else net.relu)(net.bn1(net.conv1(x)))
        stages = {STEM: x} if STEM in layers else {}
        x = net.maxpool(x)
        for layer in STAGES[: 1 + max(STAGES.index(name) for name in layers if name != STEM)]:
            stages[layer] = x = getattr(net, layer)(x)
        return stages
    strides = [stage["reduction"] for stage in getattr(net, "feature_info", [])]
    needed = {_STRIDES[name] for name in STAGES}
    if needed <= set(strides) and hasattr(net, "forward_intermediates"):
        found = [name for name, stride in _STRIDES.items() if name in layers and stride in strides]
        indices = [strides.index(_STRIDES[name]) for name in found]
        return dict(zip(found, net.forward_intermediates(x, indices=indices, intermediates_only=True), strict=True))
    by_stride = {} if strides else _last_of_each_stride(net, x)
    if not needed <= by_stride.keys():
        raise VisaError(f"{type(net).__name__} has no stages of stride 4, 8, 16 and 32: take a convolutional model.")
    return {name: by_stride[stride] for name, stride in _STRIDES.items() if stride in by_stride}


def _last_of_each_stride(net: nn.Module, x: Tensor) -> dict[int, Tensor]:
    """Return the last map at each stride that a network's parts, or their parts, leave."""
    maps = dict[int, Tensor]()

    def keep(part: nn.Module, _inputs: Any, found: Any) -> None:
        if isinstance(found, Tensor) and found.ndim == 4 and not isinstance(part, nn.AdaptiveAvgPool2d):
            maps[2 ** round(math.log2(max(1, x.shape[-1] / found.shape[-1])))] = found

    with ExitStack() as hooks:
        for part in [part for child in net.children() for part in (child, *child.children())]:
            hooks.callback(part.register_forward_hook(keep).remove)
        getattr(net, "features", net)(x)  # DenseNet rectifies the last map in place after its features
    return maps


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """List the batch norms of a module, torch's and subclasses of them."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def calibrate_batch_norm(backbone: nn.Module, batches: list[Tensor]) -> None:
    """Set a backbone's batch-norm statistics to their cumulative mean over `batches`, N,3,H,W in [0,1].

    With the initial statistics (mean 0, variance 1) a random ResNet's activations grow from block to block, and
    backbones that are compared must have their statistics from the same images.
    """
    update_bn((normalize(images, backbone) for images in batches), backbone)
    backbone.eval()


def save_weights(
    backbone: nn.Module, path: Path, metadata: Mapping[str, Any], classifier: nn.Module | None = None
) -> None:
    """Write weights as safetensors under the model's own names (a `classifier` as `fc`); the write is atomic."""
    state = backbone.state_dict() | {f"fc.{k}": v for k, v in (classifier.state_dict() if classifier else {}).items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    with written_whole(path) as partial:
        partial.write_bytes(save(tensors, {"visa": json.dumps(metadata, sort_keys=True, default=str)}))


def load_weights(backbone: nn.Module, path: Path) -> nn.Module:
    """Load a local `.safetensors` file or `.pth` state dict without executing code from it; skip its classifier.

    Raises VisaError if the file is unreadable, or if weights are missing, unknown, of another shape, or not finite.
    """
    state = _read_state(path)
    own = backbone.state_dict()
    state = {k: v for k, v in state.items() if k in own or not k.startswith(("fc.", "classifier.", "head.", "aux"))}
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or extra or shapes:
        raise VisaError(
            f"{path} does not fit this backbone: {len(missing)} weights missing, {len(extra)} unknown, "
            f"{len(shapes)} of another shape (first: {(missing + extra + shapes)[0]}); check `arch`."
        )
    if bad := [k for k, v in state.items() if not torch.isfinite(v).all()]:
        raise VisaError(f"{path} holds NaN or infinite values in {bad[0]}: the run that wrote it diverged.")
    own.update(state)  # which keeps the modules' versions: MNASNet asks for its own
    backbone.load_state_dict(own)
    return backbone


def load_classifier(classifier: nn.Linear, path: Path) -> None:
    """Load a classifier from a weights file if one of the same shape has a usual name there; else change nothing."""
    state = _read_state(path)
    for name in ("fc", "classifier", "head", "head.fc"):
        given = {part: state.get(f"{name}.{part}") for part in ("weight", "bias")}
        if all(t is not None and t.shape == getattr(classifier, part).shape for part, t in given.items()):
            classifier.load_state_dict(given)


def weights_metadata(path: Path) -> dict[str, Any]:
    """Return what a pre-training recorded in its `.safetensors` file (settings, data set, ...); empty if nothing.

    Raises VisaError if the file does not exist.
    """
    if not path.is_file():
        raise VisaError(f"no weights at {path}: give the path of a .safetensors or .pth file.")
    try:
        with safe_open(path, "pt") as content:
            metadata = json.loads((content.metadata() or {})["visa"])
    except (SafetensorError, OSError, ValueError, KeyError):
        return {}
    return metadata if isinstance(metadata, dict) and isinstance(metadata.get("settings"), dict) else {}


def load_backbone(arch: str, weights: Path | None, seed: int = 0) -> nn.Module:
    """Create a backbone in evaluation mode, with a file's weights or, if `weights` is None, random ones of `seed`."""
    backbone = create_backbone(arch, seed)
    return (load_weights(backbone, weights) if weights else backbone).eval()


def _create_timm(name: str, **options: Any) -> nn.Module:
    import timm  # slow to import, and most runs do not need it

    if not timm.is_model(name):
        raise VisaError(f"timm knows no model {name!r}: timm.list_models() lists them.")
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return model


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise VisaError(f"no weights at {path}: give the path of a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, IndexError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise VisaError(
            f"{path} cannot be read as weights ({reason}): give a state dict as .safetensors or .pth."
        ) from error
    except UnpicklingError as error:
        raise VisaError(f"{path} is not a plain state dict; code in weights files is never executed.") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise VisaError(f"{path} holds no state dict: save model.state_dict().")
    return {k.removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}
