"""The ledger of claims: what the paper says, what this companion measured, and how to measure it again."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from results import commands, commits, long_table

from visa.errors import check_choice
from visa.report import tables

SPACED = ",\N{NO-BREAK SPACE}"
HOW = "\n::::{{dropdown}} Sources, commands and runs of these claims\n{table}::::\n"


class Ours(NamedTuple):
    """What was measured for a claim: a cell of the table, whether the claim holds in it, and the seeds behind it."""

    cell: str = ""
    holds: str = ""
    seeds: str = ""


def ledger(page: Any) -> str:
    """The claims of one part of the paper (`{ledger} The data`), or how many have each status (`{ledger} statuses`)."""
    book, part = Path(page.env.srcdir), page.arguments[0]
    for file in [*book.glob("reference/*.csv"), *book.glob("results/*/*")]:
        page.file(str(file.relative_to(book)))
    claims = load_claims(book)
    if part == "statuses":  # a claim that needs two things counts in both
        counts = claims["status"].str.split("; ").explode().value_counts()
        table = read(book, "statuses")
        return tables.to_markdown(table.assign(claims=table["status"].map(counts).fillna(0).astype(int)))
    check_choice("part of the ledger", part, claims["part"].unique())
    return section(book, claims[claims["part"] == part])


def load_claims(book: Path) -> pd.DataFrame:
    """The rows of reference/claims.csv, numbered, with the paper's values filled in from published.csv.

    Raises VisaError for a status that statuses.csv lacks, and for a published value that published.csv lacks.
    """
    claims, published = (read(book, name) for name in ("claims", "published"))
    values = {"; ".join(row[:4]): row[4:6] for row in published.itertuples(index=False, name=None)}
    for claim in claims.itertuples():
        for status in claim.status.split("; "):
            check_choice(f"status of {claim.claim!r}", status, read(book, "statuses")["status"])
        if claim.published:
            check_choice(f"published value of {claim.claim!r}", claim.published, values)
            without, with_spd = values[claim.published]
            claims.loc[claim.Index, "paper"] = f"{without} → {with_spd}, {float(with_spd) - float(without):+.1f}"
    return claims.assign(number=range(1, len(claims) + 1))


def read(book: Path, name: str) -> pd.DataFrame:
    """A table of reference/, all text."""
    return pd.read_csv(book / "reference" / f"{name}.csv", dtype=str, keep_default_na=False)


def section(book: Path, claims: pd.DataFrame) -> str:
    """The tables of some claims: what was measured is read from the files in results/."""
    longs = {run: long_table(book / "results" / run) for run in claims["run"].unique()}
    ours = [measured(claim, longs[claim["run"]]) for _, claim in claims.iterrows()]
    made_by = claims["run"].map(commands(book / "reference" / "runs.csv")).fillna("")
    claims = claims.assign(
        ours=[f"{o.cell} {claim.label}" if o.cell else "" for o, claim in zip(ours, claims.itertuples(), strict=True)],
        holds=[o.holds for o in ours],
        made=[_made(book, run, o) for run, o in zip(claims["run"], ours, strict=True)],
        command=claims["command"].where(claims["command"] != "", made_by),
    )
    shown = {"number": "nr", "claim": "claim", "paper": "paper", "ours": "here", "holds": "holds", "status": "status"}
    return tables.to_markdown(claims[list(shown)].rename(columns=shown)) + _how(claims)


def measured(claim: "pd.Series[str]", long: pd.DataFrame) -> Ours:
    """Our number of a claim from the long table of its run; empty where the run or the measure is absent.

    Of two variants it is their difference paired by seed, in hundredths, with its 95 % interval; of one, its values.
    """
    if claim["run"].startswith("tests/"):
        return Ours("a test compares", "yes")
    names = claim["measure"].split(" / ")
    found = long[long["measure"].isin(names)]
    if not claim["without"]:
        if found.empty:
            return Ours()
        cell = " / ".join(f"{found.loc[found['measure'] == name, 'value'].sum():,.0f}" for name in names)
        return Ours(cell, "" if not claim["wants"] else "yes" if cell == claim["wants"] else "no")
    found = found[found["variant"].isin([claim["with"], claim["without"]])]
    if found["variant"].nunique() < 2:
        return Ours()
    line = tables.differences_to(found, claim["without"]).iloc[0]
    sign = -1 if claim["wants"] == "-" else 1
    low, high = sorted((sign * line["low"], sign * line["high"]))
    holds = "yes" if low > 0 else "no" if high < 0 else "open"
    mean, *ends = (f"{100 * line[c]:+.1f}".replace("-", "−") for c in ("mean", "low", "high"))
    cell = mean if np.isnan(low) else f"{mean} [{SPACED.join(ends)}]"
    return Ours(cell, holds, f"{line['n']} seeds" if line["n"] > 1 else f"{line['draws']} draws")


def _made(book: Path, run: str, ours: Ours) -> str:
    """The run behind a number: its folder or test, commit and seeds; empty where there is no number."""
    named = ", ".join(f"`{c}`" for c in commits(book / "results" / run))
    parts = [f"`{run}`", f"commit {named}" if named else "", ours.seeds]
    return ", ".join(filter(None, parts)) if ours.cell else ""


def _how(claims: pd.DataFrame) -> str:
    """Claims that share a source, a command and a run share a line."""
    columns = {
        "nr": claims["number"].astype(str),
        "source and check": claims["source"] + "; " + claims["checked"],
        "command": ("`" + claims["command"] + "`").where(claims["command"] != "", ""),
        "made by": claims["made"],
        "note": claims["note"],
    }
    table = pd.DataFrame(columns)
    grouped = table.groupby(list(columns)[1:], sort=False)["nr"].agg(", ".join).reset_index()
    return HOW.format(table=tables.to_markdown(grouped[list(columns)]))
