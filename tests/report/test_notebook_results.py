"""05_results on small made-up runs: whatever part of the setups was scored, its cells run and leave their files."""

import json
from collections import defaultdict
from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pytest

import visa
from visa.data.setups import SPLIT_TYPE
from visa.data.source import open_source
from visa.detect.score import score_metrics, write_metrics
from visa.detect.scores import Scores, save_scores
from visa.runs import open_run

NOTEBOOK = Path(visa.__file__).parents[1] / "notebooks" / "05_results.ipynb"
RUNS = {  # pre-trainings; setup and detector, with the number of seeds and draws; defect classes
    "everything": (("random", "simsiam", "simsiam+spd"), {"1cls padim": (2, 1), "2cls_5shot unet": (1, 2)}, ("burnt",)),
    "one detector": (("random",), {"1cls patchcore": (1, 1)}, ()),
    "no maps": (("simsiam", "simsiam+spd"), {"2cls_10shot probe": (1, 3)}, ()),
}


def make_run(root, pretrainings, scored, classes):
    source = open_source(str(root))
    run, rng, rows = open_run("made-up", source), np.random.default_rng(0), defaultdict(list)
    for object, pretraining, (case, (seeds, draws)) in product(source.objects, pretrainings, scored.items()):
        setup, detector = case.split()
        test = source.samples(SPLIT_TYPE[setup], object=object, split="test")
        labels = np.array([s.label == "anomaly" for s in test], np.uint8)
        masks = np.zeros((len(test), 16, 20), np.uint8)
        masks[labels == 1, 4:8, 5:9] = 1
        maps = (rng.normal(size=masks.shape) + masks).astype(np.float32)
        if detector == "probe":
            maps, masks = None, None
        for seed, draw in product(range(seeds), range(draws)):
            values, known = (rng.normal(size=len(test)) + labels).astype(np.float32), np.ones(len(test), bool)
            folder = run.score_dir(object, pretraining, object, seed)
            s = Scores([s.image for s in test], labels, values, maps, masks, known, setup, object, detector, draw)
            save_scores(folder / setup / detector / f"draw{draw}" / "scores.npz", s)
            rows[folder, object, pretraining, seed] += score_metrics(s, dict.fromkeys(s.paths, classes))
    for (folder, *of), own in rows.items():
        about = dict(zip(("object", "pretraining", "seed"), of, strict=True))
        write_metrics(folder / "metrics.csv", own, dataset=source.name, **about)
    return run.root / "results"


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_the_cells_run_on_any_part_of_a_run(kind, mini_root):
    out = make_run(mini_root, *RUNS[kind])
    namespace = {}
    for k, cell in enumerate(c for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"):
        exec(cell.source, namespace)  # noqa: S102  (our own notebook)
        if k == 0:
            namespace |= {"visa_root": str(mini_root), "run": "made-up"}
    names = {p.name for p in out.iterdir()}
    assert names >= {"metrics.csv", "summary.csv", "summary.tex", "same_images.csv", "provenance.json", "tables"}
    assert json.loads((out / "provenance.json").read_text())["synthetic"]
    made = "".join(file.read_text(encoding="utf-8") for file in (out / "tables").glob("*.csv"))
    assert ("simsiam+spd − simsiam" in made) is (kind != "one detector")
    assert ("not compared" in str(namespace["shown"])) is (kind == "one detector")
    assert (len(namespace["compared"]) > 0) is (kind != "one detector")
    assert all("not numbers of VisA" in file.read_text(encoding="utf-8") for file in (out / "tables").glob("*.tex"))
