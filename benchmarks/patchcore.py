"""PatchCore against anomalib's, in CPU seconds of one thread on the same features, parts taking turns.

    OMP_NUM_THREADS=1 VISA_ROOT=/data/VisA python benchmarks/patchcore.py --object fryum --arch A --weights W --out FILE

- Coreset: the same greedy rule on what anomalib's own projection gives. A turn of anomalib's loop costs the same at any
  point of the selection, so it is timed over windows of some turns: at the start, and behind a twentieth and nine
  twentieths of 1 % (--at); from the same picks on it must pick what we picked. Ours runs in full, at 1 % and 10 %.
  Goal: 50 times a pick.
- Neighbours: 3,136 patches in 35,280 against the bare matrix product and anomalib.
- Quality: AU-ROC of both on the same features and the same coreset.

anomalib has to be installed in the same environment (benchmarks/common.py).
"""

import argparse
import statistics
import time

import numpy as np
import torch
from common import Data, add_options, anomalib_version, batches, cpu_seconds, ratio, show, turns, write_record

from visa.backbone import FeatureMaps
from visa.detect.patchcore import LAYERS, PatchCore, greedy_coreset, nearest_patches


def coresets(x, peer, options):
    """A row each for 1 % and 10 %: milliseconds a pick, and how many times as long anomalib takes."""
    z = projected(x, peer)
    for share in (0.01, 0.1):
        count = max(2, int(share * len(z)))
        picks, equal = greedy_coreset(z, min(count, int(0.01 * len(z)))), []
        windows = list(starts(z, picks, options)) if peer else []

        def theirs(windows=windows, equal=equal):
            answers = [anomalib_turns(z, last, known, len(expected)) for last, known, expected in windows]
            equal += [
                a == b for w, (_, own) in zip(windows, answers, strict=True) for a, b in zip(own, w[2], strict=True)
            ]
            return sum(seconds for seconds, _ in answers) / (options.window * len(windows))

        runs = {"ours": lambda c=count: cpu_seconds(lambda: greedy_coreset(z, c))[0] / c}
        runs |= {"anomalib": theirs} if windows else {}
        taken = turns(runs, options.repeats if share < 0.1 else 1)
        row = {"share": share, "patches": len(z), "picks": count, "dimensions": z.shape[1]}
        row |= {f"{name}_ms_a_pick": 1e3 * statistics.median(t) for name, t in taken.items()}
        if windows:
            row |= {"times_faster": ratio(taken, "anomalib", "ours"), "equal_picks": f"{sum(equal)} of {len(equal)}"}
        show([row])
        yield row


def projected(x, peer):
    """What anomalib's KCenterGreedy projects features to before it selects; without it, a plain random projection."""
    torch.manual_seed(0)
    if not peer:
        return x @ torch.randn(x.shape[1], 128) * 128**-0.5
    from anomalib.models.components import SparseRandomProjection

    return SparseRandomProjection(eps=0.9).fit(x).transform(x)


def starts(z, picks, options):
    """A window's first centre, the distances to the picks before it, and the picks that follow."""
    for at in options.at:
        k = min(int(at * len(picks)), len(picks) - options.window - 1)
        known = nearest_patches(z, z[picks[:k]])[0] if k else None
        yield int(picks[k]), known, picks[k + 1 : k + 1 + options.window].tolist()


def anomalib_turns(z, last, known, count):
    """CPU seconds and picks of so many turns of KCenterGreedy's loop, from the pick `last` on."""
    from anomalib.models.components import KCenterGreedy

    sampler = KCenterGreedy(z, 1.0)
    sampler.features, index, picks = z, torch.tensor(last), []
    sampler.min_distances = None if known is None else known[:, None].clone()
    start = time.process_time()
    for _ in range(count):  # the loop of KCenterGreedy.select_coreset_idxs
        sampler.update_distances(cluster_center=index)
        index = sampler.get_new_idx()
        sampler.min_distances.scatter_(0, index.unsqueeze(0).unsqueeze(1), 0.0)
        picks.append(index)
    return time.process_time() - start, torch.stack(picks).flatten().tolist()


def anomalib_model(bank):
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False).eval()
    model.memory_bank = bank
    return model


def neighbors(x, queries, peer, repeats):
    bank, queries = x[:: max(1, len(x) // 35280)][:35280].contiguous(), queries[:3136].contiguous()
    runs = {
        "product": lambda: cpu_seconds(lambda: queries @ bank.T)[0],
        "ours": lambda: cpu_seconds(lambda: nearest_patches(queries, bank))[0],
    }
    row = {"queries": len(queries), "bank": len(bank), "dimensions": x.shape[1]}
    row["own_distance_ours"] = float(nearest_patches(bank[:3136], bank)[0].max())  # of the bank's patches to the bank
    if peer:
        model = anomalib_model(bank)
        runs["anomalib"] = lambda: cpu_seconds(lambda: model.nearest_neighbors(queries, 1))[0]
        row["own_distance_anomalib"] = float(model.nearest_neighbors(bank[:3136], 1)[0].max())
    turns(runs, 1)
    taken = turns(runs, 3 * repeats)
    row |= {f"{name}_seconds": statistics.median(t) for name, t in taken.items()}
    row |= {"ours_in_products": ratio(taken, "ours", "product")}
    row |= {"times_faster": ratio(taken, "anomalib", "ours")} if peer else {}
    show([row])
    return row


def quality(data, detector, queries, peer):
    """AU-ROC of both on the same bank, and ours with the backbone's forward pass in CPU seconds."""
    scored = [detector.score(b) for b in batches(data.test)]
    rows = [{"detector": "ours", **data.aurocs(*map(np.concatenate, zip(*scored, strict=True)))}]
    if peer:
        model, scores, maps = anomalib_model(detector.bank), [], []
        h, w = (side // 8 for side in data.size)
        for x in queries.split(8 * h * w):
            found, places = (t.reshape(len(x) // (h * w), -1) for t in model.nearest_neighbors(x, 1))
            scores.append(model.compute_anomaly_score(found, places, x))
            maps.append(model.anomaly_map_generator(found.reshape(-1, 1, h, w), data.size)[:, 0])
        rows.append({"detector": "anomalib", **data.aurocs(torch.cat(scores).numpy(), torch.cat(maps).numpy())})
    show(rows)
    return rows


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--at", type=float, nargs="+", default=(0, 0.05, 0.45), help="where windows begin, in 1 %%")
    parser.add_argument("--window", type=int, default=20, help="turns of anomalib's loop in a window")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peer, data = anomalib_version(), Data(options)
    detector = PatchCore(FeatureMaps(data.backbone, LAYERS)).fit(batches(data.train))
    x, queries = (torch.cat([detector._embed(b)[0] for b in batches(part)]) for part in (data.train, data.test))
    found = {
        "neighbors": neighbors(x, queries, peer, options.repeats),
        "quality": quality(data, detector, queries, peer),
    }
    found["coreset"] = list(coresets(x, peer, options))
    write_record(options.out, options, **found, data=data.about, peer=peer)


if __name__ == "__main__":
    main()
