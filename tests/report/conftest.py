"""Figures of a small run, as a table in the form of metrics.csv."""

import itertools

import matplotlib as mpl
import pandas as pd
import pytest

from visa.report.figures import use_style
from visa.report.tables import COLUMNS

mpl.use("Agg")


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        use_style()
        yield
        mpl.pyplot.close("all")


def figures_of(setup, detector, levels, draws=(0,), objects=("fryum", "pcb1"), seeds=(0, 1), defects=("",)):
    """Rows of every combination; SPD gains 0.1 in seed 0 and 0.2 in seed 1, pcb1 is 0.2 above fryum."""
    base = {"simsiam": 0.3, "random": 0.2, "simsiam+spd": 0.4}
    over = itertools.product(objects, draws, base, seeds, defects, levels, ("auroc", "au_pr", "ap"))
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
