"""Count lines, files, statements and docstring words of the project: the tables of book/architecture.md.

python tests/count_house.py [REV]     the work tree, or a revision of git
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = {
    "visa without mini": lambda name: name.startswith("visa/") and not name.startswith(MINI),
    "visa/mini": lambda name: name.startswith(MINI),
    "tests": lambda name: name.startswith("tests/"),
    "book/_ext": lambda name: name.startswith("book/_ext/"),
    "benchmarks": lambda name: name.startswith("benchmarks/"),
}
MINI = ("visa/mini/", "visa/data/synthetic/")  # version 1 had it below data
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout


def sources(revision: str) -> Iterator[tuple[str, str]]:
    """Name and text of each Python file of a revision; of the work tree where it is empty."""
    names = git("ls-tree", "-r", "--name-only", revision) if revision else git("ls-files", "-co", "--exclude-standard")
    for name in sorted(set(names.splitlines())):
        if name.endswith(".py") and (revision or (ROOT / name).is_file()):
            yield name, git("show", f"{revision}:{name}") if revision else (ROOT / name).read_text(encoding="utf-8")


def count(text: str) -> tuple[int, int, int]:
    """Lines as `wc -l` counts them, statements without docstrings, words of docstrings."""
    nodes = list(ast.walk(ast.parse(text)))
    documents = [d for node in nodes if isinstance(node, DOCUMENTED) and (d := ast.get_docstring(node))]
    statements = sum(isinstance(node, ast.stmt) for node in nodes) - len(documents)
    return text.count("\n"), statements, sum(len(d.split()) for d in documents)


def main(revision: str = "") -> None:
    counts = [(name, count(text)) for name, text in sources(revision)]
    print("| part | lines | files | statements | docstring words |\n| --- | --- | --- | --- | --- |")
    for part, holds in PARTS.items():
        found = [numbers for name, numbers in counts if holds(name)]
        lines, statements, words = (sum(column) for column in zip(*found, strict=True)) if found else (0, 0, 0)
        print(f"| {part} | {lines:,} | {len(found)} | {statements:,} | {words:,} |")


if __name__ == "__main__":
    main(*sys.argv[1:2])
