"""The defect browser of the run whose scoring the book shows: its part of the page, and its copy in the built book."""

import json
import shutil
from html import escape
from pathlib import Path

COPY = "_static/browser"  # below the built book
NO_RUN = """:::{note}
No run with a browser was found when this page was built.
`make reproduce` scores mini-VisA and puts its browser here.
So does any `visa run`, followed by `jupyter-book build book/`.
:::
"""
EMBEDDED = """```{{raw}} html
<p><a href="{copy}/index.html">Open the browser of the run {run} in a window of its own</a></p>
<iframe class="defect-browser" src="{copy}/index.html" title="Defect browser of the run {run}" loading="lazy"></iframe>
```
"""


def browser_of(runs: Path) -> Path | None:
    """The browser's folder of the run that the executed copy of notebook 04 is of; None where there is none."""
    try:
        notebook = json.loads((runs / "book" / "04_score.ipynb").read_text(encoding="utf-8"))
        folder = runs / notebook["metadata"]["papermill"]["parameters"]["run"] / "browser"
    except (OSError, ValueError, KeyError):
        return None
    return folder if (folder / "index.html").is_file() else None


def part(runs: Path) -> str:
    """What the page shows below its text."""
    folder = browser_of(runs)
    return EMBEDDED.format(copy=COPY, run=escape(folder.parent.name)) if folder else NO_RUN


def copy(runs: Path, built: Path) -> None:
    """Make the built book hold the browser, or none; files that are the same are left alone."""
    source, target = browser_of(runs), built / COPY
    wanted = {f.relative_to(source): f for f in source.rglob("*") if f.is_file()} if source else {}
    for old in [f for f in target.rglob("*") if f.is_file() and f.relative_to(target) not in wanted]:
        old.unlink()
    for name, file in wanted.items():
        made, about = target / name, file.stat()
        if not made.is_file() or (made.stat().st_size, made.stat().st_mtime_ns) != (about.st_size, about.st_mtime_ns):
            made.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, made)
