"""Make a PDF of the built book: all pages in one document, printed by Chromium, so that links and formulas survive.

python book/_ext/pdf.py     after `jupyter-book build book/`; writes book/_build/pdf/visa.pdf
"""

import re
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from urllib.parse import urldefrag

import yaml
from bs4 import BeautifulSoup, Tag

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from visa.errors import VisaError
from visa.paths import written_whole
from visa.provenance import machine

BOOK = Path(__file__).resolve().parents[1]
HTML, OUT = BOOK / "_build" / "html", BOOK / "_build" / "pdf"
DROPPED = ("a.headerlink", "script", "button", ".prev-next-footer", ".viewcode-link", ".sd-summary-icon")
COVER = """<section class="cover"><p class="title">{title}</p>
<p>{made}</p><p>{footer}</p><p>The API's pages are in the HTML book.</p><ol>{contents}</ol></section>"""
PRINT = (  # no header; the style sheet numbers the pages
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--no-pdf-header-footer", "--generate-pdf-document-outline", "--virtual-time-budget=60000"),
)


def main() -> None:
    """Write one HTML document of all chapters, then print it with Chromium, once formulas and pictures are there.

    Raises VisaError where the book is not built, and where Chromium is absent or fails.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        raise VisaError("a PDF needs Chromium on the PATH (apt-get install chromium).")
    if not (HTML / "index.html").is_file():
        raise VisaError("there is no built book: jupyter-book build book/ first (make pdf does both).")
    document, pdf = OUT / "visa.html", OUT / "visa.pdf"
    OUT.mkdir(parents=True, exist_ok=True)
    document.write_text(one_document(HTML, chapters()), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile, written_whole(pdf) as partial:
        command = [browser, *PRINT, f"--user-data-dir={profile}", f"--print-to-pdf={partial}", document.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not partial.is_file():
            raise VisaError(f"{browser} made no PDF: {done.stderr.strip()[-500:]}")
    print(pdf)


def chapters() -> list[str]:
    """Pages in the order of the table of contents, without the API: long, and of use beside the code alone."""
    lines = (BOOK / "_toc.yml").read_text(encoding="utf-8")  # whatever is folded below what
    return [file for file in re.findall(r"\b(?:root|file): (\S+)", lines) if file.split("/")[0] != "api"]


def one_document(html: Path, names: list[str]) -> str:
    """All pages below each other; ids bear their page's name, and links between pages stay in the document."""
    first, math = (_parsed(html / f"{name}.html") for name in (names[0], "method"))
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    articles = [article(html, name, names) for name in names]
    titles = [a.find("h1").get_text() for a in articles]
    contents = "".join(f'<li><a href="#{_slug(n)}">{t}</a></li>' for n, t in zip(names, titles, strict=True))
    made = f"Printed {date.today().isoformat()} from commit {(machine()['commit'] or 'unknown')[:7]}."
    cover = COVER.format(title=config["title"], made=made, footer=config["html"]["extra_footer"], contents=contents)
    head = list(first.find_all("link", rel="stylesheet"))
    head += [s for s in math.find_all("script") if "mathjax" in f"{s.get('src', '')} {s.string or ''}".lower()]
    for tag in head:
        _point(tag, names[0])
    body = cover + "".join(str(a) for a in articles)
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f'<title>{config["title"]}</title>{"".join(map(str, head))}</head><body class="printed">{body}</body></html>'
    )


def article(html: Path, name: str, names: list[str]) -> Tag:
    """The text of a page, without what only a screen needs, everything unfolded."""
    found = _parsed(html / f"{name}.html").select_one("article.bd-article")
    assert found is not None, name
    for tag in found.select(", ".join(DROPPED)):
        tag.decompose()
    for tag in found.find_all("details"):
        if tag.find("summary").get_text().strip().endswith(".json"):  # pages of settings, in the files that are named
            tag.decompose()
        else:
            tag["open"] = ""
    for tag in found.find_all(id=True):
        tag["id"] = f"{_slug(name)}--{tag['id']}"
    for tag in found.find_all(["img", "a", "source", "object"]):
        _point(tag, name, names)
    found["id"] = _slug(name)
    return found


def _point(tag: Tag, name: str, names: list[str] = ()) -> None:  # type: ignore[assignment]
    """Make a tag's address count from the document: another chapter becomes an anchor, a file lies in the HTML."""
    for attribute in ("src", "href"):
        address = str(tag.get(attribute, ""))
        if not address or "://" in address or address.startswith(("data:", "mailto:")):
            continue
        path, fragment = urldefrag(address)
        target = (Path("/") / name).parent.joinpath(path).resolve() if path else Path(f"/{name}.html")
        chapter = str(target.relative_to("/")).removesuffix(".html")
        if tag.name == "a" and chapter in names:
            tag[attribute] = f"#{_slug(chapter)}" + (f"--{fragment}" if fragment else "")
        elif tag.name == "a":  # source code and images in full size are on the screen's pages
            del tag[attribute]
        else:
            tag[attribute] = f"../html{target}"


def _parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def _slug(name: str) -> str:
    return name.replace("/", "-")


if __name__ == "__main__":
    try:
        main()
    except VisaError as error:
        sys.exit(str(error))
