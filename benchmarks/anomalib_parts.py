"""anomalib's PatchCore and PaDiM on saved features, for patchcore.py and padim.py; runs in anomalib's own environment.

A request is a JSON line {"part": NAME, ...} on standard input, its answer one on standard output. Arrays travel as
.npy files. `seconds` are CPU seconds, with one thread.
"""

import json
import sys
import time
from functools import cache
from importlib.metadata import version

import numpy as np
import torch
from anomalib.models.components import KCenterGreedy, MultiVariateGaussian, SparseRandomProjection
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator as PadimMaps
from anomalib.models.image.patchcore.torch_model import PatchcoreModel


@cache
def load(file):
    return torch.from_numpy(np.load(file))


def project(features, out):
    """What KCenterGreedy projects features to, before it selects."""
    torch.manual_seed(0)
    model = SparseRandomProjection(eps=0.9)
    start = time.process_time()
    model.fit(load(features))
    projected = model.transform(load(features))
    seconds = time.process_time() - start
    np.save(out, projected.numpy())
    return {"seconds": seconds, "dimensions": projected.shape[1]}


def coreset(projected, distances, last, turns):
    """So many turns of KCenterGreedy's loop, from the pick `last` and the distances to all picks before it on."""
    x = load(projected)
    sampler = KCenterGreedy(x, 1.0)
    sampler.features, index, picks = x, torch.tensor(last), []
    sampler.min_distances = None if distances is None else torch.from_numpy(np.load(distances))[:, None]
    start = time.process_time()
    for _ in range(turns):  # the loop of KCenterGreedy.select_coreset_idxs
        sampler.update_distances(cluster_center=index)
        index = sampler.get_new_idx()
        sampler.min_distances.scatter_(0, index.unsqueeze(0).unsqueeze(1), 0.0)
        picks.append(index)
    return {"seconds": time.process_time() - start, "picks": torch.stack(picks).tolist()}


def whole_coreset(features, out, ratio):
    torch.manual_seed(0)
    start = time.process_time()
    picks = KCenterGreedy(load(features), ratio).select_coreset_idxs()
    np.save(out, np.array(picks))
    return {"seconds": time.process_time() - start}


@cache
def patchcore(bank):
    model = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False).eval()
    model.memory_bank = load(bank)
    return model


def neighbors(bank, queries):
    model, x = patchcore(bank), load(queries)
    start = time.process_time()
    distances, _ = model.nearest_neighbors(x, 1)
    return {"seconds": time.process_time() - start, "largest": float(distances.max())}


def patchcore_scores(bank, queries, images, side, out):
    """Image scores and maps of so many images, a few at a time."""
    model, scores, maps = patchcore(bank), [], []
    h, w = side
    for x in load(queries).split(8 * h * w):
        found, places = (t.reshape(len(x) // (h * w), -1) for t in model.nearest_neighbors(x, 1))
        scores.append(model.compute_anomaly_score(found, places, x))
        maps.append(model.anomaly_map_generator(found.reshape(-1, 1, h, w), images)[:, 0])
    np.savez(out, scores=torch.cat(scores).numpy(), maps=torch.cat(maps).numpy())
    return {}


def padim_fit(features, out):
    """The fit of PadimModel, features (N, C, h, w) coming in batches of 16."""
    batches = list(load(features).split(16))
    start = time.process_time()
    gaussian = MultiVariateGaussian()
    gaussian.fit(torch.vstack(batches))
    seconds = time.process_time() - start
    if out:
        np.savez(out, mean=gaussian.mean.numpy(), inverse=gaussian.inv_covariance.numpy())
    return {"seconds": seconds}


def padim_scores(fitted, features, images, out):
    with np.load(fitted) as file:
        mean, inverse = (torch.from_numpy(file[k]) for k in ("mean", "inverse"))
    generator = PadimMaps()
    start = time.process_time()
    parts = load(features).split(16)
    maps = [generator(embedding=x, mean=mean, inv_covariance=inverse, image_size=images)[:, 0] for x in parts]
    seconds = time.process_time() - start
    np.savez(out, maps=torch.cat(maps).numpy(), scores=torch.cat(maps).amax((1, 2)).numpy())
    return {"seconds": seconds}


PARTS = (project, coreset, whole_coreset, neighbors, patchcore_scores, padim_fit, padim_scores)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    parts = {part.__name__: part for part in PARTS}
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"anomalib": version("anomalib"), "torch": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(parts[request.pop("part")](**request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
