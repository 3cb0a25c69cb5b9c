"""The first call of every notebook: check its parameters, open data and run, and show the banner."""

import ast
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from IPython.display import HTML, display

from visa.data.source import Source, open_source
from visa.errors import VisaError, check_choice
from visa.paths import named_path
from visa.runs import Run, open_run

BANNER = (
    '<div class="mini-visa-banner" style="border-left:4px solid #b35900;padding:.4em .8em">'
    "<b>Synthetic data.</b> This page was computed on mini-VisA, rendered images that stand in for VisA. "
    "Its numbers show that everything runs; they say nothing about VisA or the paper.</div>"
)

Choices = Iterable[str] | range
_FILES = ("weights", "pretrain_root")  # parameters that name a file or folder, which must exist


def start(**choices: Choices) -> tuple[Source, Run]:
    """Check the notebook's parameters, open its data set and run, and show a banner if the data are synthetic.

    The calling notebook's annotations name its parameters and their types; `choices` lists the values that a parameter
    may take, as texts or a range of whole numbers. Raises VisaError at the first mistake.
    """
    namespace = sys._getframe(1).f_globals  # a parameter may hide the notebook's `globals`
    check_parameters(namespace, choices)
    named = str(namespace.get("object", namespace.get("objects", "")))
    names = [name.strip() for name in named.split(",") if named and name.strip() != "all"]  # all: every object
    source = open_source(namespace.get("visa_root", ""), names)
    for name in names:
        source.check_object(name)
    if source.synthetic:
        display(HTML(BANNER))  # type: ignore[no-untyped-call]
    return source, open_run(namespace.get("run", ""), source)


def check_parameters(namespace: Mapping[str, Any], choices: Mapping[str, Choices]) -> None:
    """Raise VisaError for an injected name that is not a parameter, a wrong type or choice, or a missing file."""
    types = dict(namespace.get("__annotations__", {}))
    inputs = namespace.get("In", [])
    if not isinstance(inputs, list):
        raise VisaError("this notebook has no parameter 'In'.")
    for name in _injected(inputs):
        if name not in types:
            near = get_close_matches(name, types, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise VisaError(f"this notebook has no parameter {name!r}: it has {', '.join(types)}.{hint}")
    for name, kind in types.items():
        value = namespace[name]
        if not _fits(value, kind):
            raw = f" (papermill -r {name} VALUE passes text)" if kind is str else ""
            raise VisaError(
                f"parameter {name!r} is {_short(value)}, of type {type(value).__name__}: give {kind.__name__}{raw}."
            )
    for name, allowed in choices.items():
        if not isinstance(allowed, range):
            check_choice(name, namespace[name], allowed)
        elif namespace[name] not in allowed:
            least, most = allowed[0], allowed[-1]
            raise VisaError(f"{name} is {_short(namespace[name])}: give a whole number from {least} to {most}.")
    for name in _FILES:
        if namespace.get(name) and not named_path(namespace[name]).exists():
            raise VisaError(f"{name} is {_short(namespace[name])}, which is not there: check the path.")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _injected(inputs: Iterable[str]) -> list[str]:
    """Names set by the cells that papermill injects, which begin with `# Parameters`."""
    cells = [ast.parse(cell) for cell in inputs if cell.startswith("# Parameters")]
    statements = [s for cell in cells for s in cell.body if isinstance(s, ast.Assign)]
    return [target.id for s in statements for target in s.targets if isinstance(target, ast.Name)]


def _fits(value: object, kind: type) -> bool:
    if kind is float:  # neither NaN nor infinite, nor a whole number beyond any float
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
