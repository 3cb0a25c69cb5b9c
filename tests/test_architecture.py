"""The house: imports go one way, stages stay apart, and what must be light is light."""

import ast
import subprocess
import sys
from pathlib import Path

import visa

PACKAGE = Path(visa.__file__).parent
LEVELS = [
    ("errors",),
    ("paths", "cli_text"),
    ("provenance",),
    ("storage",),
    ("data", "backbone", "metrics", "kernel", "model_card"),
    ("detect", "runs", "export"),
    ("pretrain",),
    ("report",),
    ("notebook", "plan"),
    ("runner", "cli_pretrain"),
    ("schedule", "forecast"),
    ("cluster",),
    ("cli_score",),
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
    return {"mini": "data"}.get(module.split(".")[0], module.split(".")[0])


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        if name != "__init__":
            yield name, imports(file)


def test_imports_go_one_way():
    for name, used in modules():
        for other in used:
            assert part(other) == part(name) or LEVEL[part(other)] < LEVEL[part(name)], f"{name} imports {other}"


def test_detect_and_pretrain_meet_only_at_a_file():
    for name, used in modules():
        apart = {"detect": "pretrain", "pretrain": "detect"}.get(part(name))
        assert apart is None or not any(part(o) == apart for o in used), name


def test_formulas_import_nothing_of_the_project_but_the_error():
    for name, used in modules():
        if part(name) == "metrics" or name == "pretrain.augment":
            assert {u for u in used if part(u) != "metrics"} <= {"errors"}, f"{name} imports {used}"


def test_no_module_is_long():
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 500, file.name


def test_planning_reporting_and_help_do_without_torch():
    light = ("plan", "runner", "schedule", "forecast", "cluster", "cli")
    light += ("report.tables", "report.figures", "report.browser.build")
    light += ("mini.writer",)
    code = "import sys, " + ", ".join(f"visa.{name}" for name in light)
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)


def test_a_run_in_one_process_needs_no_dask_and_local_folders_no_fsspec():
    code = "import sys, visa.cluster, visa.data.source; assert not {'dask', 'distributed', 'fsspec'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
