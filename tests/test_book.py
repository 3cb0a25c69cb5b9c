"""The built book: its links resolve; in Chromium it is offline, light, whole on a wide screen and a phone, by axe.

What each page looked like stays in book/_build/screenshots.
"""

import base64
import pkgutil
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

REPO = Path(__file__).resolve().parents[1]
BOOK = REPO / "book"
PAGES = re.findall(r"\b(?:root|file): (\S+)", (BOOK / "_toc.yml").read_text(encoding="utf-8"))
SOURCES = sorted([*BOOK.glob("*.md"), *BOOK.glob("api/*.md")])
SHOTS = BOOK / "_build" / "screenshots"
WIDE, NARROW = (1400, 2400), (390, 2400)  # pixels
# No half-faded text while a theme changes.
STILL = "document.head.insertAdjacentHTML('beforeend', '<style>* {transition: none !important}</style>')"
BAD = """
const found = (css, bad) => [...document.querySelectorAll(css)].filter(bad).map(e => e.outerHTML.slice(0, 99));
return [...found("img", i => (i.complete && !i.naturalWidth) || !i.alt.trim() || getComputedStyle(i).filter != "none"),
  ...found(innerWidth < 600 ? "html" : "pre", e => e.scrollWidth > e.clientWidth),
  ...found("td", t => t.clientWidth && t.clientWidth < 80 && t.innerText.split(" ").length > 3)]
"""  # images broken, unnamed or filtered; code that is cut, or on a phone a page that scrolls sideways; narrow columns


@cache
def parsed(path: Path) -> tuple[list[str], set[str]]:
    """Where a page links to, and which anchors it has."""
    page = BeautifulSoup(path.read_bytes(), "html.parser")
    anchors = {tag[name] for name in ("id", "name") for tag in page.find_all(attrs={name: True})}
    return [tag["href"] for tag in page.find_all("a", href=True)], anchors


def test_the_contents_are_the_pages_and_the_notebooks():
    pages = [*(p.relative_to(BOOK) for p in SOURCES), *(p.relative_to(REPO) for p in REPO.glob("notebooks/*.ipynb"))]
    assert sorted(PAGES) == sorted(str(page.with_suffix("")) for page in pages)


@pytest.mark.parametrize("page", SOURCES, ids=lambda p: p.stem)
def test_names_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`~?(visa\.[\w.]+)`", text)):
        pkgutil.resolve_name(name)
    for path in set(re.findall(r"`(?:python )?((?:book|notebooks|visa|tests|benchmarks)/[\w./]+)", text)):
        made = {"book/_build/html/", "book/_build/screenshots/"}
        assert path in made or (REPO / path).exists(), f"{page.name} names {path}"


@pytest.mark.slow
def test_links_and_anchors_resolve(html):
    broken = []
    for page in (p for p in html.rglob("*.html") if "_static" not in p.relative_to(html).parts):
        for link in (link for link in parsed(page)[0] if not urlsplit(link).scheme):
            url = urlsplit(link)
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            anchor = unquote(url.fragment)
            ok = target.is_file() and (not anchor or target.suffix != ".html" or anchor in parsed(target)[1])
            broken += [] if ok else [f"{page.relative_to(html)}: {link}"]
    assert broken == []


@pytest.mark.slow
def test_the_page_that_is_printed_holds_all_pages_but_the_api(html, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    import pdf

    monkeypatch.setattr(pdf, "BOOK", html.parents[1])
    monkeypatch.setenv("VISA_RUNS", str(tmp_path))
    document = BeautifulSoup(pdf.one_page(tmp_path).read_bytes(), "html.parser")
    titles = {heading.get_text().rstrip("#") for heading in document.find_all(re.compile("h[1-3]"))}
    pages = [BeautifulSoup((html / f"{name}.html").read_bytes(), "html.parser") for name in PAGES if name[:4] != "api/"]
    assert [title for page in pages if (title := page.find("h1").get_text()) not in titles] == []
    assert document.find("script", src=re.compile("mathjax")), "formulas"
    ids = {tag["id"] for tag in document.find_all(id=True)}
    assert [a["href"] for a in document.select("article a[href^='#']") if a["href"][1:] not in ids] == []


def resize(browser, size):
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def picture(browser, name, size):
    clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "jpeg", "quality": 80, "clip": clip})
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / f"{name.replace('/', '-')}.jpg").write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_offline_light_whole_on_any_screen_and_names_its_images(html, browser, requests_of, name):
    resize(browser, WIDE)
    browser.get((html / f"{name}.html").as_uri())
    picture(browser, f"{name}-wide", WIDE)
    requests = {u: error for u, error in requests_of(browser).items() if not u.startswith("chrome:")}
    assert f"{name}.html" in " ".join(requests) and not any(requests.values()), requests
    assert {urlsplit(u).scheme for u in requests} <= {"file", "data", "blob"}
    paths = {unquote(urlsplit(u).path) for u in requests if u.startswith("file:")}
    mathjax = {path for path in paths if "mathjax" in path}
    assert bool(mathjax) == bool(browser.find_elements("css selector", "div.math")), "MathJax is for equations"
    assert sum(Path(path).stat().st_size for path in paths - mathjax) < 2e6, "bytes"
    assert browser.execute_script(BAD) == []
    resize(browser, NARROW)
    picture(browser, f"{name}-narrow", NARROW)
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    assert browser.execute_script(BAD) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(html, browser, axe, name):
    resize(browser, WIDE)
    browser.get((html / f"{name}.html").as_uri())
    browser.execute_script(STILL)
    assert axe(browser) == []
    assert axe(browser, "dark", ["color-contrast"]) == [], "in the dark theme"


@pytest.mark.slow
@pytest.mark.parametrize("words", ["PatchCore", "SPD"])
def test_the_search_finds_results_before_notebooks_and_the_code(html, browser, words):
    browser.get((html / "search.html").as_uri())
    found = "return Search._performSearch(...Search._parseQuery(arguments[0])).reverse().map(result => result[0])"
    late = [bool(re.match("notebooks/|architecture|speed|api", page)) for page in browser.execute_script(found, words)]
    assert len(late) > 5 and not any(late[:4]) and late == sorted(late)


@pytest.mark.slow
def test_mathematics_is_rendered(html, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((html / "method.html").as_uri())
    formulas = len(browser.find_elements("css selector", ".math"))
    count = "return document.querySelectorAll('mjx-container svg').length"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(count) >= formulas > 10)
    assert browser.find_elements("css selector", "[data-mjx-error], mjx-merror") == []
