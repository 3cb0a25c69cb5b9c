"""Fixtures: a small mini-VisA, each test's own environment, the real data if named, the built book, a browser."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[1]
AXE = REPO / "node_modules" / "axe-core" / "axe.min.js"
RUN_AXE = """
const [rules, done] = arguments;
const only = rules ? {runOnly: {type: "rule", values: rules}} : {};
axe.run(document, {resultTypes: ["violations"], ...only}).then(result => done(result.violations
  .filter(v => ["serious", "critical"].includes(v.impact))
  .flatMap(v => v.nodes.map(n => `${v.id}: ${n.target} ${n.html.slice(0, 120)}`))));
"""
MADE = ("_build", "notebooks", "generated", "__pycache__")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side, on tiny inputs


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's data or writes among their runs."""
    monkeypatch.delenv("VISA_ROOT", raising=False)
    monkeypatch.setenv("VISA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VISA_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def mini_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mini-VisA of pcb1 and fryum, 40 normal and 12 anomalous images each, 96 px: read it, never write to it."""
    from visa.mini.writer import write_mini_visa

    root = tmp_path_factory.mktemp("mini") / "VisA"
    write_mini_visa(root, objects=("pcb1", "fryum"), normal=40, anomaly=12, size=96, workers=1)
    return root


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The real VisA root that `VISA_TEST_ROOT` names; skips where it names none."""
    return _named_folder("VISA_TEST_ROOT")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The recorded outputs of VisA's own tools that `VISA_TEST_REFERENCE` names; skips where it names none."""
    return _named_folder("VISA_TEST_REFERENCE")


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of a clone without data and runs, built from another folder."""
    clone, elsewhere = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(REPO / "book", clone / "book", symlinks=True, ignore=shutil.ignore_patterns(*MADE))
    for name in ("_config.yml", "CITATION.cff"):
        shutil.copy(REPO / name, clone)
    for name in ("visa", "notebooks", "benchmarks"):
        shutil.copytree(REPO / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    build = [str(Path(sys.executable).with_name("jupyter-book")), "build", f"{clone}/book", "-W", "-n", "--keep-going"]
    env = os.environ | {"VISA_RUNS": str(elsewhere / "runs"), "VISA_DATA": str(elsewhere / "data"), "VISA_ROOT": ""}
    done = subprocess.run(build, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pages = clone / "book" / "_build" / "html"
    assert (pages / "index.html").is_file()
    return pages


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium that logs every request; skips where there is none."""
    selenium = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium with chromedriver on the PATH")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", profile, *quiet):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    chrome = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    chrome.get("about:blank")
    chrome.get_log("performance")  # what the browser's own start page asked for
    yield chrome
    chrome.quit()


@pytest.fixture(scope="session")
def requests_of() -> Callable[[Any], dict[str, str]]:
    """A function: every address that a browser requested since the last call, and the error where it failed."""

    def found(browser: Any) -> dict[str, str]:
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        params = {
            kind: {m["params"]["requestId"]: m["params"] for m in messages if m["method"] == f"Network.{kind}"}
            for kind in ("requestWillBeSent", "loadingFailed")
        }
        failed = {key: p["errorText"] for key, p in params["loadingFailed"].items()}
        return {p["request"]["url"]: failed.get(key, "") for key, p in params["requestWillBeSent"].items()}

    return found


@pytest.fixture(scope="session")
def axe() -> Callable[..., list[str]]:
    """A function: what axe-core calls serious on a browser's page in a colour scheme, by all rules or those named."""
    if not AXE.is_file():
        pytest.skip("no axe-core: make axe (needs npm)")

    def found(browser: Any, scheme: str = "light", rules: list[str] | None = None) -> list[str]:
        browser.set_script_timeout(120)
        browser.execute_script(AXE.read_text(encoding="utf-8"))
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        try:
            return browser.execute_async_script(RUN_AXE, rules)
        finally:
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    return found


def _named_folder(variable: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no folder")
    return Path(os.environ[variable])
