"""The defect browser in Chromium: time from an input to the picture that answers it. Goal: 300 ms with 500 images.

    python benchmarks/browser.py --out runs/benchmarks/browser.json
    python benchmarks/browser.py --page runs/mini-visa/browser/index.html    # of a run

Measured in the page: from just before the input event until all maps in sight are drawn and the frame that holds them
has been painted. Each input takes its turn `--repeats` times, and each time it changes something. `first` is the first
time, when a pre-training's maps are still on the disk; `cpu` is the median CPU time of the page's main thread, which
does not depend on what else the machine does. Without --page, a run of made-up images and scores is written
to a temporary folder. Needs chromium and chromedriver on the PATH.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from visa.data.source import Source
from visa.detect.scores import EVALUATION_SIZE, Scores, save_scores
from visa.errors import VisaError
from visa.provenance import machine
from visa.report.browser.build import build_browser

GOAL_MS = 300
MODELS, DETECTORS = ("simsiam", "simsiam+spd"), ("padim", "patchcore")
TIMED = """const [act, argument, done] = arguments;
const set = (id, value, kind = "change") => {
  const control = document.getElementById(id);
  control.value = value;
  control.dispatchEvent(new Event(kind, {bubbles: true}));
};
const next = (id) => set(id, [...document.getElementById(id).options].map((o) => o.value)
  .filter((v) => v !== "")[argument % [...document.getElementById(id).options].filter((o) => o.value !== "").length]);
const slide = (kind, value) => {
  const slider = document.querySelector(`.threshold.${kind} input`);
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
};
const start = performance.now();
new Function("set", "next", "slide", "k", act)(set, next, slide, argument);
const painted = () => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => done(performance.now() - start);
  channel.port2.postMessage(0);
});
requestAnimationFrame(() => setTimeout(async () => { await visaBrowser.views.settled(); painted(); }, 0));
"""
INPUTS = {  # what a reader does: what is done the k-th time
    "sort": "next('order')",
    "filter by defect": "next('defect')",
    "filter by error": "next('error')",
    "image threshold": "set('error', 'all'); slide('image', 200 + 37 * k)",
    "image threshold, errors alone": "if (k % 2) set('error', 'wrong'); slide('image', 200 + 37 * k)",
    "pixel threshold, decisions": "set('error', 'all'); set('mode', 'decisions'); slide('pixel', 60 + 7 * k)",
    "heat map on, off": "set('mode', k % 2 ? 'heat' : 'none')",
    "fade": "set('fade', 10 * (k % 10), 'input')",
    "side by side on, off": "set('mode', 'heat'); set('model1', k % 2 ? '' : '0')",
    "other detector": "next('detector')",
    "open large": "document.querySelectorAll('.card')[k].click()",
    "next image": "document.getElementById('next').click()",
}


def write_run(folder: Path, count: int) -> Path:
    """A run with `count` images, two pre-trainings and two detectors; returns its browser's page."""
    rng = np.random.default_rng(0)
    paths = [f"part/Data/Images/{i:04}.JPG" for i in range(count)]
    masks = np.zeros((count, *EVALUATION_SIZE), np.uint8)
    noise = rng.random((32, *EVALUATION_SIZE)).astype(np.float32)
    base = np.stack([cv2.GaussianBlur(one, (0, 0), 6) for one in noise]) * 8 - 3
    for i, path in enumerate(paths):
        file = folder / "VisA" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(pixels).save(file, "JPEG")
        if i % 2:
            x, y = rng.integers(10, 180, 2)
            cv2.circle(masks[i], (int(x), int(y)), 14, 1, -1)
    labels, known = (np.arange(count) % 2).astype(np.uint8), np.ones(count, bool)
    rows = [f"{p},{('dent', 'scratch', 'stain')[i % 3] if i % 2 else 'normal'}," for i, p in enumerate(paths)]
    table = "\n".join(["image,label,mask", *rows, ""])
    (folder / "VisA" / "part" / "image_anno.csv").write_text(table, encoding="utf-8")
    for model in MODELS:
        for detector in DETECTORS:
            shift = rng.integers(0, 200, count)
            maps = np.stack([np.roll(base[i % 32], shift[i], 1) + masks[i] * rng.random() for i in range(count)])
            maps = maps.astype(np.float16).astype(np.float32)
            scores = Scores(paths, labels, maps.max((1, 2)), maps, masks, known, "1cls", "part", detector)
            save_scores(folder / f"run/scores/part/{model}/part/seed0/1cls/{detector}/draw0/scores.npz", scores)
    return build_browser(folder / "run", Source(folder / "VisA", "made up", True, ("part",)))


def open_chromium(profile: str):
    from selenium import webdriver

    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (chromium and driver):
        raise VisaError("there is no chromium with chromedriver on the PATH: install both.")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000", "--no-first-run"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def measured(browser, page: Path, repeats: int) -> tuple[int, list[dict[str, object]]]:
    """How many images the page has, and milliseconds of each input."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.set_script_timeout(60)
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    browser.get(page.resolve().as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.body.dataset.ready"))
    browser.execute_async_script(TIMED, "", 0)
    images = browser.execute_script("return document.querySelectorAll('#gallery li').length")
    rows = []
    for name, act in INPUTS.items():
        times, cpu = [], []
        for k in range(repeats):
            before = busy(browser)
            times.append(browser.execute_async_script(TIMED, act, k))
            cpu.append(1000 * (busy(browser) - before))
            if name == "open large":
                browser.execute_script("document.getElementById('detail').close()" if k + 1 < repeats else "")
        median, longest = statistics.median(times), max(times)
        rows.append(
            {"input": name, "first_ms": times[0], "median_ms": median, "longest_ms": longest}
            | {"cpu_ms": statistics.median(cpu)}
        )
    return images, rows


def busy(browser) -> float:
    """CPU seconds of the page's main thread."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="index.html of a browser; default: one that is made up")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = args.page or write_run(Path(folder), args.images)
        browser = open_chromium(f"{folder}/profile")
        try:
            images, rows = measured(browser, page, args.repeats)
            version = browser.capabilities["browserVersion"]
        finally:
            browser.quit()
    print(f"{images} images, Chromium {version}; milliseconds from input to picture, goal {GOAL_MS}")
    for row in rows:
        numbers = "  ".join(f"{name.removesuffix('_ms')} {row[name]:6.0f}" for name in row if name != "input")
        print(f"  {row['input']:32}{numbers}{'' if row['longest_ms'] <= GOAL_MS else '  over the goal'}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"images": images, "chromium": version, "goal_ms": GOAL_MS, "rows": rows, "machine": machine()}
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
