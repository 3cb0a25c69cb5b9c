"""The plan: its stages, their keys, and the command line in front of it, whose mistakes end in one sentence."""

import dataclasses
import json
import os
import shutil

import pytest

from visa import cli, pipeline
from visa.data.source import open_source
from visa.pipeline import Matrix, make_jobs, plan
from visa.runs import Run


def test_the_plan_pairs_pretrainings_by_seed_and_shares_what_serves_all(mini_root, tmp_path):
    source, run = open_source(str(mini_root)), Run(tmp_path)
    own = plan(source, run, Matrix(["pcb1", "fryum"], seeds=[0, 1]))
    assert sum(s.notebook == "03_pretrain" for s in own) == 12 and sum(s.notebook == "04_score" for s in own) == 12
    shared = plan(source, run, Matrix(["pcb1", "fryum"], seeds=[0, 1], scope="all"))
    assert sum(s.notebook == "03_pretrain" for s in shared) == 6 and sum(s.notebook == "04_score" for s in shared) == 12
    for stages in (own, shared):
        names = [s.name for s in stages]
        assert len(set(names)) == len(names)
        for i, stage in enumerate(stages):
            assert set(stage.reads) <= set(names[:i]), "each stage comes after what it reads"
        assert sorted(s.notebook for s in stages if s.page) == sorted({s.notebook for s in stages})


def test_a_folder_of_images_serves_all_objects(mini_root, tmp_path):
    (tmp_path / "photos").mkdir()
    chosen = {"pretrain_root": str(tmp_path / "photos"), "image_size": 32, "steps": 5, "eta": 0.5}
    matrix = Matrix(["pcb1", "fryum"], ["simsiam"], pretrain=chosen)
    stages = plan(open_source(str(mini_root)), Run(tmp_path / "run"), matrix)
    (pretrained,) = (s for s in stages if s.notebook == "03_pretrain")
    assert pretrained.outputs[0].parent == tmp_path / "run/pretrain/simsiam/photos/seed0"
    assert (pretrained.parameters["set"], pretrained.parameters["steps"]) == ("image_size=32,eta=0.5", 5)
    scored = [s for s in stages if s.notebook == "04_score"]
    assert len(scored) == 2 and all(s.parameters["scope"] == "photos" for s in scored)


def keys(root, run, **matrix):
    source = open_source(str(root))
    stages = plan(source, run, Matrix(["fryum"], ["random", "simsiam"], **matrix))
    return {job.stage.name: job.key for job in make_jobs(stages, source, run)}


PRETRAINED = {"pretrain-random-fryum-seed0", "pretrain-simsiam-fryum-seed0"}
SCORED = {"score-fryum-random-fryum-seed0", "score-fryum-simsiam-fryum-seed0"}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ("outputs", set()),
        ("cell", SCORED | {"results"}),
        ("setting", SCORED | {"results"}),
        ("data", {"data", "prepare", "results"} | PRETRAINED | SCORED),
        ("VERSIONS", {"data"}),
        ("pretrain", PRETRAINED | SCORED | {"results"}),
        ("detector", SCORED | {"results"}),
    ],
)
def test_a_key_changes_with_what_its_result_depends_on_and_with_nothing_else(
    change, stale, mini_root, tmp_path, monkeypatch
):
    notebooks, root = tmp_path / "notebooks", tmp_path / "VisA"
    shutil.copytree(pipeline.notebooks_root(), notebooks)
    shutil.copytree(mini_root, root)
    monkeypatch.setenv("VISA_NOTEBOOKS", str(notebooks))
    run, matrix = Run(tmp_path / "runs/r"), {}
    before, scoring = keys(root, run), notebooks / "04_score.ipynb"
    content = json.loads(scoring.read_text())
    if change == "outputs":
        code = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
        code["outputs"], code["execution_count"] = [{"output_type": "stream", "name": "stdout", "text": "x"}], 7
    elif change == "cell":
        content["cells"][-1]["source"] += ["\n# more"]
    elif change == "setting":
        matrix = {"score": {"coreset_ratio": 0.5}}
    elif change == "data":
        os.utime(next((root / "fryum/Data/Images/Normal").iterdir()), (1, 1))
    elif change == "VERSIONS":
        monkeypatch.setitem(pipeline.VERSIONS, "01_data", 9)
    elif change == "pretrain":
        monkeypatch.setattr(pipeline, "PRETRAIN_VERSION", 99)
    else:
        padim = pipeline.DETECTORS["padim"]
        monkeypatch.setitem(pipeline.DETECTORS, "padim", dataclasses.replace(padim, version=99))
    scoring.write_text(json.dumps(content))
    after = keys(root, run, **matrix)
    assert {name for name in before if before[name] != after[name]} == stale


@pytest.fixture
def called(mini_root, tmp_path, monkeypatch, capsys):
    """A function that calls the command line in this process: exit code, output and errors."""
    monkeypatch.setenv("VISA_ROOT", str(mini_root))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        return end.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--objects", "pcb9"], "unknown object 'pcb9'"),
        (["run", "--detectors", "padin"], "Did you mean 'padim'"),
        (["run", "--seeds", "a"], "seed 'a' is not a whole number"),
        (["run", "--seeds", ""], "seeds are none"),
        (["run", "--scope", ""], "unknown scope ''"),
        (["run", "--seeds", "-1"], "seeds are -1"),
        (["run", "--seeds", "0,0"], "seeds are 0, 0"),
        (["run", "--score", "weights=w.pth"], "belongs to the plan"),
        (["run", "--score", "run=x"], "belongs to the plan"),
        (["run", "--pretrain", "seed=7"], "belongs to the plan"),
        (["run", "--pretrain", "weights=/absent.pth"], "check the path given with --pretrain"),
        (["run", "--pretrain", "pretrain_root=/absent"], "check the path given with --pretrain"),
        (["run", "--pretrainings", "given"], "weights are not given (--pretrain weights=FILE)"),
        (["run", "--pretrainings", "random", "--pretrain", "weights=/dev/null"], "take 'given'"),
        (["run", "--weights", "..=resnet18:w.pth"], "NAME=ARCH:FILE"),
        (["run", "--weights", "simsiam=resnet18:w.pth"], "weights"),
        (["run", "--weights", "x=resnet18:/absent.pth"], "weights"),
        (["run", "--pretrain", "epochs_=3"], "unknown setting 'epochs_'"),
        (["synth", "/proc/none/x", "--objects", "fryum"], "Check the path"),
        (["run", "--name", "a/b"], "is not a plain folder name"),
        (["run", "--pretrain", "epochs"], "NAME=VALUE"),
        (["prepare", "--split-type", "3cls"], "unknown split type '3cls'"),
        (["run", "--setups", "2cls"], "unknown setup '2cls'"),
        (["verify", "/nowhere"], "no split file"),
    ],
)
def test_the_command_line_ends_a_mistake_in_one_sentence(arguments, sentence, called, tmp_path):
    code, _, told = called(*arguments)
    assert code == 2 and sentence in told and told.count("\n") == 1
    assert not list(tmp_path.rglob("run.json")), "no run is made"


def test_a_plan_that_is_only_shown_makes_no_run_and_tells_what_stages_took(called, tmp_path):
    code, listed, _ = called("run", "--dry-run")
    assert code == 0 and "plan for mini-visa: 15 stages, 15 to run" in listed and not list(tmp_path.rglob("run.json"))
    stamp = tmp_path / "runs/mini-visa/stages/pretrain-simsiam+spd-pcb1-seed0.json"
    stamp.parent.mkdir(parents=True)
    stamp.write_text(json.dumps({"key": "of other settings", "seconds": 41.7}))
    (line,) = (line for line in called("run", "--dry-run")[1].splitlines() if line.startswith(stamp.stem))
    assert line.split() == [stamp.stem, "to", "run,", "took", "42", "s"]
    _, adapted, _ = called("run", "--dry-run", "--objects", "fryum", "--pretrain", "weights=/dev/null")
    names = [line.split()[0] for line in adapted.splitlines() if line.startswith("pretrain-")]
    assert names == [f"pretrain-{arm}-fryum-seed0" for arm in pipeline.ADAPTATIONS]


def test_runs_of_the_first_version_of_other_data_and_on_object_storage_are_refused(called, tmp_path, monkeypatch):
    about = tmp_path / "runs/mini-visa/run.json"
    about.parent.mkdir(parents=True)
    for facts, sentence in (
        ({"dataset": "mini-VisA", "synthetic": True}, "holds results of visa 0.1"),
        ({"dataset": "VisA", "synthetic": False, "format": 2}, "holds results of VisA, not of mini-VisA"),
    ):
        about.write_text(json.dumps(facts))
        code, _, told = called("run")
        assert code == 2 and sentence in told and "another name" in told
    monkeypatch.setenv("VISA_RUNS", "s3://bucket/runs")
    assert "must be a local folder" in called("run")[2]


def test_every_command_says_that_it_was_interrupted(monkeypatch, called, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("visa.detect.deploy.image_files", interrupted)
    code, _, told = called("fit", str(tmp_path), "--weights", "w.pth", "--out", str(tmp_path / "part.safetensors"))
    assert code == 130 and told == "visa: interrupted; run the same command again.\n"


def test_the_command_line_verifies_and_prepares(called, mini_root, tmp_path):
    (tmp_path / "root").mkdir()
    for part in ("split_csv", "dataset.json", "fryum"):
        (tmp_path / "root" / part).symlink_to(mini_root / part)
    code, told, _ = called("verify", str(tmp_path / "root"))
    assert code == 0 and "fryum: 40 normal" in told and "pcb1: absent" in told
    code, told, _ = called("prepare", "--data-folder", str(tmp_path / "root"), "--save-folder", str(tmp_path / "tree"))
    assert code == 0 and "absent: pcb1" in told
    assert len(list((tmp_path / "tree/1cls/fryum/train/good").iterdir())) == 27
