"""What the page on mini-VisA shows of its result files."""

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "book" / "_ext"))

import mini_pages

from visa.mini import MODULES

BOOK = Path(mini_pages.__file__).parents[1]
RESULTS = BOOK / "results" / "mini_visa"


def save(file, values):
    """Every measure of each pre-training has one value a seed, twice: two draws."""
    rows = [
        {**dict(zip(("setup", "detector", "level", "metric"), measure, strict=True)), "pretraining": name}
        | {"seed": seed, "value": value}
        for measure in mini_pages.MEASURES
        for name, seeds in values.items()
        for seed, value in enumerate(seeds)
        for _ in range(2)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(file, index=False)


def test_pre_trainings_stand_side_by_side_with_the_correlation_of_their_ranks(tmp_path):
    save(tmp_path / "methods_fryum" / "metrics.csv", {"random": [0.5, 0.7], "simsiam": [0.7, 0.7], "mocov2": [0.1]})
    save(tmp_path / "fryum" / "metrics.csv", {"random": [0.9], "imagenet": [0.8]})
    save(tmp_path / "mini_visa" / "fryum.csv", {"random": [0.2], "simsiam": [0.4, 0.6], "imagenet": [0.3]})
    text = mini_pages.fragments(tmp_path / "mini_visa")["mini_order.md"]
    for cell in ("0.600 / 0.200", "0.700 / 0.500", "0.800 / 0.300"):
        assert text.count(cell) == len(mini_pages.MEASURES)
    assert "mocov2" not in text
    assert text.count("0.50") == 2 * len(mini_pages.MEASURES), "the ranks 1, 2, 3 and 1, 3, 2"


def test_spearmans_correlation_is_of_ranks_alone():
    values = pd.Series([0.1, 0.2, 0.9, 0.95])
    assert mini_pages.rank_correlation(values, values**5) == pytest.approx(1)
    assert mini_pages.rank_correlation(values, -values) == pytest.approx(-1)


def test_without_results_the_page_says_what_makes_them(tmp_path):
    made = mini_pages.fragments(tmp_path)
    assert "benchmarks/difficulty.py" in made["mini_difficulty.md"]
    assert "benchmarks/method_order.py" in made["mini_order.md"]


def test_every_object_is_neither_solved_nor_hopeless_or_the_page_names_it():
    file = RESULTS / "difficulty.csv"
    if not file.is_file():
        pytest.skip("the difficulties are not stored")
    rows = pd.read_csv(file)
    best = rows.groupby(["object", "weights", "seed"])["auroc"].max().groupby(["object", "weights"]).mean().unstack()
    assert set(best.index) <= set(MODULES)
    sound = (best > 0.6).all(axis=1) & (best < 0.98).all(axis=1) & (best["imagenet"] > best["random"])
    text = (BOOK / "mini_visa.md").read_text(encoding="utf-8")
    told = text.partition("## How hard it is")[2].partition("## ")[0]
    assert {name for name in MODULES if f"`{name}`" in told} == set(MODULES) - set(best.index[sound])


def test_what_the_page_says_of_the_order_of_pre_trainings_is_in_its_files():
    text = mini_pages.fragments(RESULTS)["mini_order.md"]
    if "Spearman" not in text:
        pytest.skip("the order is not stored")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    table = pd.DataFrame(cells[2:], columns=cells[0]).set_index("pre-training")
    for column in ("PatchCore, image AU-ROC", "10-shot probe, image AU-ROC"):
        pairs = table.loc[["imagenet", "random", "simsiam", "simsiam+spd"], column].str.split(" / ", expand=True)
        assert list(pairs.astype(float).idxmax()) == ["imagenet", "imagenet"]
    real, mini = table.loc[pairs.index, "PaDiM, image AU-ROC"].str.split(" / ", expand=True).astype(float).T.to_numpy()
    assert real.argmax() == mini.argmin() == list(pairs.index).index("imagenet")
    small = table.loc[["random", "simsiam", "simsiam+spd"]].iloc[:, :2].stack().str.split(" / ", expand=True)
    spread = small.astype(float).groupby(level=1).agg(lambda values: values.max() - values.min())
    assert spread.to_numpy().max() < 0.06
    rows = pd.read_csv(RESULTS / "fryum.csv")
    seeds = ",".join(map(str, sorted(rows["seed"].unique())))
    assert f"--seeds {seeds} " in (BOOK / "mini_visa.md").read_text(encoding="utf-8")
