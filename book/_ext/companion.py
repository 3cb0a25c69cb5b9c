"""Sphinx extension: fills book/notebooks and book/generated before every build, and keeps the book offline."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]  # this clone's visa, whatever else bears that name


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect before Sphinx looks for source files, scripts and the table of contents."""
    app.connect("config-inited", prepare, priority=0)
    app.connect("html-page-context", drop_scripts, priority=999)
    app.connect("build-finished", empty_icon_script)
    app.connect("build-finished", copy_browser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def prepare(app: Sphinx, config: Config) -> None:
    """Write every page and part of a page that is made from files; untouched where nothing changed."""
    # jupyter-book loads each script of _static on each page; Sphinx itself adds MathJax where there is mathematics
    config.html_js_files = [f for f in config.html_js_files if not str(f).startswith("mathjax/")]
    import_module("papermill.engines")  # it loads visa.kernel itself; the other way round is a circular import
    names = ("notebook_pages", "fragments", "browser_page")
    notebook_pages, fragments, browser_page = map(import_module, names)
    from visa.errors import VisaError
    from visa.paths import runs_root

    book = Path(app.srcdir)
    try:
        pages = notebook_pages.pages(book.parent / "notebooks", runs_root() / "book")
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
