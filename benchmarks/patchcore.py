"""PatchCore against anomalib's, in CPU seconds of one thread on the same features, parts taking turns.

    OMP_NUM_THREADS=1 python benchmarks/patchcore.py --weights W --arch A --peer-python P --out patchcore.json

- Coreset: the same greedy rule on what anomalib's own projection gives. A turn of anomalib's loop costs the same at any
  point of the selection, so it is timed over windows of some turns: at the start, and behind a twentieth and nine
  twentieths of 1 % (--at); from the same picks on it must pick what we picked. Ours runs in full, at 1 % and at 10 %.
  Goals: 15 times and 20 times.
- Neighbours: 3,136 patches in 35,280 against the bare matrix product (goal: 1.1 times), also where the memory of its
  result lies ready, and anomalib.
- Fit and score in full, and the backbone's forward pass in them, which is their floor.
- Quality: AU-ROC of both on the same features; with --whole-peer, each on its own coreset (minutes).
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import peer
import torch
from peer import batches, cpu_seconds, ratio, turns

from visa.backbone import FeatureMaps
from visa.detect.patchcore import LAYERS, PatchCore, greedy_coreset, nearest_patches
from visa.provenance import machine, write_text

PARTS = ("coreset", "neighbors", "quality")


def coreset(x, anomalib, folder, options):
    """Rows for 1 % and 10 %: seconds, milliseconds a pick, and how many times faster than anomalib's turns."""
    rows, projected = [], folder / "projected.npy"
    if anomalib.about:
        projection = anomalib("project", features=folder / "patches.npy", out=projected)
        z = torch.from_numpy(np.load(projected))
    else:
        generator = torch.Generator().manual_seed(0)
        projection, z = {}, x @ torch.randn(x.shape[1], 128, generator=generator)
    own = x @ torch.randn(x.shape[1], 128, generator=torch.Generator().manual_seed(0)) * 128**-0.5
    for share in (0.01, 0.1):
        count = max(2, int(share * len(z)))
        picks = greedy_coreset(z, min(count, int(0.01 * len(z))))
        windows = list(_windows(z, picks, folder, options)) if anomalib.about else []
        equal = []

        def theirs(windows=windows, equal=equal):
            seconds = 0.0
            for file, last, expected in windows:
                answer = anomalib("coreset", projected=projected, distances=file, last=last, turns=len(expected))
                equal.append(sum(a == b for a, b in zip(answer["picks"], expected, strict=True)))
                seconds += answer["seconds"]
            return seconds / sum(len(w[2]) for w in windows)

        runs = {"ours": lambda c=count: cpu_seconds(lambda: greedy_coreset(z, c))[0] / c}
        if share < 0.1:
            runs["ours_128"] = lambda c=count: cpu_seconds(lambda: greedy_coreset(own, c))[0] / c
        runs |= {"anomalib": theirs} if windows else {}
        taken = turns(runs, options.repeats if share < 0.1 else 1)
        rows.append(
            {
                "share": share,
                "patches": len(z),
                "picks": count,
                "dimensions": z.shape[1],
                **{f"{name}_ms_a_pick": 1e3 * statistics.median(t) for name, t in taken.items()},
                "windows_at": options.at,
                "turns_a_window": options.window,
                "equal_picks": f"{sum(equal)} of {options.window * len(windows) * len(taken['ours'])}",
                **({"times_faster": 1 / ratio(taken, "ours", "anomalib")} if windows else {}),
                **(
                    {"times_faster_on_128": 1 / ratio(taken, "ours_128", "anomalib")}
                    if windows and "ours_128" in taken
                    else {}
                ),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows, projection


def _windows(z, picks, folder, options):
    """Files of distances to the picks before a window, the window's first centre, and the picks that follow."""
    for at in options.at:
        k = min(int(at * len(picks)), len(picks) - options.window - 1)
        file = folder / f"distances{k}.npy" if k else None
        if k:
            np.save(file, nearest_patches(z, z[picks[:k]])[0].numpy())
        yield file, int(picks[k]), picks[k + 1 : k + 1 + options.window].tolist()


def neighbors(x, queries, anomalib, folder, repeats):
    bank, queries = x[:: max(1, len(x) // 35280)][:35280].contiguous(), queries[:3136].contiguous()
    np.save(folder / "bank.npy", bank.numpy())
    np.save(folder / "queries.npy", queries.numpy())
    np.save(folder / "known.npy", bank[:3136].numpy())
    ready = torch.empty(len(queries), len(bank))

    def theirs(file="queries.npy"):
        return anomalib("neighbors", bank=folder / "bank.npy", queries=folder / file)

    runs = {
        "product": lambda: cpu_seconds(lambda: queries @ bank.T)[0],
        "product_into_ready_memory": lambda: cpu_seconds(lambda: torch.mm(queries, bank.T, out=ready))[0],
        "ours": lambda: cpu_seconds(lambda: nearest_patches(queries, bank))[0],
    }
    runs |= {"anomalib": lambda: theirs()["seconds"]} if anomalib.about else {}
    turns(runs, 1)
    taken = turns(runs, 3 * repeats)
    row = {
        "queries": len(queries),
        "bank": len(bank),
        "dimensions": x.shape[1],
        **{f"{name}_seconds": statistics.median(t) for name, t in taken.items()},
        "ours_in_products": ratio(taken, "ours", "product"),
        "ours_in_products_into_ready_memory": ratio(taken, "ours", "product_into_ready_memory"),
        "distance_of_the_bank_to_itself": {"ours": float(nearest_patches(bank[:3136], bank)[0].max())},
    }
    if anomalib.about:
        row["times_faster"] = ratio(taken, "anomalib", "ours")
        row["distance_of_the_bank_to_itself"]["anomalib"] = theirs("known.npy")["largest"]
    print(json.dumps(row), flush=True)
    return row


def whole(data):
    """CPU seconds of fit and score, and the share of the backbone's forward pass in each."""
    extract = FeatureMaps(data.backbone, LAYERS)
    detector, row = PatchCore(extract), {}
    for name, images, run in (("fit", data.train, detector.fit), ("score", data.test, None)):
        forward, _ = cpu_seconds(lambda images=images: [extract(b) for b in batches(images)])
        work = run or (lambda parts: [detector.score(b) for b in parts])
        seconds, scored = cpu_seconds(lambda work=work, images=images: work(batches(images)))
        row |= {
            f"{name}_seconds": seconds,
            f"{name}_forward_seconds": forward,
            f"{name}_forward_share": forward / seconds,
        }
    scores, maps = (np.concatenate(part) for part in zip(*scored, strict=True))
    print(json.dumps(row), flush=True)
    return row, detector, data.figures(scores, maps)


def quality(data, detector, ours, queries, anomalib, folder, whole_peer):
    """AU-ROC of both: on the same bank, and with `whole_peer` on anomalib's own."""
    rows = [{"detector": "ours", "coreset": "ours", **ours}]
    if anomalib.about:
        np.save(folder / "test.npy", queries.numpy())
        np.save(folder / "our_bank.npy", detector.bank.numpy())
        banks = {"ours": folder / "our_bank.npy"}
        if whole_peer:
            answer = anomalib("whole_coreset", features=folder / "patches.npy", out=folder / "picks.npy", ratio=0.01)
            print(f"anomalib's whole coreset: {answer['seconds']:.0f} CPU seconds", flush=True)
            patches = np.load(folder / "patches.npy", mmap_mode="r")
            banks["anomalib"] = folder / "their_bank.npy"
            np.save(banks["anomalib"], patches[np.load(folder / "picks.npy")])
        h, w = (side // 8 for side in data.size)
        for name, bank in banks.items():
            out = folder / "scored.npz"
            anomalib("patchcore_scores", bank=bank, queries=folder / "test.npy", images=data.size, side=(h, w), out=out)
            with np.load(out) as file:
                rows.append({"detector": "anomalib", "coreset": name, **data.figures(file["scores"], file["maps"])})
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer.add_options(parser)
    parser.add_argument("--at", type=float, nargs="+", default=(0, 0.05, 0.45), help="where windows begin, in 1 %%")
    parser.add_argument("--window", type=int, default=20, help="turns of anomalib's loop in a window")
    parser.add_argument("--whole-peer", action="store_true", help="let anomalib select its own coreset in full, too")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="the others stay as in --out")
    options = parser.parse_args()
    peer.one_thread()
    anomalib, data = peer.Anomalib(options.peer_python), peer.Data(options)
    record = {}
    if options.out and options.out.is_file() and set(options.parts) < set(PARTS):
        record = json.loads(options.out.read_text())
    record["whole"], detector, ours = whole(data)
    x, queries = (torch.cat([detector._embed(b)[0] for b in batches(part)]) for part in (data.train, data.test))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "patches.npy", x.numpy())
        if "neighbors" in options.parts:
            record["neighbors"] = neighbors(x, queries, anomalib, folder, options.repeats)
        if "quality" in options.parts:
            record["quality"] = quality(data, detector, ours, queries, anomalib, folder, options.whole_peer)
        if "coreset" in options.parts:
            record["coreset"], record["projection"] = coreset(x, anomalib, folder, options)
    record |= {"asked": peer.asked(options), "data": data.about, "peer": anomalib.about, "machine": machine()}
    anomalib.close()
    if options.out:
        write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
