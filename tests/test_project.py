"""The files around the package agree with each other."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import visa
import visa_spd

ROOT = Path(visa.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_constraints_and_conda_fit_the_project():
    pinned = {canonicalize_name(name): version for name, version in constraints().items()}
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    for text in PROJECT["dependencies"] + extras:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, text
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python {PROJECT['requires-python']}" in conda and pip["pip"] == ["-c constraints.txt", "-e ."]


def test_what_the_package_imports_is_declared():
    extras = PROJECT["optional-dependencies"]
    texts = (*PROJECT["dependencies"], *extras["cluster"], *extras["s3"])
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    homes, absent = importlib.metadata.packages_distributions(), set()
    for file in (ROOT / "visa").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for module in {name.partition(".")[0] for name in names} - {"visa", *sys.stdlib_module_names}:
                if not declared & {canonicalize_name(home) for home in homes[module]}:
                    absent.add(f"{module} in {file.name}")
    assert not absent


def test_distribution_version_and_citation_agree():
    assert importlib.metadata.version("visa-spd") == visa.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == visa.__version__ and citation["license"] == PROJECT["license"]
    assert visa.__version__.partition(".dev")[0] in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_names_real_commands_and_files():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\bmake (\w+)", text):
        if target not in ("no",):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) or target == "and", target
    for path in re.findall(r"\]\(((?!http)[^)]+)\)|(notebooks/\S+\.ipynb)", text):
        assert (ROOT / (path[0] or path[1])).exists(), path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_clean_and_parameterised(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(not c.outputs and c.execution_count is None for c in code)
    assert notebook.metadata.kernelspec.name == "python3"
    assert code[0].metadata.tags == ["parameters"] and "notebook.start(" in code[1].source
    assert "assert " in code[-1].source, "a notebook ends in assertions"
    assert 4 <= len(code) <= 20
    assert not re.search(r"/(home|root|tmp|Users)/", json.dumps(notebook)), "no path of a machine"


def test_results_hold_no_path_of_a_machine():
    files = [f for f in (ROOT / "book" / "results").rglob("*") if f.suffix in (".json", ".csv")]
    assert files
    for file in files:
        assert not re.search(r"/(home|root|tmp|Users|work|mnt)/", file.read_text(encoding="utf-8")), file


def test_an_instrument_library_of_the_same_name_is_named(tmp_path, monkeypatch):
    (tmp_path / "visa.py").write_text("# an instrument library\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import visa_spd; visa_spd.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(tmp_path / "visa.py") in done.stderr and "uninstall" in done.stderr
    assert visa_spd.shadowing_visa() is None
    (tmp_path / "visa-1.0.dist-info").mkdir()
    (tmp_path / "visa-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: visa\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert visa_spd.instrument_distributions() == ["visa 1.0"]
