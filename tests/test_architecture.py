"""The architecture: imports go one way, stages stay apart, and what must be light is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import visa
from visa.detect import DETECTORS
from visa.pipeline import DEFAULT_DETECTORS, PRETRAININGS
from visa.pretrain import METHODS

PACKAGE = Path(visa.__file__).parent
LEVELS = [
    ("errors",),
    ("paths",),
    ("provenance", "mini"),
    ("data", "backbone", "metrics"),
    ("detect", "runs", "export"),
    ("pretrain",),
    ("report",),
    ("notebook", "pipeline"),
    ("execute",),
    ("cli",),
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}


def imports(file):
    """Modules of visa that a file imports, as dotted paths without `visa.`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{a.name}" for a in node.names if node.module == "visa"]
        found |= {n.removeprefix("visa.") for n in names if n.startswith("visa.")}
    return found


def part(module):
    return module.split(".")[0]


USED = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): imports(file)
    for file in sorted(PACKAGE.rglob("*.py"))
    if file != PACKAGE / "__init__.py"
}


def test_imports_go_one_way():
    for name, used in USED.items():
        for other in used - {"__version__"}:
            assert part(other) == part(name) or LEVEL[part(other)] < LEVEL[part(name)], f"{name} imports {other}"


def test_detect_and_pretrain_meet_only_at_a_file_and_formulas_and_renderer_stand_alone():
    apart = {"detect": {"pretrain"}, "pretrain": {"detect"}}
    for name, used in USED.items():
        others = {part(other) for other in used} - {part(name)}
        assert not others & apart.get(part(name), set()), f"{name} imports {used}"
        alone = {"metrics": {"errors"}, "mini": set()}
        assert others <= alone.get(part(name), others), f"{name} imports {used}"


def test_no_module_is_long():
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 500, file.name


@pytest.mark.slow
def test_planning_reporting_and_help_do_without_torch_and_a_plain_run_without_dask():
    light = ("pipeline", "execute", "cli", "report.tables", "report.figures", "report.browser.build", "mini")
    code = "import sys, " + ", ".join(f"visa.{name}" for name in light)
    heavy = {"torch", "dask", "distributed", "fsspec"}
    subprocess.run([sys.executable, "-c", f"{code}; assert not {heavy} & set(sys.modules), {heavy}"], check=True)


def test_methods_and_detectors_are_read_from_their_tables():
    assert set(PRETRAININGS) == {"random", "given", *METHODS, *(f"{m}+spd" for m in METHODS)} - {"auxiliary"}
    assert set(DEFAULT_DETECTORS) <= set(DETECTORS)
    names = {f'"{name}"' for name in (*METHODS, *DETECTORS)}
    for file in (PACKAGE / "pipeline.py", PACKAGE / "execute.py", PACKAGE / "cli.py"):
        listed = [line for line in file.read_text().splitlines() if sum(name in line for name in names) > 1]
        assert not listed, f"{file.name} names methods or detectors besides the tables: {listed}"
