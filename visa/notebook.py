"""What every notebook starts with: its parameters checked, data and run opened, the banner shown."""

import ast
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from IPython.display import HTML, display

from visa.data.source import Source, open_source
from visa.errors import VisaError, check_choice
from visa.runs import Run, open_run

BANNER = (
    '<div class="mini-visa-banner" style="border-left:4px solid #b35900;padding:.4em .8em">'
    "<b>Synthetic data.</b> This page was computed on mini-VisA, rendered images that stand in for VisA. "
    "Its numbers show that everything runs; they say nothing about VisA or the paper.</div>"
)


def start(namespace: Mapping[str, Any], **choices: Iterable[str]) -> tuple[Source, Run]:
    """Check the notebook's parameters, open its data set and run, and show a banner if the data are synthetic.

    `namespace` is the notebook's `globals()`, in which annotations name the parameters and their types; `choices`
    lists the values that a parameter may take. Raises VisaError, in one sentence, at the first mistake.
    """
    check_parameters(namespace, choices)
    named = str(namespace.get("object", namespace.get("objects", "")))
    names = [name.strip() for name in named.split(",")] if named else []
    names = [name for name in names if name != "all"]  # all: those at hand
    source = open_source(namespace.get("visa_root", ""), names)
    for name in names:
        source.check_object(name)
    if source.synthetic:
        display(HTML(BANNER))  # type: ignore[no-untyped-call]
    return source, open_run(namespace.get("run", ""), source)


def check_parameters(namespace: Mapping[str, Any], choices: Mapping[str, Iterable[str]]) -> None:
    """Raise VisaError for an injected name that is no parameter, a wrong type, or a value that is no choice."""
    types = dict(namespace.get("__annotations__", {}))
    for name in _injected(namespace.get("In", [])):
        if name not in types:
            near = get_close_matches(name, types, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise VisaError(f"this notebook has no parameter {name!r}: it has {', '.join(types)}.{hint}")
    for name, kind in types.items():
        value = namespace[name]
        if not _fits(value, kind):
            raw = f" (papermill -r {name} VALUE passes text)" if kind is str else ""
            raise VisaError(
                f"parameter {name!r} is {value!r}, of type {type(value).__name__}: give {kind.__name__}{raw}."
            )
    for name, allowed in choices.items():
        check_choice(name, namespace[name], allowed)


def _injected(inputs: Iterable[str]) -> list[str]:
    """Names set by the cells that papermill injects, which begin with `# Parameters`."""
    cells = [ast.parse(cell) for cell in inputs if cell.startswith("# Parameters")]
    statements = [s for cell in cells for s in cell.body if isinstance(s, ast.Assign)]
    return [target.id for s in statements for target in s.targets if isinstance(target, ast.Name)]


def _fits(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
