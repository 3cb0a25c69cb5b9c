"""The model card of exported weights: what they are, how they load, what was measured, whose terms bind."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import visa

CITATION = """@inproceedings{zou2022spot,
  title     = {{SPot-the-Difference} Self-supervised Pre-training for Anomaly Detection and Segmentation},
  author    = {Zou, Yang and Jeong, Jongheon and Pemula, Latha and Zhang, Dongqing and Dabeer, Onkar},
  booktitle = {European Conference on Computer Vision},
  pages     = {392--408},
  year      = {2022},
  note      = {arXiv:2207.14315},
}"""
_METHODS = {
    "simsiam": "SimSiam (Chen & He, 2021)",
    "mocov2": "MoCo v2 (Chen et al., 2020)",
    "simclr": "SimCLR (Chen et al., 2020)",
    "supervised": "supervised classification (He et al., 2016)",
}
_PROBES = {
    "cos_weak": "mean cosine of two weak views of an image",
    "cos_blend": "mean cosine of a weak view and its SmoothBlend-ed copy",
    "triplet": "share of images whose weak views are closer than view and blended copy",
    "probe_auroc": "AU-ROC of a linear probe on the backbone that tells blended from clean",
}
_TERMS = {
    r"mini-visa": ("apache-2.0", "mini-VisA is rendered by the code: nobody's photographs, no licence but the code's."),
    r"visa": ("cc-by-4.0", "VisA is licensed CC BY 4.0: name its authors (citation below) when you pass weights on."),
    r"(imagenet|ilsvrc).*": (
        "other",
        "ImageNet's terms of access allow non-commercial research and education only: "
        "whoever passes these weights on or uses them must heed that.",
    ),
}
_SYNTHETIC = """> **TRAINED ON SYNTHETIC IMAGES.** {dataset} is rendered by code and stands in for VisA.
> These weights show that the pipeline runs; they say nothing about VisA, about real objects or the paper's results.

"""
_RESNET_LINES = """torchvision, all weights of the file and none besides:

```python
model = torchvision.models.{arch}()
model.load_state_dict(safetensors.torch.load_file("{file}"), strict=True)
```

anomalib 2, with timm 1.0.16 or newer; `local-dir:` takes the path of this folder (`config.json` must lie in it):

```python
anomalib.models.Padim(backbone="local-dir:path/to/folder", n_features={padim_features})
anomalib.models.Patchcore(backbone="local-dir:path/to/folder")
```

The path must not contain `vit`, which anomalib takes for a transformer. Leave `pre_trained` True, or the file is not
read.

"""
_CARD = """---
license: {license}
{license_name}library_name: timm
pipeline_tag: image-feature-extraction
tags:
{tags}
---

# {name}

{synthetic}{what}

| | |
|---|---|
{overview}

## Loading

timm:

```python
model = timm.create_model("{timm_arch}", checkpoint_path="{file}")
```

{resnet_lines}Images go in as RGB in [0, 1] less mean {mean}, over deviation {std}.
{classifier}

## Measured

{measured}

## Settings

{settings}

## Run

{run}

## Use and limits

Meant as a frozen feature extractor for anomaly detection (PaDiM, PatchCore and the like) and as a start for research on
pre-training. Nothing but what stands under "Measured" was measured on these weights; they are no released weights of
the paper. Other image sizes than the views' in "Settings", other kinds of images and other uses are untested.

## Licence

Code: Apache-2.0. {terms}{started_from}

## Citation

```bibtex
{citation}
```
"""


def model_card(record: Mapping[str, Any], name: str, classifier: str, expected: Mapping[str, Any]) -> str:
    """The card of the weights `name`, in Markdown with the header of Hugging Face's hub.

    `record`: what a pre-training left (settings, dataset, images, diagnosis, machine, ...), with `curve_end`;
    `classifier`: a sentence on it; `expected`: mean and deviation of the images, and for a ResNet its classifier.
    """
    settings = record["settings"]
    arch, started_from = settings["arch"], settings.get("weights")
    license_, terms = _terms(record["dataset"])
    license_ = "other" if started_from else license_
    padim_features = 100 if arch == "resnet18" else 550
    lines = _RESNET_LINES.format(arch=arch, file=f"{name}.safetensors", padim_features=padim_features)
    tags = ["anomaly-detection", "spot-the-difference", *(["synthetic-data"] if record["synthetic"] else [])]
    return _CARD.format(
        license=license_,
        license_name="license_name: terms-of-the-training-data\nlicense_link: README.md\n"
        if license_ == "other"
        else "",
        tags="\n".join(f"- {tag}" for tag in tags),
        name=name,
        synthetic=_SYNTHETIC.format(dataset=record["dataset"]) if record["synthetic"] else "",
        what=_what(record),
        overview=_rows(_overview(record)),
        timm_arch=arch.removeprefix("timm/"),
        file=f"{name}.safetensors",
        resnet_lines=lines if "classifier" in expected else "",
        mean=expected["mean"],
        std=expected["std"],
        classifier=classifier,
        measured=_measured(record),
        settings=_table("setting", settings),
        run=_table("fact", _run(record)),
        terms=terms,
        started_from=f" Training started from `{started_from}`: its licence binds too." if started_from else "",
        citation=CITATION,
    )


def _what(record: Mapping[str, Any]) -> str:
    arch, (method, spd) = record["settings"]["arch"], _method(record)
    if method == "random":
        return f"`{arch}`, not trained: the baseline that trained weights are paired with."
    term = "with SPD (SPot-the-Difference; Zou et al., 2022)" if spd else "without SPD"
    return f"`{arch}`, pre-trained with {_METHODS.get(method, method)}, {term}."


def _method(record: Mapping[str, Any]) -> tuple[str, bool]:
    method, plus, _ = record["pretraining"].partition("+")
    return method, bool(plus)


def _overview(record: Mapping[str, Any]) -> dict[str, Any]:
    machine = record.get("machine", {})
    return {
        "Data": ", ".join(dict.fromkeys(filter(None, (record["dataset"], record["scope"])))) or "not recorded",
        "Training images": record.get("images", "not recorded"),
        "Seed": record["settings"].get("seed", "not recorded"),
        "Code": f"visa {machine.get('visa') or '(version not recorded)'}, exported with visa {visa.__version__}",
        "Commit": machine.get("commit") or "not recorded",
    }


def _measured(record: Mapping[str, Any]) -> str:
    probes, end = record["diagnosis"], record["curve_end"]
    probes = {f"{name}: {_PROBES[name]}" if name in _PROBES else name: value for name, value in probes.items()}
    parts = [_table("probe, on held-out images", probes) if probes else "No probe was recorded."]
    if _method(record)[0] != "random":
        parts += [_table("training, mean of the last 10 steps", end) if end else "No training curve was recorded."]
    return "\n\n".join(parts)


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    """All else that the sidecar tells: fingerprint of the data, seconds, device, machine, libraries."""
    shown = ("key", "settings", "metadata", "diagnosis", "curve_end", "pretraining", "dataset", "synthetic", "scope")
    facts = {k: v for k, v in record.items() if k not in (*shown, "images", "machine", "classifier")}
    return facts | {k: v for k, v in record.get("machine", {}).items() if k not in ("visa", "commit")}


def _terms(dataset: str) -> tuple[str, str]:
    """A card's licence and the duty of the data's licence; none is guessed for images of unknown origin."""
    for pattern, terms in _TERMS.items():
        if re.fullmatch(pattern, dataset, re.IGNORECASE):
            return terms
    unknown = f"The licence of the training images (`{dataset or 'not recorded'}`) is not known here: "
    return "other", unknown + "look it up and name it in this card before you pass the weights on."


def _table(title: str, values: Mapping[str, Any]) -> str:
    return f"| {title} | |\n|---|---|\n{_rows(values)}"


def _rows(values: Mapping[str, Any]) -> str:
    return "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in _flat(values))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _cell(value: Any) -> str:
    text = "none" if value in (None, "") else f"{value:.4g}" if isinstance(value, float) else str(value)
    return re.sub(r"\s+", " ", text).replace("|", r"\|")
