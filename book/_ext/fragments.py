"""Parts of pages that are made from files: tables of the data, published and measured figures, the API's list."""

import pkgutil
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import cluster_pages
import fault_pages
import ledger
import measured
import metric_pages
import mini_pages
import pandas as pd
import similarity
import speed_pages

import visa
from visa.data.objects import OBJECTS
from visa.pipeline import PRETRAININGS
from visa.pretrain.ablation import REFERENCE
from visa.report import tables

FRYUM = "visa run --objects fryum --seeds 0,1,2"
SMALL = "--pretrain arch=resnet18_half --pretrain batch_size=32 --pretrain precision=bf16-mixed"
METHODS = f"{FRYUM} --pretrainings {','.join(PRETRAININGS)} {SMALL} --pretrain image_size=48 --pretrain eta=0.5"
IMAGENET = "--weights imagenet=timm/tf_efficientnet_lite0:lite0.safetensors"  # from benchmarks/imagenet_lite0.py
RESULTS = {  # folder of book/results: the command that makes its files
    "fryum": f"{FRYUM} --pretrain epochs=12 --pretrain batch_size=32 --score full_maps=false {IMAGENET}",
    "setups_fryum": f"{FRYUM} --detectors padim,patchcore,probe,classifier,unet {SMALL} --pretrain epochs=30 "
    "--pretrain image_size=64 --pretrain eta=0.5 --score full_maps=false --score epochs=10 --score min_steps=64 "
    f"{IMAGENET}",
    "methods_fryum": f"{METHODS} --pretrain epochs=14",
    "methods_photographs": f"{METHODS} --pretrain epochs=7 --pretrain pretrain_root=PHOTOGRAPHS",
}
ABLATION = f"{FRYUM} --ablation {SMALL} --pretrain epochs=8 --pretrain image_size=48"
STAGES = {  # the packages of the API page, in the order of the way through
    "Foundations": ("errors", "paths", "provenance", "backbone", "metrics"),
    "Data": ("data",),
    "Pre-training": ("pretrain",),
    "Detection": ("detect",),
    "Report": ("report",),
}
PUBLIC = ("visa.metrics",)  # packages whose names are used from the package
REST = "Running"


def fragments(book: Path) -> dict[str, str]:
    """File name to text, for everything in book/generated."""
    made = {
        "objects.md": tables.to_markdown(_objects()),
        "classes.md": tables.to_markdown(_classes()),
        "counts.md": tables.to_markdown(_csv(book / "reference" / "class_counts.csv")),
        "splits.md": tables.to_markdown(_csv(book / "reference" / "split_sizes.csv")),
        "toy_spd_forms.md": tables.to_markdown(_csv(book / "reference" / "toy_spd_forms.csv")),
        "peers_fryum.md": tables.to_markdown(_csv(book / "reference" / "peers_fryum.csv")),
        "published.md": tables.to_markdown(_csv(book / "reference" / "published.csv")),
        "api.md": api(),
    }
    for name, command in RESULTS.items():
        made[f"command_{name}.md"] = f"```sh\n{_wrapped(command)}\n```\n"
        made |= measured.results(name, command, book / "results" / name)
    made |= metric_pages.conventions(book / "results" / "metric_conventions")
    made |= metric_pages.speed(book / "results" / "benchmarks" / "metrics.csv")
    made |= speed_pages.speeds(book / "results" / "benchmarks")
    made |= cluster_pages.parts(book / "results" / "cluster")
    made |= mini_pages.fragments(book / "results" / "mini_visa")
    made |= fault_pages.faults(book / "results" / "faults")
    made |= metric_pages.growth(book / "results" / "growth")
    made |= similarity.similarity(book / "results" / "similarity")
    made |= ledger.ledger(book, RESULTS | {"ablation": ABLATION})
    return made | measured.ablation(REFERENCE, ABLATION, book / "results" / "ablation")


def api() -> str:
    """An automodule directive for every module and every package of PUBLIC, a heading a stage."""
    found = pkgutil.walk_packages(visa.__path__, "visa.")
    modules = [m.name for m in found if not m.ispkg or m.name in PUBLIC]
    sections, placed = [], set()
    for heading, parts in STAGES.items():
        chosen = [m for part in parts for m in modules if m.split(".")[1] == part]
        placed.update(chosen)
        sections.append(_api_section(heading, chosen))
    return "\n".join([*sections, _api_section(REST, [m for m in modules if m not in placed])])


def _wrapped(command: str) -> str:
    """Over several lines of a shell, each option with its value."""
    options = re.sub(r"(--\S+) ", "\\1\N{NO-BREAK SPACE}", command)
    lines = textwrap.wrap(options, 88, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _objects() -> pd.DataFrame:
    rows = [(o.group, o.name, f"`{o.id}`", o.normal, o.anomaly, len(o.classes)) for o in OBJECTS.values()]
    total = ("**all**", "", "", sum(o.normal for o in OBJECTS.values()), sum(o.anomaly for o in OBJECTS.values()), "")
    return pd.DataFrame([*rows, total], columns=["group", "object", "id", "normal", "anomalous", "classes"])


def _classes() -> pd.DataFrame:
    rows = [(f"`{o.id}`", ", ".join(f"{i} {c}" for i, c in enumerate(o.classes, 1))) for o in OBJECTS.values()]
    return pd.DataFrame(rows, columns=["object", "class ids in masks"])


def _csv(file: Path) -> pd.DataFrame:
    """A table as it is written: all text, empty cells empty."""
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def _api_section(heading: str, modules: Iterable[str]) -> str:
    parts = [f"## {heading}\n"]
    for module in modules:
        options = "   :members:\n"
        if module.rpartition(".")[0] in PUBLIC:
            options = ""  # what is for users stands with the package
        elif module not in PUBLIC:
            options += "   :ignore-module-all:\n"  # what a module passes on is listed where it is written
        parts.append(f"### `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options}```\n")
    return "\n".join(parts)
