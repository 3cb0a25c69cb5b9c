"""Tables of the page on faults, from the files that the scripts in tests/faults/ wrote."""

import json
from pathlib import Path

import pandas as pd

from visa.report import tables

KILLS = {
    "stage": "stage",
    "kills": "kills",
    "finished": "runs finished after them",
    "files": "files compared in each",
    "different": "files that differ",
    "left_over": "partial files left",
    "failed": "starts that failed",
}
DISK = {"fault": "fault", "command": "command", "sentence": "what it said", "afterwards": "the fault taken away"}
QUICK = {"what": "what is tried", "cases": "cases", "passed": "end as they should", "skipped": "not run here"}
NO_FILE = """:::{{note}}
No faults are stored in this copy of the book: `python tests/faults/{name}.py` makes them.
:::
"""
MADE_ON = "\nMade on {cores} cores of {cpu}, commit `{commit}`.\n"


def faults(folder: Path) -> dict[str, str]:
    """One table a script, or a note where there is no file."""
    return {
        "faults_kill.md": _table(folder, "kill", "kills", KILLS),
        "faults_disk.md": _table(folder, "disk", "disk", DISK),
        "faults_quick.md": _table(folder, "quick", "quick", QUICK),
    }


def _table(folder: Path, script: str, name: str, columns: dict[str, str]) -> str:
    file = folder / f"{name}.json"
    if not file.is_file():
        return NO_FILE.format(name=script)
    record = json.loads(file.read_text(encoding="utf-8"))
    found = record["rows"] if isinstance(record["rows"], list) else list(record["rows"].values())
    rows = pd.DataFrame([_row(row) for row in found])[list(columns)]
    if name == "kills":
        total = {
            c: rows[c].sum() if c in ("kills", "finished", "different", "left_over", "failed") else "" for c in rows
        }
        rows = pd.concat([rows, pd.DataFrame([total | {"stage": "**all**"}])])
    machine = record["machine"]
    made_on = MADE_ON.format(**machine | {"commit": (machine["commit"] or "unknown")[:7]})
    return tables.to_markdown(rows.rename(columns=columns)) + made_on


def _row(row: dict[str, object]) -> dict[str, object]:
    """A row of disk.json says in words what it says in numbers; the others are as they are."""
    if "sentence" not in row:
        return row
    said = f"`{row['sentence']}`".replace("\n", " ") if row["exit_code"] else "nothing: it finished"
    whole = "finishes, nothing left over" if row["whole_afterwards"] and not row["left_over"] else "**does not finish**"
    return row | {"sentence": said, "afterwards": whole}
