"""Make a PDF of the book: Sphinx writes all pages into one, Chromium prints it, so that links and formulas survive.

python book/_ext/pdf.py     writes book/_build/pdf/visa.pdf
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from visa.errors import VisaError
from visa.paths import written_whole

BOOK = Path(__file__).resolve().parents[1]
OUT = BOOK / "_build" / "pdf"
PRINT = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
    *("--no-pdf-header-footer", "--generate-pdf-document-outline", "--virtual-time-budget=60000"),
)


def main() -> None:
    """Write the page of all pages, then print it, once formulas and pictures are there.

    Raises VisaError where Chromium is absent, and where it or the book's build fails.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        raise VisaError("a PDF needs Chromium on the PATH (apt-get install chromium).")
    page = one_page(OUT)
    with tempfile.TemporaryDirectory() as profile, written_whole(OUT / "visa.pdf") as partial:
        command = [browser, *PRINT, f"--user-data-dir={profile}", f"--print-to-pdf={partial}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not partial.is_file():
            raise VisaError(f"{browser} made no PDF: {done.stderr.strip()[-500:]}")
    print(OUT / "visa.pdf")


def one_page(folder: Path) -> Path:
    """Build the book below `folder` as one HTML page, without the API: long, and of use beside the code alone."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    for chapter in (chapter for part in toc["parts"] for chapter in part["chapters"] if "sections" in chapter):
        chapter["sections"] = [page for page in chapter["sections"] if not page["file"].startswith("api/")]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    options = ["--builder", "singlehtml", "--path-output", str(folder), "--toc", str(folder / "_toc.yml"), "-q"]
    command = [Path(sys.executable).with_name("jupyter-book"), "build", BOOK, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    page = folder / "_build" / "singlehtml" / f"{toc['root']}.html"
    if done.returncode or not page.is_file():
        raise VisaError(f"jupyter-book made no page: {done.stderr.strip()[-500:]}")
    return page


if __name__ == "__main__":
    try:
        main()
    except VisaError as error:
        raise SystemExit(f"pdf: {error}") from error
