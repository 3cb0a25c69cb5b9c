"""PaDiM against anomalib's, in CPU seconds of one thread on the same features, parts taking turns.

    OMP_NUM_THREADS=1 python benchmarks/padim.py --weights W --arch A --peer-python P --out padim.json

Fit of 100 channels at 28 x 28 and 56 x 56 positions, from features that come in batches of 16 (goals: 3 and 5 times
anomalib's), the scores of the test images by both (AU-ROC, and how far maps differ), and the memory that the fit takes
beyond what it began with, for growing numbers of images.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
from pathlib import Path

import numpy as np
import peer
import torch
from peer import batches, cpu_seconds, ratio, turns

from visa.backbone import FeatureMaps
from visa.detect.padim import LAYERS, PaDiM
from visa.provenance import machine, write_text

CHANNELS = 100


def features(data, images):
    """The channels that PaDiM draws, N, C, h, w."""
    detector = PaDiM(FeatureMaps(data.backbone, LAYERS), CHANNELS)
    parts, shape = zip(*(detector._features(b) for b in batches(images)), strict=True)
    return torch.cat(parts).unflatten(2, shape[0])


def fitted(x):
    return PaDiM(lambda maps: [maps], CHANNELS).fit(x.split(16))


def compare(data, anomalib, folder, repeats):
    train, test = features(data, data.train), features(data, data.test)
    size = data.size
    files = {name: folder / f"{name}{train.shape[2]}.npy" for name in ("train", "test")}
    for name, x in (("train", train), ("test", test)):
        np.save(files[name], x.numpy())
    runs = {"ours": lambda: cpu_seconds(lambda: fitted(train))[0]}
    if anomalib.about:
        runs["anomalib"] = lambda: anomalib("padim_fit", features=files["train"], out="")["seconds"]
    taken = turns(runs, repeats)
    detector = fitted(train)
    row = {"positions": f"{train.shape[2]} x {train.shape[3]}", "images": len(train), "channels": CHANNELS}
    row |= {f"{name}_seconds": statistics.median(t) for name, t in taken.items()}
    row |= {"times_faster": ratio(taken, "anomalib", "ours")} if anomalib.about else {}
    whole = PaDiM(FeatureMaps(data.backbone, LAYERS), CHANNELS)
    seconds, _ = cpu_seconds(lambda: whole.fit(batches(data.train)))
    forward, _ = cpu_seconds(lambda: [whole.extract(b) for b in batches(data.train)])
    row |= {"whole_fit_seconds": seconds, "forward_share_of_fit": forward / seconds}
    seconds, scored = cpu_seconds(lambda: [whole.score(b) for b in batches(data.test)])
    forward, _ = cpu_seconds(lambda: [whole.extract(b) for b in batches(data.test)])
    row |= {"whole_score_seconds": seconds, "forward_share_of_score": forward / seconds}
    scores, maps = (np.concatenate(part) for part in zip(*scored, strict=True))
    row["ours"] = data.figures(scores, maps)
    if anomalib.about:
        fit, out = folder / "fit.npz", folder / "scored.npz"
        anomalib("padim_fit", features=files["train"], out=fit)
        answer = anomalib("padim_scores", fitted=fit, features=files["test"], images=size, out=out)
        with np.load(out) as file:
            row["anomalib"] = data.figures(file["scores"], file["maps"])
            row["largest_relative_difference_of_maps"] = float((np.abs(file["maps"] - maps) / maps).max())
        row["anomalib_score_seconds_without_forward"] = answer["seconds"]
        row["ours_score_seconds_without_forward"] = score_alone(detector, test, size)
    print(json.dumps(row), flush=True)
    return row


def score_alone(detector, x, size):
    """CPU seconds of the scores of features, at the images' size."""

    class Sized:  # what `score` asks of images: features, and the size of the map
        def __init__(self, features):
            self.features, self.shape = features, (len(features), 3, *size)

    detector.extract = lambda images: [images.features]
    return cpu_seconds(lambda: [detector.score(Sized(part)) for part in x.split(16)])[0]


def _grown(images, side, answers):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    made = (torch.rand(16, CHANNELS, side, side, generator=generator) for _ in range(images // 16))
    before = _peak()
    PaDiM(lambda maps: [maps], CHANNELS).fit(made)
    answers.put(_peak() - before)


def _peak():
    """MiB of this process's memory at its highest (Linux); ru_maxrss would be that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def memory(side=28):
    """MiB that a fit takes for growing numbers of images."""
    context, taken = multiprocessing.get_context("spawn"), {}
    for images in (64, 256, 1024, 4096):
        answers = context.Queue()
        process = context.Process(target=_grown, args=(images, side, answers))
        process.start()
        taken[images] = round(answers.get(), 1)
        process.join()
    row = {"positions": f"{side} x {side}", "channels": CHANNELS, "mib_of_images": taken}
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer.add_options(parser)
    options = parser.parse_args()
    peer.one_thread()
    anomalib, rows = peer.Anomalib(options.peer_python), []
    with tempfile.TemporaryDirectory() as name:
        for side in (options.image_size // 2, options.image_size):
            options.image_size = side
            data = peer.Data(options)
            rows.append(compare(data, anomalib, Path(name), options.repeats))
    record = {"rows": rows, "memory": memory(), "asked": peer.asked(options), "data": data.about}
    record |= {"peer": anomalib.about, "machine": machine()}
    anomalib.close()
    if options.out:
        write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
