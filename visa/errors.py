"""The error that reports a user's mistake, and checks of the user's input."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class VisaError(Exception):
    """A mistake that the user can fix; its message is one sentence that says what is wrong, where, and what to do.

    The command line prints the sentence and exits with 2; a notebook shows the sentence in place of a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def check_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Raise VisaError, listing the choices, unless `value` is one of them."""
    names = list(choices)
    if value in names:
        return
    near = get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = value if not isinstance(value, str) or len(value) <= 60 else f"{value[:57]}..."
    raise VisaError(f"unknown {what} {shown!r}: choose one of {', '.join(names)}.{hint}")


def named_values(pairs: Iterable[str] | None) -> dict[str, object]:
    """Read `NAME=VALUE` pairs, each value as bool, int or float if it is one; raises VisaError if `=` is missing."""
    found: dict[str, object] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals:
            raise VisaError(f"{pair!r} is not of the form NAME=VALUE, as in epochs=20.")
        found[name.strip()] = _literal(text.strip())
    return found


def _literal(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_values(values: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    """Raise VisaError for a name that `defaults` lacks, or a value of another type than the default's."""
    for name, value in values.items():
        check_choice("setting", name, defaults)
        kind = type(defaults[name])
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or isinstance(value, bool) != (kind is bool):
            raise VisaError(f"setting {name!r} is {value!r}, of type {type(value).__name__}: give {kind.__name__}.")
