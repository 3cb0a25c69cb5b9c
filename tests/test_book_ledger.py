"""The ledger of claims: computed from result files, complete, and never more sure than its numbers."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[1] / "book" / "_ext"))

import fragments
import ledger
import result_files

from visa.cli import app
from visa.errors import VisaError
from visa.mini.writer import write_mini_visa
from visa.report import tables

REPO = Path(__file__).resolve().parents[1]
BOOK = REPO / "book"
PUBLISHED = pd.read_csv(BOOK / "reference" / "published.csv", dtype=str, keep_default_na=False)
CLAIMS = ledger.load_claims(BOOK / "reference" / "claims.csv", PUBLISHED)
COMMANDS = ledger.COMMANDS | fragments.RESULTS | {"ablation": fragments.ABLATION}
HEADER = "part,claim,paper,published,source,checked,status,run,measure,label,with,without,wants,command,note"
KEY = "2-class high-shot; segmentation, U-Net; SimSiam; AU-PR"
UNET = f'SPD,U-Net,,"{KEY}",abstract,read,needs ImageNet,mine,2cls_highshot unet pixel au_pr,points,b,a,+,,'


def made(folder: Path, *claims: str) -> str:
    """The ledger of a book with these claims; `folder` may hold results."""
    (folder / "reference").mkdir(exist_ok=True)
    (folder / "reference" / "claims.csv").write_text("\n".join([HEADER, *claims]) + "\n", encoding="utf-8")
    PUBLISHED.to_csv(folder / "reference" / "published.csv", index=False)
    text = ledger.ledger(folder, {"mine": "visa run --name mine"})["ledger.md"]
    return text.replace("\N{NO-BREAK SPACE}", " ")


def save_metrics(folder: Path, values: dict[str, tuple[float, ...]]) -> None:
    figure = ("VisA", "fryum", "2cls_highshot", 0)
    rows = [
        (*figure, name, seed, "unet", "", "pixel", "au_pr", value)
        for name, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=list(tables.COLUMNS)).to_csv(folder / "metrics.csv", index=False)
    record = {"machines": [{"commit": "0123456789abcdef"}]}
    (folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_claim_without_a_run_has_an_empty_cell_and_the_command(tmp_path):
    text = made(tmp_path, UNET)
    assert "| 1 | U-Net | 53.8 → 59.7, +5.9 |  |  | needs ImageNet |" in text
    assert "| 1 | abstract; read | `visa run --name mine` |  |  |" in text


@pytest.mark.parametrize(
    ("values", "cell", "holds"),
    [
        ((0.51, 0.53, 0.52), "+2.0 [−0.5, +4.5]", "open"),
        ((0.52, 0.52, 0.521), "+2.0 [+1.9, +2.2]", "yes"),
        ((0.48, 0.48, 0.481), "−2.0 [−2.1, −1.8]", "no"),
    ],
)
def test_the_number_its_interval_and_its_run_come_from_the_files(tmp_path, values, cell, holds):
    save_metrics(tmp_path / "results" / "mine", {"a": (0.5, 0.5, 0.5), "b": values})
    text = made(tmp_path, UNET)
    assert f"| {cell} points | {holds} |" in text
    assert "| `mine`, commit `0123456`, 3 seeds |" in text


def test_a_claim_that_something_falls_holds_below_zero(tmp_path):
    save_metrics(tmp_path / "results" / "mine", {"a": (0.5, 0.5, 0.5), "b": (0.48, 0.48, 0.481)})
    assert "points | yes |" in made(tmp_path, UNET.replace(",+,,", ",-,,"))


def test_a_count_is_compared_with_the_papers(tmp_path):
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    rows = "VisA,0,images,10821\nVisA,0,normal,9621\n"
    (folder / "counts.csv").write_text(f"variant,seed,measure,value\n{rows}", encoding="utf-8")
    claim = (
        'data,images,"10,821 / {0}",,README,all,needs all of VisA,mine,images / normal,images,VisA,,"10,821 / {0}",,'
    )
    text = made(tmp_path, claim.format("9,621"), claim.format("9,622"))
    assert "| 10,821 / 9,621 | 10,821 / 9,621 images | yes |" in text
    assert "| 10,821 / 9,622 | 10,821 / 9,621 images | no |" in text


def test_a_wrong_status_or_published_figure_is_named(tmp_path):
    with pytest.raises(VisaError, match="almost"):
        made(tmp_path, UNET.replace("needs ImageNet", "almost reproduced"))
    with pytest.raises(VisaError, match="V-Net"):
        made(tmp_path, UNET.replace("U-Net;", "V-Net;"))


def test_every_published_figure_is_in_the_ledger_once():
    keys = sorted("; ".join(row[:4]) for row in PUBLISHED.itertuples(index=False, name=None))
    assert sorted(filter(None, CLAIMS["published"])) == keys


def test_every_claim_has_a_source_a_check_and_a_way_to_measure_it():
    assert (CLAIMS[["claim", "source", "checked", "status"]] != "").all(axis=None)
    assert set(CLAIMS["run"]) - {""} <= set(COMMANDS) | {r for r in CLAIMS["run"] if (REPO / r).is_file()}
    assert ((CLAIMS["run"] != "") | (CLAIMS["command"] != "")).all()


@pytest.mark.parametrize("number", range(len(CLAIMS)))
def test_no_status_says_more_than_the_numbers(number):
    claim = CLAIMS.iloc[number]
    if "needs" in claim["status"] or claim["run"].startswith("tests/"):
        return
    assert claim["run"], "a claim that was shown has a run"
    long = result_files.long_table(BOOK / "results" / claim["run"])
    assert ledger.measured(claim, long).holds == "yes"


def test_claims_of_stored_runs_have_numbers():
    there = CLAIMS[[bool(run) and (BOOK / "results" / run).is_dir() for run in CLAIMS["run"]]]
    longs = {run: result_files.long_table(BOOK / "results" / run) for run in there["run"].unique()}
    assert [c["claim"] for _, c in there.iterrows() if not ledger.measured(c, longs[c["run"]]).cell] == []
    assert all(result_files.commits(BOOK / "results" / run) for run in longs)


def test_the_commands_are_accepted(tmp_path, monkeypatch):
    root = tmp_path / "VisA"
    write_mini_visa(root, ["fryum"], normal=60, anomaly=60, size=64, seed=0, workers=1, progress=False)
    monkeypatch.setenv("VISA_ROOT", str(root))
    (tmp_path / "lite0.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    commands = {*CLAIMS["command"], *(COMMANDS[run] for run in CLAIMS["run"] if run in COMMANDS)}
    runs = [c for c in commands if c.startswith("visa run")]
    assert runs
    for command in runs:
        result = CliRunner().invoke(app, [*command.split()[1:], "--dry-run"])
        assert result.exit_code == 0, (command, result.output)
    for command in commands - set(runs):
        verb = command.removeprefix("VISA_TEST_ROOT=/data/VisA VISA_TEST_REFERENCE=/data/recorded ")
        assert re.match(
            r"$|visa (verify|pretrain)\b|make test$|python benchmarks/(count_visa|similarity)\.py ", verb
        ), command
