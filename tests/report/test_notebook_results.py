"""05_results on small made-up runs: whatever part of the setups was scored, its cells run and leave their files."""

import csv
import json
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pytest

import visa
from visa.data.setups import SPLIT_TYPE
from visa.data.source import open_source
from visa.detect.scores import Scores, save_scores
from visa.report.tables import COLUMNS
from visa.runs import open_run

NOTEBOOK = Path(visa.__file__).parents[1] / "notebooks" / "05_results.ipynb"
RUNS = {  # pre-trainings; setup and detector, with the number of seeds and draws; single defect classes or not
    "everything": (("random", "simsiam", "simsiam+spd"), {"1cls padim": (2, 1), "2cls_5shot unet": (1, 2)}, True),
    "one detector": (("random",), {"1cls patchcore": (1, 1)}, False),
    "no maps": (("simsiam", "simsiam+spd"), {"2cls_10shot probe": (1, 3)}, False),
}


def make_run(root, pretrainings, scored, defects):
    source = open_source(str(root))
    run, rng = open_run("made-up", source), np.random.default_rng(0)
    for object in source.objects:
        rows = {}
        for pretraining in pretrainings:
            for case, (seeds, draws) in scored.items():
                for seed in range(seeds):
                    folder = run.score_dir(object, pretraining, object, seed)
                    for draw in range(draws):
                        s = make_scores(source, object, *case.split(), draw, rng)
                        save_scores(folder / s.setup / s.detector / f"draw{draw}" / "scores.npz", s)
                        classes = ("", "burnt") if defects else ("",)
                        rows.setdefault(folder, []).extend(make_rows(s, source, pretraining, seed, classes, rng))
        for folder, own in rows.items():
            with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([COLUMNS, *own])
    return run.root / "results"


def make_scores(source, object, setup, detector, draw, rng):
    test = source.samples(SPLIT_TYPE[setup], object=object, split="test")
    labels = np.array([s.label == "anomaly" for s in test], np.uint8)
    masks = maps = None
    if detector != "probe":
        masks = np.zeros((len(test), 16, 20), np.uint8)
        masks[labels == 1, 4:8, 5:9] = 1
        maps = (rng.normal(size=masks.shape) + masks).astype(np.float32)
    known, values = np.ones(len(test), bool), (rng.normal(size=len(test)) + labels).astype(np.float32)
    return Scores([s.image for s in test], labels, values, maps, masks, known, setup, object, detector, draw)


def make_rows(s, source, pretraining, seed, classes, rng):
    levels = ("image",) if s.maps is None else ("image", "pixel")
    return [
        (source.name, s.object, s.setup, s.draw, pretraining, seed, s.detector, defect, level, metric, rng.uniform())
        for defect in classes
        for level in levels
        for metric in ("auroc", "au_pr")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_the_cells_run_on_any_part_of_a_run(kind, mini_root, capsys):
    out = make_run(mini_root, *RUNS[kind])
    namespace = {}
    with mpl.rc_context():
        for k, cell in enumerate(c for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"):
            exec(cell.source, namespace)  # noqa: S102  (our own notebook)
            if k == 0:
                namespace |= {"visa_root": str(mini_root), "run": "made-up"}
    names = {p.name for p in out.iterdir()}
    assert names >= {"metrics.csv", "summary.csv", "summary.tex", "same_images.csv", "provenance.json", "tables"}
    assert json.loads((out / "provenance.json").read_text())["synthetic"]
    made = {p.name for p in (out / "tables").iterdir()}
    assert ("fryum_1cls_classification_au_pr_by_defect.csv" in made) is (kind == "everything")
    assert any("_difference" in name for name in made) is (kind != "one detector")
    assert ("not compared" in str(namespace["shown"])) is (kind == "one detector")
    assert (len(namespace["compared"]) > 0) is (kind != "one detector")
    assert "not numbers of VisA" in (out / "tables" / "index.html").read_text(encoding="utf-8")
