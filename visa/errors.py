"""The one error that is meant for the user."""

from collections.abc import Iterable
from difflib import get_close_matches


class VisaError(Exception):
    """A mistake the user can mend, told in one sentence: what, where, what to do.

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
