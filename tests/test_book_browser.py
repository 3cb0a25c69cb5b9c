"""The built book in real Chromium: offline, on a phone, in the dark, and for those who cannot see it.

What each page looked like stays in book/_build/screenshots.
"""

import base64
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
SHOTS = REPO / "book" / "_build" / "screenshots"
AXE = REPO / "node_modules" / "axe-core" / "axe.min.js"
TOC = yaml.safe_load((REPO / "book" / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
WIDE, NARROW = (1400, 2400), (500, 2400)  # pixels
# No half-faded text while a theme changes.
STILL = "document.head.insertAdjacentHTML('beforeend', '<style>* {transition: none !important}</style>')"
BAD_IMAGES = """
return [...document.images].filter(i => (i.complete && !i.naturalWidth) || !i.alt.trim()).map(i => i.src)
"""
RUN_AXE = """
const [rules, done] = arguments;
const only = rules ? {runOnly: {type: "rule", values: rules}} : {};
axe.run(document, {resultTypes: ["violations"], ...only}).then(result => done(result.violations
  .filter(v => ["serious", "critical"].includes(v.impact))
  .flatMap(v => v.nodes.map(n => `${v.id}: ${n.target} ${n.html.slice(0, 120)}`))));
"""

pytestmark = pytest.mark.slow


def resize(browser, size):
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def picture(browser, name, size):
    clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "jpeg", "quality": 80, "clip": clip})
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / f"{name.replace('/', '-')}.jpg").write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_offline_fits_a_phone_and_names_its_images(html, browser, requests_of, name):
    resize(browser, WIDE)
    browser.get((html / f"{name}.html").as_uri())
    picture(browser, f"{name}-wide", WIDE)
    requests = {u: error for u, error in requests_of(browser).items() if not u.startswith("chrome:")}
    assert f"{name}.html" in " ".join(requests) and not any(requests.values()), requests
    assert {urlsplit(u).scheme for u in requests} <= {"file", "data", "blob"}
    assert browser.execute_script(BAD_IMAGES) == [], "broken, or without alternative text"
    resize(browser, NARROW)
    picture(browser, f"{name}-narrow", NARROW)
    scrolled, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert scrolled <= window, "the page scrolls sideways"


def scheme(browser, name):
    media = {"features": [{"name": "prefers-color-scheme", "value": name}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(html, browser, name):
    if not AXE.is_file():
        pytest.skip("no axe-core: make axe (needs npm)")
    resize(browser, WIDE)
    browser.set_script_timeout(120)
    browser.get((html / f"{name}.html").as_uri())
    browser.execute_script(STILL)
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    assert browser.execute_async_script(RUN_AXE, None) == []
    scheme(browser, "dark")
    try:
        assert browser.execute_async_script(RUN_AXE, ["color-contrast"]) == [], "in the dark theme"
    finally:
        scheme(browser, "light")


def test_mathematics_is_rendered(html, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((html / "method.html").as_uri())
    formulas = len(browser.find_elements("css selector", ".math"))
    count = "return document.querySelectorAll('mjx-container svg').length"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(count) >= formulas > 10)
    assert browser.find_elements("css selector", "[data-mjx-error], mjx-merror") == []
