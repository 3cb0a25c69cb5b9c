"""The defect browser in a real Chromium, opened from the disk."""

import re
import shutil
from urllib.parse import urlsplit

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from sklearn.metrics import precision_recall_fscore_support

from visa.metrics import image_metrics, pixel_metrics
from visa.report.browser.build import build_browser, levels_of, scale_of

pytestmark = pytest.mark.slow

SET = """const [id, value] = arguments; const control = document.getElementById(id); control.value = value;
for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, {bubbles: true}));"""
READY = "return document.body.dataset.ready"
SETTLED = """const done = arguments[0];
requestAnimationFrame(() => setTimeout(() => visaBrowser.views.settled().then(() => done()), 50))"""
FIGURES = "#sides > :nth-child({0}) .{1} [data-figure], #summary .{1} tr:nth-child({0}) [data-figure]"
STATE = """return [...document.querySelectorAll("select, input")].map((c) => c.id === "truth" ? c.checked : c.value)
  .concat(["main", "#sides", "#detail[open]", "#failure"].map((s) => document.querySelector(s)?.textContent ?? ""))"""
CASE = "#object=fryum&setup=1cls&detector=patchcore&A=simsiam%2Bspd/object/0&B="


class Page:
    """The page as a reader uses it."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get("about:blank")
        browser.get(address)
        WebDriverWait(browser, 20).until(lambda b: b.execute_script(READY))
        self.settle()

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def set(self, **controls):
        for name, value in controls.items():
            self.script(SET, name, value)
            self.settle()

    def settle(self):
        self.browser.execute_async_script(SETTLED)

    def press(self, *keys):
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)
            self.settle()

    def texts(self, selector):
        return self.script("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def names(self):
        return self.script("return [...document.querySelectorAll('#gallery .name')].map((e) => e.title)")

    def figures(self, side, kind):
        entries = "[...document.querySelectorAll(arguments[0])].map((c) => [c.dataset.figure, c.textContent])"
        numbers = self.script(f"return Object.fromEntries({entries})", FIGURES.format(side + 1, kind))
        return {n: float(text.replace(",", "")) for n, text in numbers.items() if text != "–"}

    def slide(self, kind, value):
        slider = f"const slider = document.querySelector('.side .{kind} input'); slider.value = arguments[0];"
        self.script(slider + "slider.dispatchEvent(new Event('input'))", value)
        self.settle()


@pytest.fixture(scope="module")
def built(scored, tmp_path_factory):
    return build_browser(shutil.copytree(scored.run, tmp_path_factory.mktemp("built") / "run"), scored.source)


@pytest.fixture
def page(browser, built):
    """fryum, 1-class, PatchCore, simsiam+spd on side A, in a window of its own size."""
    browser.set_window_size(1300, 900)
    return Page(browser, built.as_uri() + CASE)


@pytest.fixture
def s(scored):
    """The scores of CASE."""
    return scored.scores["fryum", "simsiam+spd", "patchcore"]


def called_at_best(s):
    return s.image_scores >= np.float32(image_metrics(s.image_scores, s.labels)["f1_threshold"])


def expected(truth, called):
    precision, recall, f1, _ = precision_recall_fscore_support(truth, called, average="binary", zero_division=0)
    counts = {"tp": truth & called, "fn": truth & ~called, "fp": ~truth & called, "tn": ~truth & ~called}
    counts = {name: int(which.sum()) for name, which in counts.items()}
    return counts | {"precision": precision, "recall": recall, "f1": f1}


def assert_shown(shown, figures):
    for name, value in figures.items():
        if name in shown or name != "precision":  # a dash where nothing is called anomalous
            assert shown[name] == pytest.approx(value, abs=5.1e-4), name


COLOURS = """const canvas = document.querySelector('#gallery canvas.map');
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
const counts = [0, 0, 0];
for (let i = 0; i < data.length; i += 4) if (data[i + 3]) counts[data[i] < 50 ? 0 : data[i + 1] < 120 ? 1 : 2] += 1;
return counts"""


def test_nothing_is_asked_of_another_machine_no_name_becomes_markup_and_a_phone_has_no_sideways_scroll(
    page, browser, requests_of, built, scored
):
    page.set(model1="simsiam/object/0", object="", mode="decisions")
    page.script("document.querySelector('#gallery .card').click()")
    page.settle()
    requests = requests_of(browser)
    assert built.as_uri() in requests and any("/scored/" in url for url in requests)
    assert {urlsplit(url).scheme for url in requests} <= {"file", "data", "about", "chrome"}
    assert {url: error for url, error in requests.items() if error} == {}
    hostile = [p for p in scored.scores["fryum", "simsiam", "padim"].paths if "injected" in p]
    assert len(hostile) == 3 and set(hostile) <= set(page.names()), "names are text and nothing else"
    assert page.script("return typeof injected") == "undefined"
    assert page.script("return document.querySelectorAll('#gallery b, #gallery script, img[onerror]').length") == 0
    assert "<b onclick" in " ".join(page.texts("#defect option"))
    refused = """return new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
        new Image().src = "http://127.0.0.1:9/asked.png"; setTimeout(done, 5000) })"""
    assert "127.0.0.1" in str(page.script(refused)), "the page itself forbids what leaves the disk"
    assert any(url.startswith("http") for url in requests_of(browser)), "what is tried is seen"
    page.press(Keys.ESCAPE)
    device = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        assert page.script("return document.documentElement.scrollWidth") <= 360
        assert "say nothing about VisA" in page.texts("#synthetic")[0]
        assert page.script("return document.getElementById('synthetic').checkVisibility()")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_opens_on_the_best_detector_of_spd_and_its_baseline_and_a_link_shows_a_case_again(page, built, scored):
    auroc = {key: image_metrics(s.image_scores, s.labels)["auroc"] for key, s in scored.scores.items()}
    both = {(o, d): auroc[o, m, d] + auroc[o, "simsiam", d] for o, m, d in auroc if m == "simsiam+spd"}
    page = Page(page.browser, built.as_uri())
    object, _, detector, *models = (opening := page.script(STATE))[:5]
    assert both[object, detector] == max(both.values()) > min(both.values())
    assert models == ["simsiam+spd/object/0", "simsiam/object/0"] and "differ" in opening and page.names()
    page.press("x")
    page.set(error="all", defect="anomalous", order="ranks", direction="1", mode="decisions", fade="35")
    page.slide("image", 310)
    page.slide("pixel", 30)
    page.script("document.getElementById('truth').click(); document.querySelector('#gallery .card').click()")
    WebDriverWait(page.browser, 5).until(lambda b: "&image=" in b.current_url)
    link, case = page.script("return document.getElementById('link').href"), page.script(STATE)
    assert Page(page.browser, link).script(STATE) == case != opening and page.browser.current_url == link
    page.script("location.hash = '#object=gone&setup=&A=%zz&opacity=no&imageA=x&image=gone'")
    WebDriverWait(page.browser, 5).until(lambda _: page.script(STATE) == opening)
    page = Page(page.browser, built.as_uri() + "#object=pcb1&A=gone/all/0&sort=constructor&imageA=x&pixelA=-9")
    assert len(page.names()) == len(scored.scores["pcb1", "simsiam", "padim"].paths) and page.script(STATE)[-1] == ""


def test_sorting_and_filtering_show_the_right_images_in_order(page, scored, s):
    falling = np.lexsort((s.paths, -s.image_scores.astype(float)))
    assert page.names() == [s.paths[i] for i in falling]
    page.set(direction="1", order="name")
    assert page.names() == sorted(s.paths)
    page.set(order="score0", direction="-1")
    called = called_at_best(s)
    for kind, which in {"missed": ~called & (s.labels == 1), "wrong": called != s.labels}.items():
        page.set(error=kind)
        assert page.names() == [s.paths[i] for i in falling if which[i]] != [], kind
    page.set(error="all", defect="class scratch")
    defects = scored.source.defects("fryum")
    assert page.names() == [s.paths[i] for i in falling if "scratch" in defects.get(s.paths[i], ())]
    page.set(defect="all", order="error")
    threshold = image_metrics(s.image_scores, s.labels)["f1_threshold"]
    error = (threshold - s.image_scores.astype(float)) * np.where(s.labels, 1, -1)
    shown = [s.paths.index(name) for name in page.names()]
    assert np.array_equal(np.round(error[shown], 5), np.round(np.sort(error)[::-1], 5))
    made = " ".join(page.texts("#made"))
    assert "mini-VisA" in made and "patchcore seed 0" in made and re.search(r"scored \d{4}-", made)


def test_metrics_and_verdicts_at_image_thresholds_are_those_of_the_scores(page, s):
    best, shown = image_metrics(s.image_scores, s.labels), page.figures(0, "image")
    assert (shown["f1"], shown["au_pr"]) == pytest.approx((best["f1_max"], best["au_pr"]), abs=5e-4)
    assert float(page.texts(".side output")[0]) == pytest.approx(best["f1_threshold"], rel=1e-3)
    scores = np.array([float(str(score)) for score in s.image_scores])
    for value in (0, 310, 873, 1000):
        page.slide("image", value)
        called = scores >= (np.inf if value == 1000 else scores.min() + np.ptp(scores) * value / 1000)
        assert_shown(page.figures(0, "image"), expected(s.labels == 1, called))
        verdicts = dict(zip(page.names(), page.texts("#gallery .verdict"), strict=True))
        words = {(0, 0): "passed", (0, 1): "false alarm", (1, 0): "missed", (1, 1): "found"}
        assert verdicts == {p: words[y, c] for p, y, c in zip(s.paths, s.labels, called, strict=True)}
    page.script("document.querySelector('.threshold.image [value=best]').click()")
    assert page.figures(0, "image") == shown


def test_metrics_and_decisions_at_pixel_thresholds_are_those_of_the_maps(page, s):
    low, step = scale_of(s.maps)
    truth, maps = s.masks[s.known] == 1, s.maps[s.known]
    quantised, shown = pixel_metrics(levels_of(maps, low, step), truth), page.figures(0, "pixel")
    assert (shown["f1"], shown["au_pr"]) == pytest.approx((quantised["f1_max"], quantised["au_pr"]), abs=5e-4)
    page.set(mode="decisions")
    i = s.paths.index(page.names()[0])
    for k in (30, int(quantised["f1_threshold"]), 140):
        page.slide("pixel", k)
        called = maps >= low + k * step
        assert_shown(page.figures(0, "pixel"), expected(truth.ravel(), called.ravel()) | {"auroc": quantised["auroc"]})
        own, mask = s.maps[i] >= low + k * step, s.masks[i] == 1
        assert page.script(COLOURS) == [int((own & mask).sum()), int((own & ~mask).sum()), int((~own & mask).sum())]
    page.set(setup="2cls_5shot")  # of a detector without maps
    assert page.script("return document.querySelector('.threshold.pixel').hidden")
    outlines = "return [...document.querySelectorAll('#gallery canvas.outline')].some((c) => c.width > 1)"
    assert page.script(outlines)


def test_two_pretrainings_stand_side_by_side_and_all_objects_together(page, scored):
    a, b = (scored.scores["fryum", model, "patchcore"] for model in ("simsiam+spd", "simsiam"))
    assert page.script("return document.querySelectorAll('.side')[1].hidden")
    page.set(model1="simsiam/object/0")
    scores, names = page.texts("#gallery .score"), page.names()
    for side, s in enumerate((a, b)):
        areas = {name: image_metrics(s.image_scores, s.labels)[name] for name in ("auroc", "au_pr")}
        assert_shown(page.figures(side, "image"), expected(s.labels == 1, called_at_best(s)) | areas)
        values = [float(s.image_scores[a.paths.index(name)]) for name in names]
        shown = [float(text.removeprefix("AB"[side] + " ")) for text in scores[side::2]]
        assert shown == pytest.approx(values, rel=1e-3)
    verdicts = np.array(page.texts("#gallery .verdict")).reshape(-1, 2)
    page.set(error="differ")
    assert page.names() == [n for n, (one, other) in zip(names, verdicts, strict=True) if one != other] != []
    page.set(error="all")
    first = page.texts("#gallery .score")[:2]
    page.press("x")
    page.set(order="score1")
    assert page.texts("#gallery .score")[:2] == ["A " + first[1][2:], "B " + first[0][2:]]
    page.press("x")
    page.set(object="", order="object", direction="1")
    every = [a, scored.scores["pcb1", "simsiam+spd", "patchcore"]]
    called = np.concatenate([called_at_best(s) for s in every])  # each at its own threshold
    assert_shown(page.figures(0, "image"), expected(np.concatenate([s.labels == 1 for s in every]), called))
    assert page.names() == sorted(every[0].paths) + sorted(every[1].paths)
    assert not page.script("return document.querySelector('.threshold input').checkVisibility()")


def test_the_keyboard_reaches_everything_and_the_heat_map_fades(page, s):
    names = page.names()
    focused = "return document.activeElement.querySelector?.('.name')?.title"
    page.script("document.querySelector('#gallery .card').focus()")
    for key, at in ((Keys.ARROW_RIGHT, 1), (Keys.END, -1), (Keys.ARROW_LEFT, -2), (Keys.HOME, 0)):
        page.press(key)
        assert page.script(focused) == names[at]
    page.press(Keys.ARROW_DOWN)
    below = names.index(page.script(focused))
    page.press(Keys.ENTER)
    assert below > 1 and page.texts("#detail-name") == [names[below]]
    page.press(Keys.ARROW_RIGHT)
    assert page.texts("#detail-name") == [names[below + 1]]
    page.press(Keys.ESCAPE)
    assert page.script(focused) == names[below + 1], "the focus is where the reader left"
    page.press("+", "-", "-")
    lower = s.image_scores[~called_at_best(s)].max()
    assert_shown(page.figures(0, "image"), expected(s.labels == 1, s.image_scores >= lower))
    before = page.figures(0, "pixel")["tp"]
    page.press("]")
    assert page.figures(0, "pixel")["tp"] < before
    opacity = "document.getAnimations().forEach((a) => a.finish());"
    opacity += "return getComputedStyle(document.querySelector('#gallery canvas.map')).opacity"
    page.set(fade="35")
    assert page.script(opacity) == "0.35"
    page.press("h")
    assert page.script(opacity) == "0"
    for key, control, value in (("d", "mode", "decisions"), ("f", "error", "wrong")):
        page.press(key)
        assert page.script(f"return document.getElementById('{control}').value") == value
    page.press("?")
    assert page.script("return document.getElementById('help').open")


def test_axe_finds_nothing_serious(page, built, axe):
    page = Page(page.browser, built.as_uri())
    assert axe(page.browser) == []
    assert axe(page.browser, "dark", ["color-contrast"]) == [], "in the dark theme"
