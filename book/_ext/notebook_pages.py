"""Notebooks as pages: the executed copy of the last run if there is one, else the source with a note."""

import csv
import json
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]
Texts = dict[tuple[str, str], dict[str, str]]  # of figures, by notebook and cell id

NOT_RUN = """:::{{note}}
This notebook has not been run here, so the page shows its code without results.
`make reproduce` runs notebooks 0 to 5 on mini-VisA, `visa run --ablation` the last one as well.
`papermill notebooks/{name} out.ipynb` runs this one alone.
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
MADE_BY = "{caption} *Made by notebook `{name}` on {dataset}{settings}{commit}.*"
SETTINGS = ("object", "pretraining", "seed", "seeds", "method", "spd", "arch", "epochs")  # shown below a figure
BANNER = 'class="mini-visa-banner"'  # the notebook's own warning, replaced by the page's


def pages(sources: Path, executed: Path, figures: Path | None = None) -> dict[str, Notebook]:
    """File name to notebook, for every notebook of `sources`; `executed` may hold executed copies of the same name.

    figures: a CSV file with the alternative text and the caption of each cell that draws.
    """
    texts = _texts(figures) if figures else {}
    return {file.name: page(file, executed / file.name, texts) for file in sorted(sources.glob("*.ipynb"))}


def page(source: Path, executed: Path, texts: Texts | None = None) -> Notebook:
    """One notebook as a page of the book; `texts` of its figures by notebook and cell id."""
    copy = _read(executed if executed.is_file() else source)
    if executed.is_file():
        synthetic = copy["metadata"].get("visa", {}).get("dataset") == "mini-VisA"
        notes = (SYNTHETIC if synthetic else "") + _times(copy)
    else:
        notes = NOT_RUN.format(name=source.name)
    made_by = _made_by(source.stem, copy["metadata"])
    cells = _without_replaced_defaults(copy["cells"])
    copy["cells"] = [_cell(c, _figure((texts or {}).get((source.stem, c.get("id", ""))), made_by)) for c in cells]
    _insert_below_title(copy["cells"], notes)
    copy["metadata"] = {k: v for k, v in copy["metadata"].items() if k in ("kernelspec", "language_info")}
    return copy


def _texts(file: Path) -> Texts:
    with file.open(newline="", encoding="utf-8") as stream:
        return {(row["notebook"], row["cell"]): row for row in csv.DictReader(stream)}


def _made_by(name: str, metadata: dict[str, Any]) -> dict[str, str]:
    """What a caption says of the run behind its figure, from the executed copy's metadata."""
    run, given = metadata.get("visa", {}), metadata.get("papermill", {}).get("parameters", {})
    settings = [f"{key} {given[key]}" for key in SETTINGS if given.get(key, "") != ""]
    commit = f", commit `{run['commit'][:7]}`" if run.get("commit") else ""
    shown = f" ({', '.join(settings)})" if settings else ""
    return {"name": name, "dataset": run.get("dataset", "the data at hand"), "settings": shown, "commit": commit}


def _figure(text: dict[str, str] | None, made_by: dict[str, str]) -> dict[str, Any]:
    """What myst-nb needs to show a cell's picture as a figure."""
    if text is None:
        return {"image": {"alt": "Figure; the text around it says what it shows"}}
    return {"image": {"alt": text["alt"]}, "figure": {"caption": MADE_BY.format(caption=text["caption"], **made_by)}}


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


def _cell(cell: dict[str, Any], figure: dict[str, Any]) -> dict[str, Any]:
    """The cell without run-time metadata and progress bars; its parameters folded away, its picture with a text."""
    metadata: dict[str, Any] = {"tags": _tags(cell)}
    if {"parameters", "injected-parameters"} & set(metadata["tags"]):
        metadata = {"tags": [*metadata["tags"], "hide-input"], "mystnb": PROMPTS}
    cell = cell | {"metadata": metadata}
    if "outputs" in cell:
        cell["outputs"] = [o for o in cell["outputs"] if not _is_noise(o)]
        if any("image/png" in o.get("data", {}) or "image/svg+xml" in o.get("data", {}) for o in cell["outputs"]):
            metadata["mystnb"] = figure
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
