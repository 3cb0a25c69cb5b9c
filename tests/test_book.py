"""The built book: from a bare clone, without warnings, complete, light, and without a request to the outside."""

import os
import pkgutil
import re
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
BOOK = REPO / "book"
MADE = ("_build", "notebooks", "generated", "__pycache__")
LOADED = {("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("video", "src"), ("embed", "src")}
IN_SHEET = r"""(?:url\(|@import)\s*['"]?([^)'"]+)"""
LOADED_RELATIONS = {"stylesheet", "preload", "icon", "shortcut icon", "modulepreload", "prefetch", "manifest"}


class Page(HTMLParser):
    """What a page loads, where it links to, and which anchors it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self.loads += [values[name] for element, name in LOADED if element == tag and name in values]
        if tag == "link" and values.get("rel") in LOADED_RELATIONS:
            self.loads.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


@cache
def parsed(path: Path) -> Page:
    return Page(path)


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """The book of a clone without data and runs, built from another folder."""
    clone, elsewhere = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(BOOK, clone / "book", symlinks=True, ignore=shutil.ignore_patterns(*MADE))
    shutil.copy(REPO / "_config.yml", clone)
    for name in ("visa", "notebooks"):
        shutil.copytree(REPO / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    build = [str(Path(sys.executable).with_name("jupyter-book")), "build", f"{clone}/book", "-W", "-n", "--keep-going"]
    env = os.environ | {"VISA_RUNS": str(elsewhere / "runs"), "VISA_DATA": str(elsewhere / "data"), "VISA_ROOT": ""}
    done = subprocess.run(build, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pages = clone / "book" / "_build" / "html"
    assert (pages / "index.html").is_file()
    return pages


def toc_files() -> list[str]:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


def page_files(html: Path) -> list[Path]:
    return [p for p in html.rglob("*.html") if "_static" not in p.relative_to(html).parts]


def loaded_files(page: Path) -> list[Path]:
    """Local files that a page loads, with what its style sheets load."""
    files = {
        (page.parent / unquote(urlsplit(u).path)).resolve() for u in parsed(page).loads if not u.startswith("data:")
    }
    sheets = [f for f in files if f.suffix == ".css"]
    urls = [(s, u) for s in sheets for u in re.findall(IN_SHEET, s.read_text(encoding="utf-8"))]
    files |= {(s.parent / urlsplit(u).path).resolve() for s, u in urls if not u.startswith(("data:", "#"))}
    return sorted(f for f in files if not (f.suffix == ".ttf" and f.with_suffix(".woff2") in files))


@pytest.mark.parametrize("name", toc_files())
def test_every_entry_of_the_contents_has_a_source(name):
    sources = [BOOK / f"{name}.md", REPO / f"{name}.ipynb"]
    assert any(s.is_file() for s in sources), f"none of {sources}"


def test_every_notebook_is_a_chapter():
    assert {f"notebooks/{p.stem}" for p in (REPO / "notebooks").glob("*.ipynb")} <= set(toc_files())


@pytest.mark.parametrize("page", sorted(BOOK.glob("*.md")), ids=lambda p: p.stem)
def test_names_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`~?(visa\.[\w.]+)`", text)):
        pkgutil.resolve_name(name)
    for path in set(re.findall(r"`((?:book|notebooks|visa|tests)/[\w./]+)`", text)):
        made = {"book/_build/html/"}
        assert path in made or (REPO / path).exists(), f"{page.name} names {path}"


def test_the_house_names_every_module():
    text = (BOOK / "architecture.md").read_text(encoding="utf-8")
    modules = [p.stem for p in (REPO / "visa").rglob("*.py") if p.stem != "__init__" and "synthetic" not in p.parts]
    assert [m for m in modules if not re.search(rf"\b{m}\b", text)] == []


@pytest.mark.slow
def test_every_chapter_is_a_page(html):
    assert [name for name in toc_files() if not (html / f"{name}.html").is_file()] == []


@pytest.mark.slow
def test_nothing_is_loaded_from_outside(html):
    remote = re.compile(r"^(https?:)?//")
    assert {u for page in page_files(html) for u in parsed(page).loads if remote.match(u)} == set()
    sheets = {f for page in page_files(html) for f in loaded_files(page) if f.suffix == ".css"}
    loads = {u for s in sheets for u in re.findall(IN_SHEET, s.read_text(encoding="utf-8"))}
    assert {u for u in loads if remote.match(u)} == set()


@pytest.mark.slow
def test_what_pages_load_is_there_and_light(html):
    for page in page_files(html):
        files = loaded_files(page)
        assert [f for f in files if not f.is_file()] == []
        assert sum(f.stat().st_size for f in [page, *files]) < 5e6, page


@pytest.mark.slow
def test_links_and_anchors_resolve(html):
    broken = []
    for page in page_files(html):
        for link in parsed(page).links:
            url = urlsplit(link)
            if url.scheme:
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            anchor = unquote(url.fragment)
            ok = target.is_file() and (not anchor or target.suffix != ".html" or anchor in parsed(target).anchors)
            broken += [] if ok else [f"{page.relative_to(html)}: {link}"]
    assert broken == []


@pytest.mark.slow
def test_notebooks_that_were_not_run_say_so(html):
    for page in (html / "notebooks").glob("*.html"):
        assert "has not been run here" in page.read_text(encoding="utf-8"), page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["intro", "method", "data", "paper_map", "api", "notebooks/03_pretrain"])
def test_a_browser_reads_the_page_from_disk(html, browser, requests_of, name):
    browser.set_window_size(500, 900)
    browser.get((html / f"{name}.html").as_uri())
    requests = {u: error for u, error in requests_of(browser).items() if not u.startswith("chrome:")}
    assert f"{name}.html" in " ".join(requests)
    assert {urlsplit(u).scheme for u in requests} <= {"file", "data"}
    assert {u: error for u, error in requests.items() if error} == {}
    width = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], "the page scrolls sideways on a narrow screen"


@pytest.mark.slow
def test_a_browser_renders_the_mathematics(html, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((html / "method.html").as_uri())
    formulas = len(browser.find_elements("css selector", ".math"))
    count = "return document.querySelectorAll('mjx-container svg').length"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(count) >= formulas > 10)
    assert browser.find_elements("css selector", "[data-mjx-error], mjx-merror") == []
