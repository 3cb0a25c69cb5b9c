"""Names are spelled one way wherever a reader meets them: in the book, the notebooks and the files at the top."""

import json
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
NAMES = (
    *("VisA", "mini-VisA", "SPD", "SPot-the-Difference", "SmoothBlend", "CutPaste"),
    *("SimSiam", "MoCo", "MoCo v2", "SimCLR", "PaDiM", "PatchCore", "U-Net"),
    *("ResNet-18", "ResNet-50", "Wide ResNet-50", "EfficientNet-Lite0", "ImageNet", "MVTec"),
    *("AU-ROC", "AU-PR", "AU-PRO", "F1-max", "PyTorch", "scikit-learn", "JupyterLab", "GitHub", "WebDataset"),
)
CODE = re.compile(
    r"```(?!\{(?:admonition|figure|math)).*?```|(`+).+?\1|\{[\w:]+\}|\]\([^)]*\)|<[^>]+>|^:\w+:.*?$|"
    r"https?://\S+|@\w+\{.*?^\}|\$[^$]+\$|\"\w+\":.*?$",
    re.S | re.M,
)
TEXTS = [
    *sorted((REPO / "book").glob("*.md")),
    *sorted((REPO / "notebooks").glob("*.ipynb")),
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]


def variants(name: str) -> re.Pattern[str]:
    """The name in any case, with other joints or none."""
    parts = re.findall(r"[A-Za-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    return re.compile(rf"(?<![\w./+-]){r'[ -]?'.join(parts)}(?![\w/+=])", re.I)


def misspelled(text: str) -> list[str]:
    """Every spelling of a name that is not the name; a sentence may begin with a capital."""
    plain = CODE.sub(" ", text)
    right = {*NAMES, *(name[0].upper() + name[1:] for name in NAMES), "visa"}  # the command and the package
    found = [match.group() for name in NAMES for match in variants(name).finditer(plain)]
    return sorted({" ".join(word.split()) for word in found} - right)


def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_names_are_spelled_one_way(path):
    assert misspelled(text_of(path)) == []
