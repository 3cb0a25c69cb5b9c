"""Notebook parameters: a mistake is one sentence in the first cell; and data and runs open as they should."""

import json

import pytest

from visa.data.source import open_source
from visa.errors import VisaError
from visa.notebook import check_parameters, start

TYPES = {"object": str, "epochs": int, "eta": float, "spd": bool}
GOOD = {"object": "pcb1", "epochs": 2, "eta": 0.1, "spd": True}


def namespace(injected="", **values):
    return {"__annotations__": TYPES, "In": ["", f"# Parameters\n{injected}" if injected else ""], **GOOD, **values}


def test_good_parameters_pass():
    check_parameters(namespace("epochs = 2\n"), {"object": ["pcb1"]})
    check_parameters(namespace("epochs = 2", eta=1, pd=object(), fig=1), {})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"injected": "objekt = 'pcb1'"}, r"no parameter 'objekt'.*object, epochs, eta, spd.*Did you mean 'object'"),
        ({"In": 1}, r"no parameter 'In'"),
        ({"epochs": "abc"}, r"'epochs' is 'abc', of type str: give int"),
        ({"epochs": True}, r"'epochs' is True, of type bool"),
        ({"object": 7}, r"'object' is 7, of type int: give str \(papermill -r object"),
        ({"object": "pcb9"}, r"unknown object 'pcb9': choose one of pcb1, fryum"),
    ],
)
def test_a_mistake_is_one_sentence(change, sentence):
    with pytest.raises(VisaError, match=sentence) as caught:
        check_parameters(namespace(**change), {"object": ["pcb1", "fryum"]})
    assert "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [f"VisaError: {caught.value}"]


def started(types, **names):
    """What `start` returns to a notebook that has these names."""
    names |= {"__annotations__": types, "start": start}
    exec("result = start()", names)  # noqa: S102
    return names["result"]


def test_start_opens_data_and_run(mini_root, monkeypatch, capsys):
    source, run = started({"visa_root": str}, visa_root=str(mini_root), In=[])
    assert source.synthetic and source.name == "mini-VisA" and source.objects == ("pcb1", "fryum")
    assert json.loads((run.root / "run.json").read_text()) == {"dataset": "mini-VisA", "synthetic": True, "format": 2}
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    assert open_source().root == mini_root


def test_start_names_what_is_wrong_with_the_object_or_the_root(mini_root):
    types = {"visa_root": str, "object": str}
    with pytest.raises(VisaError, match=r"'pcb2' is not in .*; present: pcb1, fryum"):
        started(types, visa_root=str(mini_root), object="pcb2")
    with pytest.raises(VisaError, match="which is not a folder"):
        started(types, visa_root="/nowhere", object="pcb1")
