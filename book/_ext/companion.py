"""Sphinx extension: notebooks, the defect browser and result files into the book, and nothing from outside."""

import json
import re
import shutil
import sys
from html import escape, unescape
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this clone's visa, whatever else bears that name
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))  # the protocol's comparisons

from visa.errors import VisaError
from visa.paths import runs_root
from visa.provenance import folder_fingerprint

UNFINISHED = ".unfinished"  # in the built book, while it is being built
BROWSER = "_static/browser"  # below the built book
MAKERS = {  # module: its functions, each the Markdown of the directive of its name
    "results": ("results", "run"),
    "findings": ("findings",),
    "ledger": ("ledger",),
    "package": ("objects", "classes", "api", "mini_sheets"),
}
NO_BROWSER = """:::{note}
No run with a browser was found when this page was built: `make reproduce` makes one, and so does any `visa run`.
:::
"""
EMBEDDED = """```{{raw}} html
<iframe class="defect-browser" src="{copy}/index.html" title="Defect browser of the run {run}"></iframe>
<p><a href="{copy}/index.html">Open the defect browser of the run {run} in a window of its own</a></p>
```
"""


class FromFiles(SphinxDirective):
    """A directive of MAKERS; its page is read again when one of the files that it used changes."""

    maker: tuple[str, str]

    optional_arguments, final_argument_whitespace, has_content = 1, True, True
    option_spec = dict.fromkeys(("where", "show", "rows", "columns", "value", "digits"), str)

    def run(self) -> list[nodes.Node]:
        """The nodes of the Markdown that the function makes; raises ExtensionError for a file that does not fit."""
        self.file(f"_ext/{self.maker[0]}.py")
        make = getattr(import_module(self.maker[0]), self.maker[1])
        try:
            return self.parse_text_to_nodes(make(self))
        except VisaError as error:
            raise ExtensionError(f"{self.env.docname}, {{{self.name}}}: {error}") from error

    def file(self, name: str) -> Path:
        """A file below book/ that the page depends on; while it is absent, the page is read at every build."""
        path = Path(self.env.srcdir) / name
        self.env.note_dependency(str(path))
        return path


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect before Sphinx looks for source files, scripts and the table of contents."""
    for module, functions in MAKERS.items():
        for name in functions:
            app.add_directive(name, type(name, (FromFiles,), {"maker": (module, name)}))
    app.connect("config-inited", begin, priority=0)
    app.connect("config-inited", prepare, priority=0)
    app.connect("html-page-context", drop_scripts, priority=999)
    app.connect("html-page-context", mend_markup, priority=999)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def begin(app: Sphinx, config: Config) -> None:
    """Mark the build as unfinished, and begin anew after one that was: a page cut off by a kill looks finished."""
    folders = Path(app.outdir), Path(app.doctreedir)
    mark = folders[0] / UNFINISHED
    for folder in folders:
        if mark.is_file():
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def prepare(app: Sphinx, config: Config) -> None:
    """Write the pages that are notebooks, and the browser's part; untouched where nothing changed."""
    book, runs = Path(app.srcdir), runs_root()
    # jupyter-book loads each script of _static on each page: MathJax is for equations, the scorer for the search
    config.html_js_files = [f for f in config.html_js_files if not str(f).startswith(("mathjax/", "scorer"))]
    config.html_search_scorer = str(book / "_static" / "scorer.js")
    texts = book / "reference" / "notebook_figures.csv"
    pages = import_module("pages").pages(book.parent / "notebooks", runs / "book", texts)
    write(book / "notebooks", {name: json.dumps(page, indent=1) + "\n" for name, page in pages.items()})
    folder = browser_of(runs)
    part = EMBEDDED.format(copy=BROWSER, run=escape(folder.parent.name)) if folder else NO_BROWSER
    write(book / "generated", {"browser.md": part})


def finish(app: Sphinx, error: Exception | None) -> None:
    """Add the defect browser, empty what is not needed, and take the mark away from a build that came to its end."""
    if error is not None:
        return
    built = Path(app.outdir)
    script = built / "_static" / "scripts" / "fontawesome.js"
    if script.is_file():  # it draws icons, a third of a page's weight: the style sheet's fonts have them too
        script.write_text("// icons come from the fonts of the style sheet\n", encoding="utf-8")
    if app.builder.format == "html":
        copy_browser(browser_of(runs_root()), built / BROWSER)
    (built / UNFINISHED).unlink(missing_ok=True)


def drop_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Leave out live code, whose scripts name a network address, and MathJax where no equation is displayed."""
    unused = ["thebe"] if '<div class="math' in context.get("body", "") else ["thebe", "mathjax"]
    scripts = {script: f"{script} {getattr(script, 'attributes', '')}".lower() for script in context["script_files"]}
    context["script_files"] = [s for s, text in scripts.items() if not any(name in text for name in unused)]


def mend_markup(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Mend what axe-core finds to keep screen readers from reading a page; write symbols in sentences as MathML."""
    contents = context["generate_toctree_html"]
    named = '<summary aria-label="Pages below">'
    context["generate_toctree_html"] = lambda *given, **by: str(contents(*given, **by)).replace("<summary>", named)
    if "body" in context:
        body = context["body"].replace(' aria-label="Toggle hidden content"', "")  # its own words name a folded cell
        body = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
        if '<div class="math' not in body:  # symbols in sentences need no MathJax
            body = re.sub(r'(<span class="math[^>]*>)\\\((.+?)\\\)', lambda m: m[1] + tex2mathml(unescape(m[2])), body)
        for lines in re.findall(r"<dl>\s*(?:<dd>.*?</dd>\s*)+</dl>", body, flags=re.S):  # of a long signature
            spans = re.sub("<(/?)d[ld]>", r"<\1span>", lines.replace("<dd>", '<span class="sig-line">'))
            body = body.replace(lines, spans)
        context["body"] = body


def browser_of(runs: Path) -> Path | None:
    """The browser's folder of the run that the executed copy of notebook 04 is of; None where there is none."""
    try:
        notebook = json.loads((runs / "book" / "04_score.ipynb").read_text(encoding="utf-8"))
        folder = runs / notebook["metadata"]["papermill"]["parameters"]["run"] / "browser"
    except (OSError, ValueError, KeyError):
        return None
    return folder if (folder / "index.html").is_file() else None


def copy_browser(source: Path | None, target: Path) -> None:
    """Make `target` a copy of the browser's folder; without one it goes."""
    if not (source and target.is_dir() and folder_fingerprint(source) == folder_fingerprint(target)):
        shutil.rmtree(target, ignore_errors=True)
        if source:
            shutil.copytree(source, target)


def write(folder: Path, files: dict[str, str]) -> None:
    """Make `folder` hold `files`; a file that is the same keeps its time, and its page is not built again."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
