"""The ledger of claims: computed from result files, complete, and never more sure than its numbers."""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "book" / "_ext"))

import ledger
import results

from visa.errors import VisaError
from visa.report import tables

REPO = Path(__file__).resolve().parents[1]
BOOK = REPO / "book"
PUBLISHED = ledger.read(BOOK, "published")
CLAIMS = ledger.load_claims(BOOK)
COMMANDS = results.commands(BOOK / "reference" / "runs.csv")
LONGS = {run: results.long_table(BOOK / "results" / run) for run in CLAIMS["run"].unique() if run in COMMANDS}
HEADER = "part,claim,paper,published,source,checked,status,run,measure,label,with,without,wants,command,note"
KEY = "2-class high-shot; segmentation, U-Net; SimSiam; AU-PR"
UNET = f'SPD,U-Net,,"{KEY}",abstract,read,needs ImageNet,mine,2cls_highshot unet pixel au_pr,points,b,a,+,,'


def made(book, *claims):
    """The ledger of a book with these claims; `book` may hold results."""
    (book / "reference").mkdir(exist_ok=True)
    for name in ("published", "statuses"):
        shutil.copy(BOOK / "reference" / f"{name}.csv", book / "reference")
    (book / "reference" / "runs.csv").write_text("run,command\nmine,visa run --name mine\n", encoding="utf-8")
    (book / "reference" / "claims.csv").write_text("\n".join([HEADER, *claims]) + "\n", encoding="utf-8")
    return ledger.section(book, ledger.load_claims(book)).replace("\N{NO-BREAK SPACE}", " ")


def save_metrics(folder, values):
    of = ("VisA", "fryum", "2cls_highshot", 0)
    pairs = [(name, seed, value) for name, pair in values.items() for seed, value in enumerate(pair)]
    rows = [(*of, name, seed, "unet", "", "pixel", "au_pr", value) for name, seed, value in pairs]
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=list(tables.COLUMNS)).to_csv(folder / "metrics.csv", index=False)
    record = {"machines": [{"commit": "0123456789abcdef0123456789abcdef01234567"}]}
    (folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_claim_without_a_run_has_an_empty_cell_and_the_command(tmp_path):
    text = made(tmp_path, UNET)
    assert "| 1 | U-Net | 53.8 → 59.7, +5.9 |  |  | needs ImageNet |" in text
    assert "| 1 | abstract; read | `visa run --name mine` |  |  |" in text


@pytest.mark.parametrize(
    ("values", "wants", "cell", "holds"),
    [
        ((0.51, 0.53, 0.52), "+", "+2.0 [−0.5, +4.5]", "open"),
        ((0.52, 0.52, 0.521), "+", "+2.0 [+1.9, +2.2]", "yes"),
        ((0.48, 0.48, 0.481), "+", "−2.0 [−2.1, −1.8]", "no"),
        ((0.48, 0.48, 0.481), "-", "−2.0 [−2.1, −1.8]", "yes"),
    ],
)
def test_the_number_its_interval_and_its_run_come_from_the_files(tmp_path, values, wants, cell, holds):
    save_metrics(tmp_path / "results" / "mine", {"a": (0.5, 0.5, 0.5), "b": values})
    text = made(tmp_path, UNET.replace(",+,,", f",{wants},,"))
    assert f"| {cell} points | {holds} |" in text
    assert "| `mine`, commit `0123456`, 3 seeds |" in text


def test_a_count_is_compared_with_the_papers(tmp_path):
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    rows = "VisA,0,images,10821\nVisA,0,normal,9621\n"
    (folder / "counts.csv").write_text(f"variant,seed,measure,value\n{rows}", encoding="utf-8")
    known = "README,all,needs all of VisA,mine,images / normal,images,VisA"
    claim = f'data,images,"10,821 / {{0}}",,{known},,"10,821 / {{0}}",,'
    text = made(tmp_path, claim.format("9,621"), claim.format("9,622"))
    assert "| 10,821 / 9,621 | 10,821 / 9,621 images | yes |" in text
    assert "| 10,821 / 9,622 | 10,821 / 9,621 images | no |" in text


@pytest.mark.parametrize(("right", "wrong"), [("needs ImageNet", "almost reproduced"), ("U-Net;", "V-Net;")])
def test_a_wrong_status_or_published_value_is_named(tmp_path, right, wrong):
    with pytest.raises(VisaError, match=wrong):
        made(tmp_path, UNET.replace(right, wrong))


def test_the_ledger_is_complete_and_every_claim_can_be_measured():
    keys = sorted("; ".join(row[:4]) for row in PUBLISHED.itertuples(index=False, name=None))
    assert sorted(filter(None, CLAIMS["published"])) == keys, "each published value once"
    assert (CLAIMS[["claim", "source", "checked", "status"]] != "").all(axis=None)
    assert {run for run in CLAIMS["run"] if not (REPO / run).is_file()} <= {"", *COMMANDS}
    assert ((CLAIMS["run"] != "") | (CLAIMS["command"] != "")).all()
    page = re.findall(r"\{ledger\} (.+)", (BOOK / "ledger.md").read_text(encoding="utf-8"))
    assert page == ["statuses", *CLAIMS["part"].unique()], "each part once"


def test_no_status_says_more_than_the_numbers():
    for _, claim in CLAIMS.iterrows():
        ours = ledger.measured(claim, LONGS.get(claim["run"], pd.DataFrame(columns=results.LONG)))
        stored = (BOOK / "results" / claim["run"]).is_dir() and claim["run"]
        assert ours.cell or not stored, claim["claim"]
        assert "needs" in claim["status"] or ours.holds == "yes", claim["claim"]
    assert all(results.commits(BOOK / "results" / run) for run in LONGS if (BOOK / "results" / run).is_dir())


def test_the_commands_name_what_there_is():
    for command in {*CLAIMS["command"], *COMMANDS.values()} - {""}:
        verb = re.sub(r"^(VISA_TEST_\w+=\S+ )+", "", command)
        script = re.match(r"python (benchmarks/\w+\.py)", verb)
        assert (REPO / script[1]).is_file() if script else re.match(r"visa (run|verify|pretrain)\b|make test$", verb)
