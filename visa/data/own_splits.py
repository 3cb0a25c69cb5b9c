"""Split files for folders that have none, so that a user can see and edit which image trains."""

import json
from dataclasses import asdict
from pathlib import Path

from visa.data.layouts import root_samples
from visa.data.objects import SPLIT_TYPES
from visa.data.source import open_source
from visa.data.splits import COLUMNS, description, split_file
from visa.errors import VisaError
from visa.provenance import write_rows, write_text


def write_splits(root: Path) -> list[Path]:
    """Write `split_csv/*.csv`, and `dataset.json` where there is none, into a root of folders; returns the split files.

    The rows are those that the folders stand for without them (`visa.data.layouts.root_samples`); from then on the
    files say which image trains. Raises VisaError if there are split files already, or no images.
    """
    source = open_source(str(root))
    if (source.root / "split_csv").exists():
        raise VisaError(f"{source.root / 'split_csv'} is there already: edit its files, or delete it and try again.")
    rows = {split_type: root_samples(source.root, split_type) for split_type in SPLIT_TYPES}
    if not description(source.root):
        about = {"name": source.name, "synthetic": False}
        write_text(source.root / "dataset.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    for split_type, samples in rows.items():
        write_rows(split_file(source.root, split_type), COLUMNS, map(asdict, samples))
    return [split_file(source.root, split_type) for split_type in rows]
