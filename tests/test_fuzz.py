"""Any name, type and value for a notebook's parameters or a command's option ends in one sentence, or starts well."""

import contextlib
import io
import json
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_command

from visa import cli, notebook
from visa.backbone import create_backbone, save_weights
from visa.errors import VisaError
from visa.paths import CHECKOUT, runs_root

NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
# What people type, and what an enemy would.
TEXTS = ("", "all", "fryum", "pcb1", "fryum,pcb1", "fryum,,", " fryum", "random", "simsiam+spd", "supervised", "1cls")
TEXTS += ("padim", "0,1,2", "0,a", "auto", "cuda", "cuda:9999999999", "meta", "cosine", "lars", "resnet18_half")
TEXTS += ("timm/nothing", "../../etc", "/etc/passwd", "~nobody-of-this-name", "a\0b", "\udcff", "\n", "$(reboot)")
TEXTS += ("<script>alert(1)</script>", 300 * "x", 5000 * "ä", "nan", "%s{0}", "con", ".", "..", "run name", "-1")
VALUES = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=20),
    st.integers(-3, 20),
    st.sampled_from([10**30, -(10**30), 2**31, 2**63, 10**400]),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
)


@pytest.fixture
def ready(mini_root, monkeypatch):
    """mini-VisA, with weights where notebook 4 looks for those of its own defaults."""
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    folder = runs_root() / "mini-visa/pretrain/simsiam+spd/pcb1/seed0"
    save_weights(create_backbone("resnet18"), folder / "backbone.safetensors", {})
    (folder.parents[3] / "run.json").write_text(json.dumps({"dataset": "mini-VisA", "synthetic": True, "format": 2}))


def cells(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]


def begin(path: Path, injected: dict[str, object]) -> str:
    """Run a notebook's first two cells as its kernel would; returns the sentence it stops with, or nothing."""
    parameters, first, *_ = cells(path)
    names: dict[str, object] = {}
    exec(parameters, names)  # noqa: S102
    lines = "".join(f"{name} = None\n" for name in injected if name.isidentifier())
    names |= {"In": ["", parameters, f"# Parameters\n{lines}"], **injected}
    try:
        exec(first, names)  # noqa: S102
    except VisaError as error:
        return str(error)
    return ""


def one_sentence(text: str) -> None:
    assert "\n" not in text and len(text) < 2500 and text.endswith((".", "?"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_any_value_of_a_parameter_starts_a_notebook_or_ends_in_a_sentence(path, ready, capsys):
    types: dict[str, object] = {}
    exec(cells(path)[0], types)  # noqa: S102
    kinds = types["__annotations__"]

    @EXAMPLES
    @given(st.dictionaries(st.sampled_from(sorted(kinds)), VALUES, max_size=3))
    def fuzz(injected):
        if told := begin(path, injected):
            one_sentence(told)
        else:
            for name, value in injected.items():
                assert notebook._fits(value, kinds[name]), "a wrong type has to be refused"

    fuzz()


FUZZED = ("verify", "prepare", "splits", "export", "pretrain", "fit", "score", "run")
NASTY = (*TEXTS, "epochs=0", "epochs=nan", "epochs=1e999", "=", "seed=-1", "x=resnet18:w.pth", "0x7", "image_size=1")


def called(words: list[str]) -> tuple[object, str]:
    """Exit code and last line of a command, with output that refuses what a terminal would refuse."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace"))
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(words)
        except SystemExit as end:
            code = end.code
        finally:
            err.flush()
    return code, err.buffer.getvalue().decode().strip()


def stand_in(*_: object, **__: object) -> None:
    raise VisaError("the work would begin here.")


@pytest.mark.parametrize("command", FUZZED)
def test_any_option_ends_in_a_sentence_or_is_accepted(command, ready, tmp_path, monkeypatch):
    """What would start work ends at a stand-in for the work itself."""
    monkeypatch.chdir(tmp_path)
    for work in ("pretrain.run.run_pretraining", "detect.deploy.score_files"):
        monkeypatch.setattr(f"visa.{work}", stand_in)
    parameters = get_command(cli.app).commands[command].params
    count = sum(p.param_type_name == "argument" for p in parameters)
    options = [p.opts[0] for p in parameters if p.param_type_name == "option" and not p.is_flag]
    texts = st.sampled_from(NASTY) | st.text(st.characters(exclude_characters="/"), max_size=8)
    texts = texts.filter(lambda text: "\0" not in text)  # no shell can pass one
    chosen = st.dictionaries(st.sampled_from(options), texts, max_size=3) if options else st.just({})

    @settings(EXAMPLES, max_examples=60)
    @given(st.lists(texts, min_size=count, max_size=count), chosen)
    def fuzz(arguments, given_options):
        words = [w for pair in given_options.items() for w in pair]
        code, told = called([command, *words, *(["--dry-run"] if command == "run" else []), "--", *arguments])
        assert code in (0, 1, 2)
        if code == 2 and "Usage:" not in told:
            one_sentence(told.splitlines()[-1])

    fuzz()
