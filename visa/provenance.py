"""Where every file came from: digests of what it depends on, and JSON sidecars."""

import csv
import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import visa
from visa.paths import CHECKOUT, written_whole

_LIBRARIES = (
    *("torch", "torchvision", "timm", "segmentation-models-pytorch"),
    *("numpy", "scikit-learn", "scipy", "pillow", "opencv-python-headless"),
)


def digest(value: Any) -> str:
    """Compute the SHA-256 (first 16 hexadecimal digits) of a value, which is written as JSON."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Compute the SHA-256 (64 hexadecimal digits) of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_fingerprint(folder: Path, times: bool = True) -> str:
    """Compute a digest of the names, sizes and, with `times`, modification times of all files below `folder`."""
    files = [(str(f.relative_to(folder)), f.stat()) for f in sorted(folder.rglob("*")) if f.is_file()]
    return digest([(name, about.st_size, about.st_mtime_ns if times else 0) for name, about in files])


def machine() -> dict[str, Any]:
    """Return the code's version, the libraries and the hardware, which every sidecar records."""
    return {
        "visa": visa.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file of `columns` atomically, one row per mapping."""
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_sidecar(output: Path, key: str, settings: Mapping[str, Any], **facts: Any) -> Path:
    """Write `<output>.json` beside an output: its stage key, settings, facts (inputs, seconds, ...) and machine.

    It is written after the output: an output without a sidecar is unfinished.
    """
    sidecar = sidecar_of(output)
    record = {
        "key": key,
        "settings": dict(settings),
        **facts,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
    }
    write_text(sidecar, json.dumps(record, indent=1, default=str) + "\n")
    return sidecar


def read_sidecar(output: Path) -> dict[str, Any] | None:
    """Read the sidecar of an output; None if it is missing or unreadable."""
    try:
        record = json.loads(sidecar_of(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def sidecar_of(output: Path) -> Path:
    """Return the path of an output's sidecar."""
    return output.with_name(output.name + ".json")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty= with local changes"]
    try:
        return subprocess.run(describe, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()
