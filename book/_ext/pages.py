"""Notebooks as pages: the executed copy of the last run if there is one, else the source with a note."""

import csv
import json
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]
Texts = dict[tuple[str, str], dict[str, str]]  # of figures, by notebook and cell id

NOT_RUN = """:::{{note}}
This notebook has not been run here, so the page shows its code without results.
`make reproduce` runs all notebooks on mini-VisA.
`papermill notebooks/{name} out.ipynb` runs this one alone.
:::
"""
RUN = """:::{{note}}
:class: executed
Executed on {dataset}{settings} in {seconds:.0f} s, {day:.10}{commit}.
:::
"""
SYNTHETIC = """:::{warning}
**Synthetic mini-VisA: these numbers say nothing about VisA.** They show that every step runs, on rendered images.
:::
"""
PROMPTS = {"parameters": "Parameters and their defaults", "injected-parameters": "Parameters of this run"}
SETTINGS = ("object", "pretraining", "seed", "method", "spd", "arch", "steps", "epochs", "set")  # shown at the top
BANNER = 'class="mini-visa-banner"'  # the notebook's own warning, replaced by the page's


def pages(sources: Path, executed: Path, figures: Path) -> dict[str, Notebook]:
    """File name to notebook, for every notebook of `sources`; `executed` may hold executed copies of the same name.

    figures: a CSV file with the alternative text and the caption of each cell that draws.
    """
    with figures.open(newline="", encoding="utf-8") as stream:
        texts = {(row["notebook"], row["cell"]): row for row in csv.DictReader(stream)}
    return {file.name: page(file, executed / file.name, texts) for file in sorted(sources.glob("*.ipynb"))}


def page(source: Path, executed: Path, texts: Texts) -> Notebook:
    """One notebook as a page of the book; `texts` of its figures by notebook and cell id."""
    was_run = executed.is_file()
    copy: Notebook = json.loads((executed if was_run else source).read_text(encoding="utf-8"))
    notes = _notes(copy["metadata"]) if was_run else NOT_RUN.format(name=source.name)
    cells = copy["cells"]
    copy["cells"] = [_cell(c, _figure(texts.get((source.stem, c.get("id", ""))))) for c in cells]
    title, _, rest = "".join(cells[0]["source"]).partition("\n")
    copy["cells"][0]["source"] = f"{title}\n\n{notes}\n{rest}"
    copy["metadata"] = {k: v for k, v in copy["metadata"].items() if k in ("kernelspec", "language_info")}
    return copy


def _notes(metadata: dict[str, Any]) -> str:
    """A warning where the data were synthetic, and what made the page: data, settings, time and commit."""
    run, times = metadata.get("visa", {}), metadata.get("papermill", {})
    warning = SYNTHETIC if run.get("dataset") == "mini-VisA" else ""
    if not times.get("duration"):
        return warning
    given = times.get("parameters", {})
    settings = [f"{key} {given[key]}" for key in SETTINGS if given.get(key, "") != ""]
    made_by = {
        "dataset": run.get("dataset", "an unnamed data set"),
        "settings": f" ({', '.join(settings)})" if settings else "",
        "commit": f", commit `{run['commit'][:7]}`" if run.get("commit") else "",
    }
    return warning + RUN.format(seconds=times["duration"], day=times["end_time"], **made_by)


def _figure(text: dict[str, str] | None) -> dict[str, Any]:
    """What myst-nb needs to show a cell's picture as a figure."""
    if text is None:
        return {"image": {"alt": "Figure; the text around it says what it shows"}}
    return {"image": {"alt": text["alt"]}, "figure": {"caption": text["caption"]}}


def _cell(cell: dict[str, Any], figure: dict[str, Any]) -> dict[str, Any]:
    """The cell without run-time metadata and progress bars; its parameters folded away, its picture with a text."""
    metadata: dict[str, Any] = {"tags": cell["metadata"].get("tags", [])}
    for name in set(PROMPTS).intersection(metadata["tags"]):
        prompts = dict.fromkeys(("code_prompt_show", "code_prompt_hide"), PROMPTS[name])
        metadata = {"tags": [*metadata["tags"], "hide-input"], "mystnb": prompts}
    cell = cell | {"metadata": metadata}
    if "outputs" in cell:
        cell["outputs"] = [o for o in cell["outputs"] if not _is_noise(o)]
        if any({"image/png", "image/svg+xml"} & set(o.get("data", {})) for o in cell["outputs"]):
            metadata["mystnb"] = figure
    return cell


def _is_noise(output: dict[str, Any]) -> bool:
    data = output.get("data", {})
    widget = "application/vnd.jupyter.widget-view+json" in data
    return output.get("name") == "stderr" or widget or BANNER in "".join(data.get("text/html", ""))
