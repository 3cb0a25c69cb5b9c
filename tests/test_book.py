"""The built book: from a bare clone, without warnings, complete, light, and without a request to the outside."""

import pkgutil
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
BOOK = REPO / "book"
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


def test_the_contents_are_the_pages_and_the_notebooks():
    pages = {p.stem for p in BOOK.glob("*.md")} | {f"notebooks/{p.stem}" for p in (REPO / "notebooks").glob("*.ipynb")}
    assert set(toc_files()) == pages


@pytest.mark.parametrize("page", sorted(BOOK.glob("*.md")), ids=lambda p: p.stem)
def test_names_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`~?(visa\.[\w.]+)`", text)):
        pkgutil.resolve_name(name)
    for path in set(re.findall(r"`(?:python )?((?:book|notebooks|visa|tests|benchmarks)/[\w./]+)", text)):
        made = {"book/_build/html/", "book/_build/screenshots/"}
        assert path in made or (REPO / path).exists(), f"{page.name} names {path}"


@pytest.mark.slow
def test_every_chapter_is_a_page_that_loads_nothing_from_outside(html):
    assert [name for name in toc_files() if not (html / f"{name}.html").is_file()] == []
    loads = {u for page in page_files(html) for u in parsed(page).loads}
    sheets = {f for page in page_files(html) for f in loaded_files(page) if f.suffix == ".css"}
    loads |= {u for s in sheets for u in re.findall(IN_SHEET, s.read_text(encoding="utf-8"))}
    assert [u for u in loads if re.match(r"(https?:)?//", u)] == []


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
        for link in (link for link in parsed(page).links if not urlsplit(link).scheme):
            url = urlsplit(link)
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            anchor = unquote(url.fragment)
            ok = target.is_file() and (not anchor or target.suffix != ".html" or anchor in parsed(target).anchors)
            broken += [] if ok else [f"{page.relative_to(html)}: {link}"]
    assert broken == []


@pytest.mark.slow
def test_the_document_that_is_printed_is_whole(html, monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    import pdf
    from bs4 import BeautifulSoup

    names = pdf.chapters()
    document = BeautifulSoup(pdf.one_document(html, names), "html.parser")
    assert len(document.select("article.bd-article")) == len(names) == len(toc_files()) - 1, "all but the API"
    ids = [tag["id"] for tag in document.find_all(id=True)]
    assert len(set(ids)) == len(ids)
    links = {a["href"] for a in document.find_all("a", href=True)}
    assert sorted(u for u in links if u.startswith("#") and u[1:] not in ids and u != "#" and "api" not in u) == []
    assert [u for u in links if not u.startswith(("#", "https://"))] == []
    assert all(d.has_attr("open") for d in document.find_all("details"))
    loads = [tag["src"] for tag in document.find_all(src=True)] + [tag["href"] for tag in document.find_all("link")]
    assert [u for u in loads if not (html / u.removeprefix("../html/").partition("?")[0]).is_file()] == []
