"""Notebooks as pages: the executed copy of the last run if there is one, else the source with a note."""

import json
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]

NOT_RUN = """:::{{note}}
This notebook has not been run here, so the page shows its code without results.
`make reproduce` runs all notebooks on mini-VisA; `papermill notebooks/{name} out.ipynb` runs this one alone.
:::
"""
RUN = """:::{{note}}
:class: executed
Executed in {seconds} s, {day}.
:::
"""
SYNTHETIC = """:::{warning}
**Synthetic mini-VisA: these numbers say nothing about VisA.** They show that every step runs, on rendered images.
:::
"""
PROMPTS = {"code_prompt_show": "Parameters", "code_prompt_hide": "Parameters"}
BANNER = 'class="mini-visa-banner"'  # the notebook's own warning, replaced by the page's


def pages(sources: Path, executed: Path) -> dict[str, Notebook]:
    """File name to notebook, for every notebook of `sources`; `executed` may hold executed copies of the same name."""
    return {file.name: page(file, executed / file.name) for file in sorted(sources.glob("*.ipynb"))}


def page(source: Path, executed: Path) -> Notebook:
    """One notebook as a page of the book."""
    copy = _read(executed if executed.is_file() else source)
    if executed.is_file():
        synthetic = copy["metadata"].get("visa", {}).get("dataset") == "mini-VisA"
        notes = (SYNTHETIC if synthetic else "") + _times(copy)
    else:
        notes = NOT_RUN.format(name=source.name)
    copy["cells"] = [_cell(cell) for cell in _without_replaced_defaults(copy["cells"])]
    _insert_below_title(copy["cells"], notes)
    copy["metadata"] = {k: v for k, v in copy["metadata"].items() if k in ("kernelspec", "language_info")}
    return copy


def _read(file: Path) -> Notebook:
    notebook: Notebook = json.loads(file.read_text(encoding="utf-8"))
    return notebook


def _times(copy: Notebook) -> str:
    papermill = copy["metadata"].get("papermill", {})
    if not papermill.get("duration"):
        return ""
    return RUN.format(seconds=round(papermill["duration"]), day=str(papermill.get("end_time", ""))[:10])


def _without_replaced_defaults(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop the default parameters where the values that papermill injected follow."""
    injected = any("injected-parameters" in _tags(c) for c in cells)
    return [c for c in cells if not (injected and "parameters" in _tags(c))]


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell without run-time metadata and progress bars; its parameters folded away."""
    metadata: dict[str, Any] = {"tags": _tags(cell)}
    if {"parameters", "injected-parameters"} & set(metadata["tags"]):
        metadata = {"tags": [*metadata["tags"], "hide-input"], "mystnb": PROMPTS}
    cell = cell | {"metadata": metadata}
    if "outputs" in cell:
        cell["outputs"] = [o for o in cell["outputs"] if not _is_noise(o)]
    return cell


def _is_noise(output: dict[str, Any]) -> bool:
    html = "".join(output.get("data", {}).get("text/html", ""))
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return output.get("name") == "stderr" or widget or BANNER in html


def _insert_below_title(cells: list[dict[str, Any]], notes: str) -> None:
    title, _, rest = "".join(cells[0]["source"]).partition("\n")
    cells[0]["source"] = f"{title}\n\n{notes}\n{rest}"


def _tags(cell: dict[str, Any]) -> list[str]:
    tags: list[str] = cell["metadata"].get("tags", [])
    return tags
