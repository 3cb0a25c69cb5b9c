"""What several benchmarks share: ratios, tables, and records with provenance."""

import json
import os
import statistics
from pathlib import Path

import pandas as pd

from visa.provenance import machine, write_text

_UNSAID = ("out", "anomalib_python", "part")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def ratio(taken, part, whole):
    """Median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(taken[part], taken[whole], strict=True))


def show(rows, columns=None):
    """Print rows as a table."""
    frame = pd.DataFrame(rows, columns=columns)
    print(frame.map(lambda v: f"{v:.4g}" if isinstance(v, float) else v).to_string(index=False), flush=True)


def write_record(file, options, **results):
    """Write results, the options without a machine's folders, and the machine, to a JSON file where one is named."""
    if file is None:
        return
    plain = {k: v.name if isinstance(v, Path) else v for k, v in vars(options).items() if k not in _UNSAID}
    record = {**results, "asked": plain, "load": os.getloadavg(), "machine": machine()}
    write_text(file, json.dumps(record, indent=1) + "\n")
