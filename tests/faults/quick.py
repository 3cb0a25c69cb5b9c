"""Run the tests of faults that are quick to make, and count them by what they try.

    OMP_NUM_THREADS=1 python tests/faults/quick.py --out book/results/faults

Writes quick.csv (what, cases, passed, skipped), with quick.json beside it. A case of the two fuzzed groups is a
notebook or a command, for which Hypothesis makes up 150 or 60 examples.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from visa.paths import CHECKOUT
from visa.provenance import machine, write_rows, write_text

COLUMNS = ("what", "cases", "passed", "skipped")
GROUPS = {  # what: a file of tests, and a part of the tests' names
    "download from a bad server": ("tests/data/test_archive.py", ""),
    "split files": ("tests/data/test_splits.py", ""),
    "image and mask files": ("tests/data/test_enemy_images.py", ""),
    "a data set that contradicts itself": ("tests/data/test_verify.py", ""),
    "weights": ("tests/test_backbone.py", ""),
    "fitted detectors": ("tests/detect/test_fitted.py", ""),
    "checkpoints": ("tests/pretrain/test_checkpoint.py", ""),
    "killed writers, locks, long names": ("tests/test_paths.py", ""),
    "parameters of notebooks, any name and value": ("tests/test_fuzz.py", "any_value"),
    "options of commands, any text": ("tests/test_fuzz.py", "any_option"),
}


def counted(report: Path, wanted: str) -> dict[str, int]:
    """Cases of a JUnit report whose name has `wanted` in it."""
    cases = [c for c in ElementTree.parse(report).iter("testcase") if wanted in c.get("name", "")]
    failed = sum(c.find("failure") is not None or c.find("error") is not None for c in cases)
    skipped = sum(c.find("skipped") is not None for c in cases)
    return {"cases": len(cases), "passed": len(cases) - failed - skipped, "skipped": skipped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for what, (file, wanted) in GROUPS.items():
            report = Path(folder) / f"{Path(file).stem}.xml"
            if not report.is_file():
                command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", f"--junit-xml={report}", file]
                subprocess.run(command, cwd=CHECKOUT, check=False)
            rows.append({"what": what, **counted(report, wanted)})
            print(rows[-1], flush=True)
    write_rows(options.out / "quick.csv", COLUMNS, rows)
    record = {"script": "tests/faults/quick.py", "rows": rows, "machine": machine()}
    write_text(options.out / "quick.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
