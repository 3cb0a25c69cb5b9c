"""What the text of the command line's options stands for."""

from collections.abc import Sequence

from visa.errors import VisaError, check_choice


def parts(text: str) -> list[str]:
    """What commas separate."""
    return [part.strip() for part in text.split(",") if part.strip()]


def object_names(objects: str) -> list[str] | None:
    """Names of objects, each once; None for all; VisaError for none."""
    names = None if objects == "all" else list(dict.fromkeys(parts(objects)))
    if names == []:
        raise VisaError("no object is given: name objects separated by commas, or all.")
    return names


def chosen(what: str, text: str, choices: Sequence[str]) -> list[str]:
    """Some of the choices, as they are named; VisaError for none, or for another."""
    names = parts(text)
    if not names:
        raise VisaError(f"no {what} is given: choose of {', '.join(choices)}.")
    for value in names:
        check_choice(what, value, choices)
    return names


def number(what: str, text: str) -> int:
    """A whole number; else VisaError."""
    try:
        return int(text)
    except ValueError:
        raise VisaError(f"{what} {text!r} is no whole number.") from None


def parse_settings(pairs: Sequence[str] | None) -> dict[str, object]:
    """`NAME=VALUE` pairs as a dictionary, each value a bool, int or float if it reads as one; else VisaError."""
    settings: dict[str, object] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals:
            raise VisaError(f"{pair!r} is not of the form NAME=VALUE, as in epochs=20.")
        settings[name] = _literal(text)
    return settings


def _literal(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
