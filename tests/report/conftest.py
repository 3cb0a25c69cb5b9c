"""A small run: its figures as a table in the form of metrics.csv, and scores on disk."""

import itertools
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from visa.data.source import Source
from visa.detect.scores import Scores, save_scores
from visa.provenance import write_sidecar
from visa.report.figures import use_style
from visa.report.tables import COLUMNS

mpl.use("Agg")


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        use_style()
        yield
        mpl.pyplot.close("all")


def figures_of(setup, detector, levels, draws=(0,), seeds=(0, 1), defects=("",)):
    """Rows of every combination; SPD gains 0.1 in seed 0 and 0.2 in seed 1, pcb1 is 0.2 above fryum."""
    base = {"simsiam": 0.3, "random": 0.2, "simsiam+spd": 0.4}
    over = itertools.product(("fryum", "pcb1"), draws, base, seeds, defects, levels, ("auroc", "au_pr", "ap"))
    return [
        (
            *("mini-VisA", o, setup, draw, p, seed, detector, defect, level, metric),
            base[p] + 0.2 * (o == "pcb1") + 0.1 * seed * (p == "simsiam+spd") + 0.05 * bool(defect) + 0.01 * draw,
        )
        for o, draw, p, seed, defect, level, metric in over
    ]


@pytest.fixture
def metrics():
    """1cls with PaDiM and defect classes, and 10-shot with a probe of one seed and three draws."""
    rows = figures_of("2cls_10shot", "probe", ["image"], draws=(0, 1, 2), seeds=(0,))
    rows += figures_of("1cls", "padim", ["image", "pixel"], defects=("", "burnt", "other"))
    return pd.DataFrame(rows, columns=list(COLUMNS))


HOSTILE = (
    '<img src=x onerror="injected=1">.JPG',
    "</script><script>injected=1</script>.JPG",
    "\"';injected=1;//\u2028%41#?&amp;.JPG",
)
DEFECTS = ("<b onclick=injected=1>burnt</b>", "scratch", "scratch,burnt")
LABELS = np.repeat([0, 1], [12, 10]).astype(np.uint8)
SIZE = (224, 224)


def put_images(root, object):
    """Write an object's images and annotations; returns the paths. fryum's first and an anomaly have hostile names."""
    names = [f"{i:03}.JPG" for i in range(len(LABELS))]
    if object == "fryum":
        names[:2], names[20] = HOSTILE[:2], HOSTILE[2]
    kinds = ["Anomaly" if bad else "Normal" for bad in LABELS]
    paths = [f"{object}/Data/Images/{kind}/{name}" for kind, name in zip(kinds, names, strict=True)]
    for i, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 64), (100 + 5 * i, 120, 90)).save(root / path, "JPEG")
    defects = [DEFECTS[i % 3] if bad else "normal" for i, bad in enumerate(LABELS)]
    table = pd.DataFrame({"image": paths, "label": defects, "mask": ""})
    table.to_csv(root / object / "image_anno.csv", index=False)
    return paths


def made_scores(object, setup, detector, paths, seed):
    """Scores that find most defects, some worse than others; equal ones and false alarms among them."""
    rng = np.random.default_rng([seed, len(detector)])
    maps, masks = rng.gamma(2, 0.2, (len(paths), *SIZE)).astype(np.float32), np.zeros((len(paths), *SIZE), np.uint8)
    known = np.arange(len(paths)) != (13 if object == "fryum" else -1)
    for i in np.flatnonzero(LABELS & known):
        masks[i, 10 * (i % 12) : 10 * (i % 12) + 40, 50 : 70 + i] = 1
    maps += masks * rng.uniform(0.2, 2, (len(paths), 1, 1)).astype(np.float32)
    scores = np.round(rng.normal(LABELS * 1.5, 1), 1).astype(np.float32)
    given = (None, None) if detector == "probe" else (maps, masks)
    return Scores(paths, LABELS, scores, *given, known, setup, object, detector)


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    """A run on disk with made-up scores of fryum and pcb1: `run`, `source`, and `scores` by object, model and detector.

    One of fryum's anomalies has no mask.
    """
    folder, scores = tmp_path_factory.mktemp("scored"), {}
    cases = (("1cls", "padim"), ("1cls", "patchcore"), ("2cls_5shot", "probe"))
    for object in ("fryum", "pcb1"):
        paths = put_images(folder / "VisA", object)
        for (seed, model), (setup, detector) in itertools.product(enumerate(("simsiam", "simsiam+spd")), cases):
            made = scores[object, model, detector] = made_scores(object, setup, detector, paths, seed)
            file = folder / "run/scores" / object / model / object / f"seed0/{setup}/{detector}/draw0/scores.npz"
            save_scores(file, made)
            write_sidecar(file, "key", {"seed": 0})
    source = Source(folder / "VisA", "mini-VisA", True, ("fryum", "pcb1"))
    return SimpleNamespace(run=folder / "run", source=source, scores=scores)
