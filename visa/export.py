"""Export weights to a folder that torchvision, timm and anomalib load with one line each, with a model card."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

import visa
from visa.backbone import create_backbone, load_weights, normalization, weights_metadata
from visa.errors import VisaError
from visa.paths import scratch_folder
from visa.provenance import read_sidecar

_UNTRAINED = "The classifier is not trained: all zeros, so that strict loading succeeds; its output means nothing."
_TERMS = {  # by the data set's name: the card's licence, and the terms of the images in words
    r"mini-visa": ("apache-2.0", "mini-VisA is rendered by the package: its images are under the package's licence."),
    r"visa": ("cc-by-4.0", "VisA is licensed CC BY 4.0: name its authors (citation below) when you pass weights on."),
    r"(imagenet|ilsvrc).*": (
        "other",
        "ImageNet's terms of access allow non-commercial research and education only: "
        "whoever uses these weights or passes them on must comply.",
    ),
}
_TRAINED = "The classifier is the trained one, its classes in the order of the training folder's sorted class names."


def export(weights: Path, out: Path) -> Path:
    """Write `out`/NAME.safetensors and its model card README.md from a pre-training's `backbone.safetensors`.

    NAME joins arch, method, scope (and `synthetic`) and seed. torchvision (`strict=True`) and timm (`checkpoint_path`)
    load the file, in which a missing classifier is all zeros; timm and anomalib also load a ResNet's folder by
    `local-dir:`. The card uses the sidecar and the `diagnosis.json` beside `weights`. The folder is written atomically,
    and equal input gives equal bytes. Returns the path of the file.

    Raises VisaError if `weights` is missing or records no pre-training, no library knows its arch, its sidecar has
    other settings, or `out` holds other files.
    """
    record = _read_record(weights)
    arch = record["settings"]["arch"]
    tensors, classifier, expected = _whole_model(arch, weights)
    name = _name(record)
    about = {"visa": json.dumps({**record["metadata"], "classifier": classifier}, sort_keys=True)}
    files = {
        f"{name}.safetensors": save(tensors, about),
        "README.md": _card(record, name, classifier, expected).encode(),
    }
    if "first_conv" in expected:
        config = {"architecture": arch, "num_classes": 1000, "pretrained_cfg": expected}
        files["config.json"] = (json.dumps(config, indent=1) + "\n").encode()
    out = out.expanduser().resolve()
    _write_folder(out, files)
    return out / f"{name}.safetensors"


def _read_record(weights: Path) -> dict[str, Any]:
    """Collect what is recorded of the pre-training: in the weights' metadata, then in the files beside them."""
    metadata = weights_metadata(weights)
    if not isinstance(metadata.get("settings", {}).get("arch"), str):
        raise VisaError(
            f"{weights} records no pre-training: give the backbone.safetensors that notebook 03_pretrain wrote."
        )
    sidecar = read_sidecar(weights) or {}
    if sidecar and sidecar.get("settings") != metadata["settings"]:
        raise VisaError(f"{weights} and its sidecar record different settings: run that pre-training again.")
    try:
        diagnosis = json.loads((weights.parent / "diagnosis.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        diagnosis = sidecar.get("diagnosis", {})
    metadata = {"pretraining": "unknown", "scope": "", "dataset": "", "synthetic": False, **metadata}
    record = {**sidecar, **metadata, "metadata": metadata, "diagnosis": diagnosis}
    cleaned: dict[str, Any] = json.loads(json.dumps(record), object_hook=_without_folders)
    return cleaned


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Cut absolute paths down to their last part, so that no machine's folders are published."""
    texts = {k: v for k, v in values.items() if isinstance(v, str)}
    paths = {k: v for k, v in texts.items() if v.startswith(("/", "~")) or PureWindowsPath(v).is_absolute()}
    return values | {k: PureWindowsPath(v).name for k, v in paths.items()}


def _whole_model(arch: str, weights: Path) -> tuple[dict[str, Tensor], str, dict[str, Any]]:
    """Return the model's weights with a classifier of 1000 classes, a note on that classifier, and the input format."""
    import timm  # slow to import; its ResNets have torchvision's names

    backbone = create_backbone(arch)
    if arch == "resnet18_half":
        raise VisaError(f"{weights} is of {arch}, which neither torchvision nor timm knows: pre-train another `arch`.")
    own = load_weights(backbone, weights).state_dict()
    resnet = hasattr(backbone, "layer4")
    of_timm = resnet or arch.startswith("timm/")
    create: Any = timm.create_model if of_timm else torchvision.models.get_model
    model = create(arch.removeprefix("timm/"), **({"pretrained": False} if of_timm else {"weights": None}))
    reference = model.state_dict()
    if unknown := sorted(own.keys() - reference.keys()):
        raise VisaError(f"{arch} has {unknown[0]} only without a classifier: it cannot be exported.")
    head = {k: torch.zeros_like(v) for k, v in reference.items() if k not in own}
    trained = _trained_head(weights, head)
    whole = {**own, **(trained or head)}
    expected: dict[str, Any] = dict(zip(("mean", "std"), map(list, normalization(backbone)), strict=True))
    if resnet and not arch.startswith("timm/"):
        expected |= {"num_classes": 1000, "classifier": "fc", "first_conv": "conv1"}
    return {k: whole[k].contiguous() for k in reference}, _TRAINED if trained else _UNTRAINED, expected


def _trained_head(weights: Path, head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the file's `fc` under the model's names if it is trained and has 1000 classes; else nothing."""
    names = {k: f"fc.{k.rpartition('.')[2]}" for k in head}
    with safe_open(weights, "pt") as content:
        there = set(content.keys())
        found = {k: content.get_tensor(name) for k, name in names.items() if name in there}
    fits = found.keys() == head.keys() and all(found[k].shape == head[k].shape for k in head)
    sound = all(torch.isfinite(t).all() for t in found.values()) and any(t.any() for t in found.values())
    return {k: t.to(head[k].dtype) for k, t in found.items()} if fits and sound else {}


def _name(record: Mapping[str, Any]) -> str:
    """Return a name of letters, digits, `_`, `.` and single `-`, valid in every file system and on model hubs."""
    settings = record["settings"]
    parts = [settings["arch"], record["pretraining"], str(record["scope"])[:60]]
    parts += ["synthetic"] if record["synthetic"] else []
    parts += [f"seed{settings.get('seed', '')}"]
    return "-".join(safe for p in parts if (safe := re.sub(r"[^A-Za-z0-9_.]+", "-", p).strip("-.")))


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of exactly these files, atomically; raises VisaError if it exists and holds others."""
    present = {f.name: f for f in folder.iterdir()} if folder.is_dir() else {}
    if present and present.keys() == files.keys() and all(present[n].read_bytes() == b for n, b in files.items()):
        return
    if present or (folder.exists() and not folder.is_dir()):
        raise VisaError(f"{folder} holds {min(present, default='a file')}: delete it, or name a new folder.")
    with scratch_folder(folder) as scratch:
        (scratch / "new").mkdir()
        for name, content in files.items():
            (scratch / "new" / name).write_bytes(content)
        (scratch / "new").rename(folder)


def _card(record: Mapping[str, Any], name: str, classifier: str, expected: Mapping[str, Any]) -> str:
    """Fill in the template model_card.md beside this file, with the header of Hugging Face's hub."""
    from huggingface_hub import ModelCard, ModelCardData  # its import takes a second

    settings, machine = record["settings"], record.get("machine", {})
    method, plus, _ = record["pretraining"].partition("+")
    license_, terms = _terms(record["dataset"])
    license_ = "other" if settings.get("weights") else license_
    header: dict[str, Any] = {"library_name": "timm", "pipeline_tag": "image-feature-extraction", "license": license_}
    if license_ == "other":
        header |= {"license_name": "terms-of-the-training-data", "license_link": "README.md"}
    tags = ["anomaly-detection", "spot-the-difference", *(["synthetic-data"] if record["synthetic"] else [])]
    overview = {
        "Data": ", ".join(dict.fromkeys(filter(None, (record["dataset"], record["scope"])))) or "not recorded",
        "Training images": record.get("images", "not recorded"),
        "Seed": settings.get("seed", "not recorded"),
        "Code": f"visa {machine.get('visa') or '(version not recorded)'}, exported with visa {visa.__version__}",
        "Commit": machine.get("commit") or "not recorded",
    }
    tables = {"overview": overview, "settings": settings, "diagnosis": record["diagnosis"]}
    fields: dict[str, Any] = {title: list(_cells(values)) for title, values in tables.items()}
    fields |= {"name": name, "record": record, "method": method, "spd": bool(plus), "terms": terms}
    fields |= {"expected": expected, "classifier": classifier, "config": "first_conv" in expected}
    template = str(Path(__file__).with_name("model_card.md"))
    card = ModelCard.from_template(ModelCardData(**header, tags=tags), template, **fields)
    return f"{str(card).rstrip()}\n"


def _terms(dataset: str) -> tuple[str, str]:
    """Return the card's licence and the terms of the images; no licence is guessed for images of unknown origin."""
    for pattern, terms in _TERMS.items():
        if re.fullmatch(pattern, dataset, re.IGNORECASE):
            return terms
    unknown = f"The licence of the training images (`{dataset or 'not recorded'}`) is not known here: "
    return "other", unknown + "look it up and name it in this card before you pass the weights on."


def _cells(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and values as table cells; nested values have dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _cells(value, f"{prefix}{name}.")
        else:
            text = "none" if value in (None, "") else f"{value:.4g}" if isinstance(value, float) else str(value)
            yield prefix + name, re.sub(r"\s+", " ", text).replace("|", r"\|")
