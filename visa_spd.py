"""Entry of the `visa` command: starts the companion, and names an instrument library of the same name."""

import importlib.util
import sys
from pathlib import Path

OURS = Path(__file__).resolve().parent / "visa" / "__init__.py"


def shadowing_visa() -> str | None:
    """The file that `import visa` would load, if it is not this project's package."""
    spec = importlib.util.find_spec("visa")
    origin = spec.origin if spec else None
    if origin and Path(origin).resolve() != OURS and not Path(origin).with_name("errors.py").is_file():
        return origin
    return None


def instrument_distributions() -> list[str]:
    """Installed distributions that bring an instrument module `visa` of their own (`visa`, PyVISA before 1.11)."""
    listed = (file.name.lower() for folder in map(Path, sys.path) if folder.is_dir() for file in folder.iterdir())
    if not any(name.startswith(("visa-", "visa.", "pyvisa-", "pyvisa.")) for name in listed):
        return []  # known in a tenth of the time that the next line takes
    from importlib.metadata import distributions

    found = []
    for name in ("visa", "pyvisa"):
        for dist in distributions(name=name):
            if name == "visa" or any(str(f) == "visa.py" for f in dist.files or ()):
                found.append(f"{name} {dist.version}")
    return sorted(set(found))


def main() -> None:
    """Run the command line, or say in one sentence which other `visa` is in the way."""
    other = shadowing_visa()
    rivals = instrument_distributions()
    named = f" (it comes with {', '.join(rivals)})" if rivals else ""
    if other:
        sys.exit(
            f"visa: `import visa` finds the instrument module {other}{named}, not the VisA companion: "
            "uninstall it or use a virtual environment of its own (make reproduce makes one)."
        )
    if rivals:
        print(f"visa: {', '.join(rivals)} also claims the name visa; a fresh virtual environment keeps them apart.")

    from visa.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
