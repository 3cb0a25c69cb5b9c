"""The ledger of claims: what the paper says, what this companion measured, and how to measure it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import result_files

from visa.errors import VisaError, check_choice
from visa.report import tables

STATUSES = {
    "reproduced at full scale": "on the same data, in full, with the same result",
    "shown at small scale": "it holds on one object, or with small networks",
    "needs ImageNet": "pre-training at the paper's size, on GPUs",
    "needs all of VisA": "the images of all twelve objects",
}
COMMANDS = {  # of the results that have no page of their own
    "data": "python benchmarks/count_visa.py --root /data/VisA --objects fryum --out book/results/data",
    "similarity": "python benchmarks/similarity.py --root /data/VisA --run runs/NAME --arch resnet18_half --out DIR",
}
HOW = "\n::::{{dropdown}} Sources, commands and runs of these claims\n{table}::::\n"


class Ours(NamedTuple):
    """What was measured for a claim: a cell of the table, whether the claim holds in it, and the seeds behind it."""

    cell: str = ""
    holds: str = ""
    seeds: str = ""


def ledger(book: Path, commands: Mapping[str, str]) -> dict[str, str]:
    """The body of ledger.md, from reference/claims.csv and the files in results/; `commands` makes these, by folder."""
    published = pd.read_csv(book / "reference" / "published.csv", dtype=str, keep_default_na=False)
    claims = load_claims(book / "reference" / "claims.csv", published)
    longs = {run: result_files.long_table(book / "results" / run) for run in claims["run"].unique()}
    ours = [measured(claim, longs[claim["run"]]) for _, claim in claims.iterrows()]
    claims = claims.assign(
        number=range(1, len(claims) + 1),
        ours=[o.cell for o in ours],
        holds=[o.holds for o in ours],
        made=[_made(book, claim["run"], o) for (_, claim), o in zip(claims.iterrows(), ours, strict=True)],
        command=claims["command"].where(claims["command"] != "", claims["run"].map(COMMANDS | dict(commands))),
    )
    parts = [f"## {part}\n\n{_table(rows)}{_how(rows)}" for part, rows in claims.groupby("part", sort=False)]
    return {"ledger.md": "\n".join(parts), "ledger_statuses.md": _statuses(claims["status"])}


def load_claims(file: Path, published: pd.DataFrame) -> pd.DataFrame:
    """The rows of claims.csv, with the paper's figures filled in from `published`.

    Raises VisaError for a status that does not exist, and for a published figure that does not.
    """
    claims = pd.read_csv(file, dtype=str, keep_default_na=False)
    figures = {"; ".join(row[:4]): row for row in published.itertuples(index=False, name=None)}
    for claim in claims.itertuples():
        for status in claim.status.split("; "):
            check_choice(f"status of {claim.claim!r}", status, STATUSES)
        if claim.published and claim.published not in figures:
            raise VisaError(f"{file.name} names the published figure {claim.published!r}, which published.csv lacks.")
    cells = [_change(figures[key][4], figures[key][5]) if key else "" for key in claims["published"]]
    return claims.assign(paper=np.where(claims["paper"] == "", cells, claims["paper"]))


def measured(claim: "pd.Series[str]", long: pd.DataFrame) -> Ours:
    """Our number of a claim from the long table of its run; empty where the run or the measure is absent.

    Of two variants it is their difference paired by seed, in hundredths, with its 95 % interval; of one, its values.
    """
    if claim["run"].startswith("tests/"):
        return Ours("a test compares", "yes")
    chosen = long[long["measure"].isin(claim["measure"].split(" / "))]
    if not claim["without"]:
        values = [chosen.loc[chosen["measure"] == m, "value"].sum() for m in claim["measure"].split(" / ")]
        if chosen.empty:
            return Ours()
        cell = " / ".join(f"{value:,.0f}" for value in values)
        return Ours(cell, "" if not claim["wants"] else "yes" if cell == claim["wants"] else "no")
    chosen = chosen[chosen["variant"].isin([claim["with"], claim["without"]])]
    if chosen["variant"].nunique() < 2:
        return Ours()
    line = tables.differences_to(chosen, claim["without"]).iloc[0]
    sign = -1 if claim["wants"] == "-" else 1
    low, high = sorted((sign * line["low"], sign * line["high"]))
    holds = "yes" if low > 0 else "no" if high < 0 else "open"
    return Ours(_points(line), holds, f"{line['n']} seeds" if line["n"] > 1 else f"{line['draws']} draws")


def _points(line: "pd.Series[float]") -> str:
    mean, low, high = (f"{100 * line[c]:+.1f}".replace("-", "−") for c in ("mean", "low", "high"))
    return mean if np.isnan(line["low"]) else f"{mean} [{low},\N{NO-BREAK SPACE}{high}]"


def _change(without: str, with_spd: str) -> str:
    return f"{without} → {with_spd}, {float(with_spd) - float(without):+.1f}"


def _made(book: Path, run: str, ours: Ours) -> str:
    """The run behind a number: its folder or test, commit and seeds."""
    if run.startswith("tests/"):
        return f"`{run}`"
    if not ours.cell:
        return ""
    commits = ", ".join(f"`{c}`" for c in result_files.commits(book / "results" / run))
    return ", ".join(filter(None, [f"`{run}`", f"commit {commits}", ours.seeds]))


def _statuses(statuses: "pd.Series[str]") -> str:
    """How many claims have each status; a claim that needs two things counts in both."""
    found = statuses.str.split("; ").explode().value_counts()
    rows = [(name, means, found.get(name, 0)) for name, means in STATUSES.items()]
    return tables.to_markdown(pd.DataFrame(rows, columns=["status", "meaning", f"of {len(statuses)} claims"]))


def _table(rows: pd.DataFrame) -> str:
    ours = rows["ours"].where(rows["ours"] == "", rows["ours"] + " " + rows["label"])
    shown = {"nr": rows["number"], "claim": rows["claim"], "paper": rows["paper"], "here": ours, "holds": rows["holds"]}
    return tables.to_markdown(pd.DataFrame(shown | {"status": rows["status"]}))


def _how(rows: pd.DataFrame) -> str:
    """Claims that share a source, a command and a run share a line."""
    table = pd.DataFrame(
        {
            "nr": rows["number"].astype(str),
            "source and check": rows["source"] + "; " + rows["checked"],
            "command": ("`" + rows["command"] + "`").where(rows["command"] != "", ""),
            "made by": rows["made"],
            "note": rows["note"],
        }
    )
    grouped = table.groupby(list(table.columns[1:]), sort=False)["nr"].agg(", ".join).reset_index()
    return HOW.format(table=tables.to_markdown(grouped[table.columns]))
