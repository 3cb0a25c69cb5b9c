"""The ledger of claims: what the paper says, what was checked here and on what, and what a test would take."""

from pathlib import Path
from typing import Any

import pandas as pd
from results import commands, commits

from visa.errors import check_choice
from visa.report import tables

PROTOCOL = "protocol"  # the run whose results decide whether a claim was tested
OBJECTS = {"fryum", "macaroni1"}
NOT_TESTED = "not tested"
HOW = "\n::::{{dropdown}} Sources, what is missing, and commands of these claims\n{table}::::\n"


def ledger(page: Any) -> str:
    """The claims of one part of the paper (`{ledger} The data`), or how many have each status (`{ledger} statuses`)."""
    book, part = Path(page.env.srcdir), page.arguments[0]
    for file in [book / "results" / PROTOCOL, *book.glob("reference/*.csv"), *book.glob("results/data/*")]:
        page.file(str(file.relative_to(book)))
    claims = load_claims(book)
    if part == "statuses":
        counts, table = claims["status"].value_counts(), read(book, "statuses")
        return tables.to_markdown(table.assign(claims=table["status"].map(counts).fillna(0).astype(int)))
    check_choice("part of the ledger", part, claims["part"].unique())
    return section(book, claims[claims["part"] == part])


def load_claims(book: Path) -> pd.DataFrame:
    """The rows of reference/claims.csv, numbered, with published values, and in `here` what was seen of each.

    A claim of the protocol's run is not tested unless results/protocol/ has both objects and all arms of a backbone.
    Raises VisaError for a status or a published value that its table lacks, and for an unknown measure.
    """
    claims, published = (read(book, name) for name in ("claims", "published"))
    values = {"; ".join(row[:4]): row[4:6] for row in published.itertuples(index=False, name=None)}
    arms = [pd.read_csv(file) for file in book.glob(f"results/{PROTOCOL}/*/arms.csv")]
    made = any(set(table["object"]) >= OBJECTS and "supervised + SPD" in set(table["pretraining"]) for table in arms)
    for claim in claims.itertuples():
        check_choice(f"status of {claim.claim!r}", claim.status, read(book, "statuses")["status"])
        if claim.published:
            check_choice(f"published value of {claim.claim!r}", claim.published, values)
            without, with_spd = values[claim.published]
            paper = f"{without} → {with_spd}, {float(with_spd) - float(without):+.1f} ({claim.sure})"
            claims.loc[claim.Index, ["paper", "claim"]] = paper, f"{claim.claim}, {claim.published.split('; ')[-1]}"
    claims.loc[(claims["run"] == PROTOCOL) & (not made), ["status", "seen"]] = NOT_TESTED, ""
    here = [", ".join(filter(None, (counted(book, claim), claim["seen"]))) for _, claim in claims.iterrows()]
    return claims.assign(here=here, number=range(1, len(claims) + 1))


def read(book: Path, name: str) -> pd.DataFrame:
    """A table of reference/, all text."""
    return pd.read_csv(book / "reference" / f"{name}.csv", dtype=str, keep_default_na=False)


def counted(book: Path, claim: "pd.Series[str]") -> str:
    """The numbers of a claim's measures, from the counts of its run; empty for a claim without any."""
    file = book / "results" / claim["run"] / "counts.csv"
    if not claim["measure"] or not file.is_file():
        return ""
    counts = pd.read_csv(file, index_col="measure")["value"]
    for name in claim["measure"].split(" / "):
        check_choice(f"measure of {claim['claim']!r}", name, counts.index)
    return " / ".join(f"{counts[name]:,}" for name in claim["measure"].split(" / "))


def section(book: Path, claims: pd.DataFrame) -> str:
    """The table of some claims and, folded, where they are from and what tests them."""
    shown = {"number": "nr", "claim": "claim", "paper": "paper", "here": "here", "status": "status"}
    made_by = claims["run"].map(commands(book / "reference" / "runs.csv")).fillna("")
    command = claims["command"].where(claims["command"] != "", made_by)
    seen = claims["status"] != NOT_TESTED
    columns = {
        "nr": claims["number"].astype(str),
        "source": claims["source"] + "; " + claims["sure"],
        "missing": claims["missing"].mask(seen, ""),
        "command": ("`" + command + "`").where(command != "", ""),
        "made by": [_made(book, run) for run in claims["run"].where(seen, "")],
        "note": claims["note"],
    }
    grouped = pd.DataFrame(columns).groupby(list(columns)[1:], sort=False)["nr"].agg(", ".join).reset_index()
    return tables.to_markdown(claims[list(shown)].rename(columns=shown)) + HOW.format(
        table=tables.to_markdown(grouped[list(columns)])
    )


def _made(book: Path, run: str) -> str:
    """The folder or test behind what was seen, and its commit."""
    named = ", ".join(f"`{commit}`" for commit in commits(book / "results" / run)) if run else ""
    return ", ".join(filter(None, [f"`{run}`" if run else "", f"commit {named}" if named else ""]))
