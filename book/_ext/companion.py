"""Sphinx extension: fills book/notebooks and book/generated before every build, and keeps the book offline."""

import json
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

UNFINISHED = ".unfinished"  # in the built book, while it is being built
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]  # this clone's visa, whatever else bears that name


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect before Sphinx looks for source files, scripts and the table of contents."""
    app.connect("config-inited", begin, priority=0)
    app.connect("config-inited", prepare, priority=0)
    app.connect("html-page-context", drop_scripts, priority=999)
    app.connect("html-page-context", mend_markup)
    app.connect("build-finished", empty_icon_script)
    app.connect("build-finished", copy_browser)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def begin(app: Sphinx, config: Config) -> None:
    """Mark the build as unfinished, and begin anew after one that was: a page cut off by a kill looks finished."""
    folders = Path(app.outdir), Path(app.doctreedir)
    mark = folders[0] / UNFINISHED
    if mark.is_file():
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def finish(app: Sphinx, error: Exception | None) -> None:
    """Take the mark away from a build that came to its end."""
    if error is None:
        (Path(app.outdir) / UNFINISHED).unlink(missing_ok=True)


def prepare(app: Sphinx, config: Config) -> None:
    """Write every page and part of a page that is made from files; untouched where nothing changed."""
    # jupyter-book loads each script of _static on each page; Sphinx itself adds MathJax where there is mathematics
    config.html_js_files = [f for f in config.html_js_files if not str(f).startswith("mathjax/")]
    names = ("notebook_pages", "fragments", "browser_page")
    notebook_pages, fragments, browser_page = map(import_module, names)
    from visa.errors import VisaError
    from visa.paths import runs_root

    book = Path(app.srcdir)
    try:
        figures = book / "reference" / "notebook_figures.csv"
        pages = notebook_pages.pages(book.parent / "notebooks", runs_root() / "book", figures)
        _write(book / "notebooks", {name: json.dumps(page, indent=1) + "\n" for name, page in pages.items()})
        _write(book / "generated", fragments.fragments(book) | {"browser.md": browser_page.part(runs_root())})
        import_module("mini_pages").write_pictures(book / "generated" / "sheets")
    except VisaError as error:
        raise ExtensionError(str(error)) from error


def drop_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Leave out what a page has no use for.

    Live code is not offered here, and its scripts name a network address. The first page has MathJax, the heaviest
    script, only because pages below it have formulas.
    """
    unused = ["thebe"]
    if not app.env.domaindata["math"]["has_equations"].get(page):
        unused.append("mathjax")
    scripts = {script: f"{script} {getattr(script, 'attributes', '')}".lower() for script in context["script_files"]}
    context["script_files"] = [s for s, text in scripts.items() if not any(name in text for name in unused)]


def mend_markup(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Mend what keeps screen readers from reading a page: each of these is a finding of axe-core."""
    if "body" in context:
        body = context["body"].replace(' aria-label="Toggle hidden content"', "")  # its own words name a folded cell
        body = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
        context["body"] = re.sub(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", _signature_lines, body, flags=re.S)


def _signature_lines(match: re.Match[str]) -> str:
    """Lines of a long signature as what they are: no list of definitions."""
    lines = match.group(1).replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def empty_icon_script(app: Sphinx, error: Exception | None) -> None:
    """Empty the theme's script that draws icons, a third of a page's weight: its style sheet's fonts have them too."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if script.is_file():
        script.write_text("// icons come from the fonts of the style sheet\n", encoding="utf-8")


def copy_browser(app: Sphinx, error: Exception | None) -> None:
    """Put the defect browser of the run that the book shows beside the pages."""
    from visa.paths import runs_root

    if error is None and app.builder.format == "html":
        import_module("browser_page").copy(runs_root(), Path(app.outdir))


def _write(folder: Path, files: dict[str, str]) -> None:
    """Make `folder` hold exactly `files`; a file that is the same keeps its time, and its page is not built again."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.name not in files and old.is_file():
            old.unlink()
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
