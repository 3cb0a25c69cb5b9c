"""Count what VisA's official split files list, and verify the objects that a root holds, for the book's ledger.

python benchmarks/count_visa.py --root VISA --objects fryum --out book/results/data

The split files name every image of all twelve objects, so their counts need no image. `errors` and `verified` are of
the objects that are named: each of their images and masks is decoded.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from visa.data.objects import SPLIT_TYPES
from visa.data.splits import read_split, split_file
from visa.data.verify import verify
from visa.provenance import file_digest, machine, write_rows, write_text

COLUMNS = ("variant", "seed", "measure", "value")


def counts(root: Path) -> Counter[str]:
    """Measure to number of images: of each label, and of each split file's parts."""
    found: Counter[str] = Counter()
    for split_type in SPLIT_TYPES:
        samples = read_split(split_file(root, split_type))
        found.update(f"{split_type} {s.split} {s.label}" for s in samples)
        if split_type == "1cls":
            found.update(s.label for s in samples)
            found |= {"images": len(samples), "objects": len({s.object for s in samples})}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--objects", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    reports = verify(options.root, options.objects)
    measures = dict(counts(options.root))
    measures["verified"] = sum(r.normal + r.anomaly for r in reports)
    measures["errors"] = sum(len(r.errors) for r in reports)
    rows = [dict(zip(COLUMNS, ("VisA", 0, name, value), strict=True)) for name, value in measures.items()]
    write_rows(options.out / "counts.csv", COLUMNS, rows)
    files = {name: file_digest(split_file(options.root, name)) for name in SPLIT_TYPES}
    record = {"script": "benchmarks/count_visa.py", "split_files": files, "verified": options.objects}
    write_text(options.out / "provenance.json", json.dumps(record | {"machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
