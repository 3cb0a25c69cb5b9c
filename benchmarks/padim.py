"""PaDiM against anomalib's, in CPU seconds of one thread on the same features, parts taking turns.

    OMP_NUM_THREADS=1 VISA_ROOT=/data/VisA python benchmarks/padim.py --object fryum --arch A --weights W --out FILE

Fit of 100 channels at 28 x 28 and 56 x 56 positions, from features that come in batches of 16 (goal: 3 times), and the
scores of the test images by both: AU-ROC, and how far maps differ. anomalib has to be installed in the same environment
(benchmarks/common.py).
"""

import argparse
import statistics

import numpy as np
import torch
from common import Data, add_options, anomalib_version, batches, cpu_seconds, ratio, show, turns, write_record

from visa.backbone import FeatureMaps
from visa.detect.padim import LAYERS, PaDiM

CHANNELS = 100


def features(data, images):
    """The channels that PaDiM draws, N, C, h, w."""
    detector = PaDiM(FeatureMaps(data.backbone, LAYERS), CHANNELS)
    parts = [detector._features(b) for b in batches(images)]
    return torch.cat(parts).unflatten(2, detector.shape.tolist())


def fitted(x):
    return PaDiM(lambda maps: [maps], CHANNELS).fit(x.split(16))


def anomalib_fitted(x):
    """The fit of anomalib's PadimModel."""
    from anomalib.models.components import MultiVariateGaussian

    gaussian = MultiVariateGaussian()
    gaussian.fit(torch.vstack(x.split(16)))
    return gaussian


def anomalib_maps(gaussian, x, size):
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    draw, given = AnomalyMapGenerator(), {"mean": gaussian.mean, "inv_covariance": gaussian.inv_covariance}
    return torch.cat([draw(embedding=part, image_size=size, **given)[:, 0] for part in x.split(16)]).numpy()


def compare(data, peer, repeats):
    """A row at one size of images."""
    train, test = features(data, data.train), features(data, data.test)
    runs = {"ours": lambda: cpu_seconds(lambda: fitted(train))[0]}
    runs |= {"anomalib": lambda: cpu_seconds(lambda: anomalib_fitted(train))[0]} if peer else {}
    taken = turns(runs, repeats)
    row = {"positions": f"{train.shape[2]} x {train.shape[3]}", "images": len(train), "channels": CHANNELS}
    row |= {f"{name}_seconds": statistics.median(t) for name, t in taken.items()}
    row |= {"times_faster": ratio(taken, "anomalib", "ours")} if peer else {}
    whole = PaDiM(FeatureMaps(data.backbone, LAYERS), CHANNELS)
    for part, images, work in (
        ("fit", data.train, whole.fit),
        ("score", data.test, lambda parts: [whole.score(b) for b in parts]),
    ):
        forward, _ = cpu_seconds(lambda images=images: [whole.extract(b) for b in batches(images)])
        seconds, scored = cpu_seconds(lambda work=work, images=images: work(batches(images)))
        row |= {f"whole_{part}_seconds": seconds, f"forward_share_of_{part}": forward / seconds}
    scores, maps = (np.concatenate(part) for part in zip(*scored, strict=True))
    row |= {f"{name}_ours": value for name, value in data.aurocs(scores, maps).items()}
    if peer:
        theirs = anomalib_maps(anomalib_fitted(train), test, data.size)
        row |= {f"{name}_anomalib": v for name, v in data.aurocs(theirs.max(axis=(1, 2)), theirs).items()}
        row["largest_relative_difference_of_maps"] = float((np.abs(theirs - maps) / maps).max())
    show([row])
    return row


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    peer, rows = anomalib_version(), []
    for side in (options.image_size // 2, options.image_size):
        data = Data(options, side)
        rows.append(compare(data, peer, options.repeats))
    write_record(options.out, options, rows=rows, data=data.about, peer=peer)


if __name__ == "__main__":
    main()
