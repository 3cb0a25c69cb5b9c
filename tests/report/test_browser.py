"""What the defect browser's page is made from: levels and counts of pixels, pictures, and what is written again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from visa.cli import app
from visa.detect.scores import save_scores
from visa.errors import VisaError
from visa.report.browser.build import LEVELS, build_browser, levels_of, scale_of


def value_of(file):
    """What a script of data hands to the page."""
    text = file.read_text(encoding="ascii")
    name, value = json.loads("[" + text.removeprefix("visaBrowser.arrived(...[").removesuffix("]);\n") + "]")
    assert str(file).endswith(name)
    return value


def changed(scores, **fields):
    return type(scores)(**vars(scores) | fields)


def test_a_level_is_a_threshold_on_the_scores_themselves():
    maps = np.random.default_rng(0).gamma(1, 3, (2, 40, 50)).astype(np.float32) - 1
    low, step = scale_of(maps)
    levels = levels_of(maps, low, step)
    assert levels.min() == 0 and levels.max() == LEVELS - 1
    for k in range(1, LEVELS):
        assert np.array_equal(levels >= k, maps.astype(np.float64) >= low + k * step), k
    maps[:] = 0.7
    assert not levels_of(maps, *scale_of(maps)).any()
    maps[0, 0, 0] = np.nan
    with pytest.raises(VisaError, match="NaN"):
        scale_of(maps)


@pytest.fixture
def run(scored, tmp_path):
    return shutil.copytree(scored.run, tmp_path / "run")


def test_the_command_builds_a_browser_in_which_all_that_is_scored_can_be_chosen(run, scored, monkeypatch):
    monkeypatch.setattr("visa.data.source.open_source", lambda: scored.source)
    monkeypatch.setenv("VISA_RUNS", str(run.parent))
    done = CliRunner().invoke(app, ["browser", "absent"])
    assert "there is no run 'absent'" in str(done.exception) and not (run.parent / "absent").exists()
    page = Path(CliRunner().invoke(app, ["browser", "run"]).stdout.strip())
    assert page == run / "browser/index.html" and page.is_file()
    index = value_of(page.parent / "index.js")
    chosen = [(object, setup) for object in ("fryum", "pcb1") for setup in ("1cls", "2cls_5shot")]
    assert [(p["object"], p["setup"]) for p in index["parts"]] == chosen
    assert [m["pretraining"] for m in index["models"]] == ["simsiam", "simsiam+spd"]
    part, known = value_of(page.parent / index["parts"][0]["file"]), scored.scores["fryum", "simsiam", "padim"]
    assert [i["name"] for i in part["images"]] == known.paths
    assert [i["anomalous"] for i in part["images"]] == known.labels.astype(bool).tolist()
    assert [i["mask"] is not None for i in part["images"]] == known.masks.any((1, 2)).tolist()
    assert part["images"][0]["shape"] == [96, 64] and (page.parent / part["images"][0]["picture"]).is_file()
    probe = value_of(page.parent / index["parts"][1]["file"])
    assert probe["images"][-1]["mask"], "the outline is known from a detector with maps"
    assert part["scorings"][0]["made"]["settings"] == {"seed": 0}


def test_what_still_holds_is_kept_and_what_is_of_no_use_goes(run, scored, capsys):
    folder, one = build_browser(run, scored.source).parent, scored.scores["pcb1", "simsiam", "padim"]

    def written():
        return {f: f.stat().st_mtime_ns for part in ("scored", "images") for f in (folder / part).rglob("*.*")}

    before, file = written(), next(run.glob("scores/pcb1/simsiam/*/seed0/1cls/padim/draw0/scores.npz"))
    build_browser(run, scored.source)
    assert written() == before
    save_scores(file, changed(one, image_scores=one.image_scores[::-1].copy()))
    build_browser(run, scored.source)
    after = written()
    assert len({f.parent for f in before} ^ {f.parent for f in after}) == 2, "one record in the place of another"
    file.unlink()
    build_browser(run, scored.source)
    left = written()
    assert {f: after[f] for f in left} == left and {f.parent for f in after} - {f.parent for f in left}
    fewer = {n: v[9:] for n, v in vars(one).items() if isinstance(v, np.ndarray | list)}
    save_scores(run / "scores/pcb1/old/pcb1/seed0/1cls/padim/draw0/scores.npz", changed(one, **fewer))
    save_scores(file, one)
    index = value_of(build_browser(run, scored.source).parent / "index.js")
    assert "old" not in {m["pretraining"] for m in index["models"]}, "of other test images"
    assert "1 older scores are left out" in capsys.readouterr().out


def test_no_scores_and_no_images_are_said_in_a_sentence(run, scored, tmp_path):
    with pytest.raises(VisaError, match="nothing is scored"):
        build_browser(tmp_path / "empty", scored.source)
    elsewhere = type(scored.source)(tmp_path / "none", "mini-VisA", True, ("pcb1",))
    with pytest.raises(VisaError, match="no image at"):
        build_browser(run, elsewhere)
    assert not (run / "browser/index.html").exists()
