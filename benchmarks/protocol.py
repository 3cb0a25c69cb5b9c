"""The protocol of book/protocol.md on any object: adapt given weights in every arm, score them, compare them in pairs.

    python benchmarks/protocol.py --root /data/VisA --objects fryum macaroni1 --arch timm/tf_efficientnet_lite0 \
        --weights lite0.safetensors --out book/results/protocol/lite0

Each object has a run of its own below runs/; interrupted, the same command goes on. Arms take turns within a seed, so
that what is done so far is paired. `--photographs FOLDER` adds the arms that see no image of the object,
`--detectors classifier unet` scores with the fine-tuned networks, whose trainings are listed; `--vary clip=0` trains
each arm with this setting changed, too. `--report` prints the tables of what is there without training.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import comparisons
import numpy as np
import pandas as pd
import torch

from visa.backbone import load_backbone
from visa.data.setups import SETUPS
from visa.data.source import Source, open_source
from visa.detect.score import score_metrics, score_setups
from visa.detect.scores import COLUMNS, Scores
from visa.detect.shared import Context, score_settings
from visa.errors import VisaError, named_values
from visa.metrics import image_metrics
from visa.paths import runs_root
from visa.pretrain.fabric import make_fabric
from visa.pretrain.images import TrainingData, folder_data, training_data
from visa.pretrain.run import is_finished, run_pretraining
from visa.pretrain.settings import configured
from visa.pretrain.smoothblend import CUTPASTE
from visa.provenance import file_digest, machine, read_sidecar, write_rows, write_text
from visa.report.tables import load_metrics, to_markdown


class Arm(NamedTuple):
    """A training: its name (its control: comparisons.CONTROLS), method, settings, images, most seeds, a change."""

    name: str
    method: str = ""
    spd: bool = False
    settings: Mapping[str, Any] = MappingProxyType({})
    photographs: bool = False
    seeds: int = 7
    changed: Mapping[str, Any] = MappingProxyType({})


SUPERVISED = {"steps": 504, "epochs": 504, "warmup_epochs": 50.0}
ARMS = (
    Arm("given"),
    Arm("SPD classifier", "auxiliary", True),
    Arm("hard edge", "auxiliary", True, seeds=3),
    Arm("SimSiam", "simsiam"),
    Arm("SimSiam + SPD", "simsiam", True),
    Arm("supervised", "supervised", False, SUPERVISED, True, seeds=3),
    Arm("supervised + SPD", "supervised", True, SUPERVISED, True, seeds=3),
)


def chosen_arms(options: argparse.Namespace) -> Iterator[Arm]:
    """Each arm that is asked for, and after it the same arm with one setting changed, for every `--vary`."""
    for arm in (arm for arm in ARMS if arm.name in options.arms):
        yield arm
        for change in options.vary if arm.method else ():
            yield arm._replace(name=f"{arm.name}, {change}", changed=named_values([change]))


def train(
    arm: Arm, seed: int, images: Callable[[int], TrainingData], options: argparse.Namespace, folder: Path
) -> tuple[Path, dict[str, Any]]:
    """Train an arm, or find it trained; returns its weights and what its diagnosis, curves' end and sidecar say."""
    if not arm.method:
        return options.weights, {}
    chosen = {"arch": options.arch, "weights": str(options.weights), "seed": seed}
    settings = configured(arm.method, arm.spd, chosen | arm.settings | options.smaller | arm.changed)
    if arm.name.startswith("hard edge") and settings.spd:
        settings = replace(settings, spd=replace(settings.spd, blend=CUTPASTE))
    data = images(settings.image_size)
    if not is_finished(settings, data, folder):
        run_pretraining(settings, data, folder, make_fabric(options.device))
    weights = folder / "backbone.safetensors"
    record = read_sidecar(weights) or {}
    return weights, {**record["diagnosis"], "seconds": record["seconds"], "commit": record["machine"]["commit"]}


def defect_rows(scores: Scores) -> Iterator[dict[str, object]]:
    """How a detector's map tells a defect from the rest of its image: AU-ROC of the pixels, and the defect's area."""
    assert scores.maps is not None and scores.masks is not None
    for path, amap, mask, known in zip(scores.paths, scores.maps, scores.masks, scores.known, strict=True):
        if known and 0 < (inside := int(mask.sum())) < mask.size:
            value = image_metrics(amap.ravel(), mask.ravel())["auroc"]
            yield {"detector": scores.detector, "image": path, "area": inside / mask.size, "auroc": round(value, 5)}


def training_rows(scores: Path) -> Iterator[dict[str, object]]:
    """How each fine-tuning went: AP on its own images, whether it failed, mean losses of the eighths of its steps."""
    for file in sorted(scores.glob("*/*/draw*/scores.npz.json")):
        if about := json.loads(file.read_text()).get("training"):
            losses = " ".join(f"{p.mean():.3g}" for p in np.array_split(about.pop("losses"), 8) if p.size)
            yield dict(zip(("setup", "detector", "draw"), file.parts[-4:-1], strict=True)) | about | {"losses": losses}


def measure(source: Source, object: str, options: argparse.Namespace, folder: Path) -> None:
    """Train and score every arm and seed of an object; each result is a folder of rows below `folder`."""
    own = cache(lambda side: training_data(source, object, "", side))
    photographs = cache(lambda side: folder_data(str(options.photographs), side, "photographs"))
    settings = {"arch": options.arch, "weights": file_digest(options.weights), **options.smaller}
    settings |= {"data": source.fingerprint(object), "threads": torch.get_num_threads(), "draws": options.draws}
    chosen = options.detectors, options.setups, options.draws
    for seed in range(options.seeds):
        for arm in chosen_arms(options):
            if (arm.photographs and not options.photographs) or seed >= (arm.seeds if arm.method else 1):
                continue
            images = photographs if arm.photographs else own
            shared = runs_root() / f"protocol-photographs-{settings['weights']}" if arm.photographs else folder
            weights, facts = train(arm, seed, images, options, shared / "pretrain" / arm.name / f"seed{seed}")
            target = folder / "arms" / arm.name / f"seed{seed}"
            print(f"{object}, {arm.name}, seed {seed}: scoring", flush=True)
            context = Context(load_backbone(options.arch, weights).to(options.device), source.root, options.set)
            rows: list[dict[str, object]] = []
            defects: list[dict[str, object]] = []
            for scores in score_setups(context, source, object, target / "scores", *chosen):
                rows += score_metrics(scores)
                defects += defect_rows(scores) if scores.detector == "patchcore" else []
            named = {"dataset": source.name, "object": object, "pretraining": arm.name, "seed": seed}
            write_rows(target / "metrics.csv", COLUMNS, [named | row for row in rows])
            columns = [*named, "detector", "image", "area", "auroc"]
            write_rows(target / "defects.csv", columns, [named | row for row in defects])
            made_by = {"settings": settings, "detector_settings": asdict(options.set), "machine": machine()}
            write_text(target / "facts.json", json.dumps(named | facts | made_by, indent=1) + "\n")


def gather(folders: Sequence[Path], options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Metrics, facts and defects of the arms that are asked for; written to `--out` with the provenance."""
    arms = [arm.name for arm in chosen_arms(options)]
    found = [file.parent for folder in folders for file in sorted(folder.glob("arms/*/seed*/facts.json"))]
    found = [place for place in found if place.parent.name in arms]
    if not found:
        raise VisaError("nothing is measured yet: leave --report.")
    metrics = load_metrics(place / "metrics.csv" for place in found).round({"value": 5})
    defects = pd.concat(pd.read_csv(place / "defects.csv") for place in found)
    old = {"settings": {"arch": options.arch, "weights": file_digest(options.weights)}}  # earlier runs lack theirs
    facts = pd.DataFrame([old | json.loads((place / "facts.json").read_text()) for place in found])
    if options.out:
        wanted = metrics["metric"].isin(["au_pr", "auroc"]) & (metrics["defect"] == "")
        write_text(options.out / "metrics.csv", metrics[wanted].to_csv(index=False))
        write_text(options.out / "defects.csv", defects.drop(columns="dataset").round(5).to_csv(index=False))
        commits = {str(about["commit"]) for about in facts["machine"]} | set(facts.get("commit", pd.Series()).dropna())
        told = {n: facts.pop(n).iloc[-1] for n in ("settings", "detector_settings", "machine") if n in facts}
        write_text(options.out / "arms.csv", facts.round(4).to_csv(index=False))
        trainings = pd.concat({i: pd.DataFrame(training_rows(place / "scores")) for i, place in enumerate(found)})
        if len(trainings):
            trainings = facts[["object", "pretraining", "seed"]].join(trainings.droplevel(1), how="right")
            write_text(options.out / "trainings.csv", trainings.round(4).to_csv(index=False))
        about = {"script": "benchmarks/protocol.py", "dataset": metrics["dataset"].iloc[0]}
        about |= {"commits": sorted(commits), "tables": machine()["commit"], **told}
        write_text(options.out / "provenance.json", json.dumps(about, indent=1) + "\n")
    return metrics, facts, defects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="", help="VisA, or another of the book's layouts; default: VISA_ROOT")
    parser.add_argument("--objects", nargs="+", required=True)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--name", help="of the runs; default: the weights file's")
    parser.add_argument("--photographs", type=Path, help="a folder of one image a class of ImageNet")
    parser.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS])
    parser.add_argument("--detectors", nargs="+", default=["probe", "patchcore", "padim"])
    parser.add_argument("--setups", nargs="+", default=SETUPS)
    parser.add_argument("--set", nargs="+", default=(), metavar="NAME=VALUE", help="settings of the detectors")
    parser.add_argument("--vary", nargs="+", default=(), metavar="NAME=VALUE", help="settings to change, one at a time")
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smaller", type=json.loads, default={}, metavar="JSON", help="settings of a trial")
    parser.add_argument("--report", action="store_true", help="print what is there, train nothing")
    parser.add_argument("--out", type=Path, help="a folder for the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    source = open_source(options.root, options.objects)
    options.set = score_settings(0, named_values(options.set))  # one seed: only the training differs
    name = f"protocol-{source.name}-{options.name or options.weights.stem}"
    for arm in chosen_arms(options):  # a wrong setting is refused before the first training
        configured(arm.method or "simsiam", arm.spd, {"weights": "-", **arm.settings, **options.smaller, **arm.changed})
    folders = [runs_root() / f"{name}-{source.check_object(object)}" for object in options.objects]
    for object, folder in zip(options.objects, folders, strict=True):
        if not options.report:
            measure(source, object, options, folder)
    metrics, facts, defects = gather(folders, options)
    table = comparisons.differences(metrics)
    parts = dict(iter(table.groupby("object", sort=False)))
    means = {name: comparisons.au_pr_table(metrics[metrics["object"] == name], part) for name, part in parts.items()}
    told = {name: comparisons.differences_table(part, facts[facts["object"] == name]) for name, part in parts.items()}
    for name, what, of_each in (("au_pr", "", means), ("differences", " minus its control's [95 % over seeds]", told)):
        shown = pd.concat(of_each, names=["object"]).droplevel(1).reset_index().fillna("–")
        print(f"\nAU-PR{what}, points\n\n{to_markdown(shown)}")
        if options.out:
            write_text(options.out / f"{name}.csv", shown.to_csv(index=False))
    if len(defects):
        thirds = comparisons.sized(defects).groupby(["object", "pretraining", "size"], sort=False)["auroc"]
        inside = thirds.mean().unstack()[list(comparisons.SIZES)].map("{:.3f}".format).reset_index()
        print(f"\nAU-ROC of PatchCore's maps, in defects against outside, by thirds of area\n\n{to_markdown(inside)}")
    primary = comparisons.primary_table(metrics, table, facts)
    print(f"\nPrimary comparisons\n\n{to_markdown(primary)}")
    print(comparisons.power([(table, options.arch)]), *comparisons.sentences(primary), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except VisaError as error:
        raise SystemExit(f"protocol: {error}") from error
