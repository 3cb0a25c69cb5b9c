"""The walk through a plan: order, what a failure costs, retries, and what the plan says of its cost."""

import csv
import json
import sys
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from visa import cluster, forecast
from visa.data.source import open_source
from visa.errors import VisaError
from visa.plan import Matrix, Stage, plan
from visa.runner import Job, StageLost, make_jobs, run_job
from visa.runs import Run
from visa.schedule import execute

READS = {"a": "", "b": "", "c": "a", "d": "ab", "e": "c", "f": "de"}


def job(name, reads=(), notebook="04_score", **parameters):
    return Job(Stage(notebook, name, parameters, (), tuple(reads)), Run(Path("run")), name, "", "VisA", False)


class Recorder:
    """Stands for run_job: notes the order, and fails as told: an error for each of the first tries."""

    def __init__(self, **errors):
        self.errors, self.ran = errors, []

    def __call__(self, job):
        self.ran.append(job.stage.name)
        if errors := self.errors.get(job.stage.name):
            raise errors.pop(0)
        return 1.0


JOBS = [job(name, reads) for name, reads in READS.items()]


def test_one_process_runs_the_plan_in_its_order():
    run = Recorder()
    assert execute(JOBS, run=run).ran == 6 and run.ran == list("abcdef")


def test_what_is_up_to_date_holds_nothing_up():
    run = Recorder()
    assert execute(JOBS, current={"a", "d"}, run=run).ran == 4 and run.ran == list("bcef")


def test_a_failure_costs_only_what_reads_it():
    run = Recorder(c=[VisaError("c is wrong")])
    outcome = execute(JOBS, run=run)
    assert run.ran == list("abcd") and outcome.failed == {"c": "c is wrong"} and sorted(outcome.left_out) == ["e", "f"]


def test_two_failures_leave_out_what_reads_both_once():
    outcome = execute(JOBS, run=Recorder(a=[VisaError("a")], b=[VisaError("b")]))
    assert list(outcome.failed) == ["a", "b"] and Counter(outcome.left_out) == Counter("cdef")


def test_a_lost_stage_is_tried_again_and_a_wrong_one_is_not():
    run, said = Recorder(a=[StageLost("memory")] * 2, b=[StageLost("memory")] * 3), []
    outcome = execute(JOBS, run=run, retries=2, say=said.append)
    assert run.ran.count("a") == 3 and run.ran.count("b") == 3 and outcome.failed == {"b": "memory"}
    assert "a is tried again: memory" in said and outcome.ran == 3
    run = Recorder(a=[VisaError("wrong")])
    assert execute(JOBS, run=run, retries=2).failed == {"a": "wrong"} and run.ran.count("a") == 1


def test_an_error_that_nobody_foresaw_ends_a_run_in_one_process():
    with pytest.raises(OSError, match="disk"):
        execute(JOBS, run=Recorder(b=[OSError("disk full")]))


def test_an_interruption_that_a_library_swallowed_is_noticed():
    run = Recorder()
    with pytest.raises(KeyboardInterrupt):
        execute(JOBS, run=run, interrupted=lambda: len(run.ran) == 2)
    assert run.ran == ["a", "b"]


class LastFirst:
    """A pool and the queue of its results: when the walk waits for one, the newest of the running jobs ends."""

    slots = float("inf")

    def __init__(self):
        self.running, self.ended, self.side_by_side = [], [], 0

    def submit(self, run, job):
        future = Future()
        self.running.append((future, run, job))
        self.side_by_side = max(self.side_by_side, len(self.running))
        return future

    def put(self, job):
        self.ended.append(job)

    def get(self):
        future, run, job = self.running.pop()
        future.set_result(run(job))
        return self.ended.pop()


def test_stages_that_do_not_read_each_other_run_side_by_side(monkeypatch):
    pool, run = LastFirst(), Recorder()
    monkeypatch.setattr("visa.schedule.SimpleQueue", lambda: pool)
    assert execute(JOBS, pool=pool, run=run).ran == 6
    assert run.ran == list("badcef"), "the newest first, and none before what it reads"
    assert pool.side_by_side == 2


def test_the_whole_matrix_is_planned_once_for_all_objects(tmp_path, mini_root):
    source = open_source(str(mini_root))
    matrix = Matrix(["pcb1", "fryum"], seeds=list(range(100)), scope="all")
    jobs = make_jobs(plan(source, Run(tmp_path), matrix), source, Run(tmp_path))
    assert Counter(j.stage.notebook for j in jobs)["03_pretrain"] == 300 and len(jobs) == 904
    assert len({j.key for j in jobs}) == len(jobs)


def test_a_stage_whose_code_is_not_the_plans_is_refused(tmp_path, mini_root):
    source, run = open_source(str(mini_root)), Run(tmp_path)
    first = make_jobs(plan(source, run, Matrix(["fryum"])), source, run)[0]
    with pytest.raises(VisaError, match="data: the code here is not the plan's"):
        run_job(replace(first, made_of="older"))
    assert not list(tmp_path.iterdir())


def test_gpu_stages_take_a_gpu_where_workers_declare_them():
    sent = []
    client = SimpleNamespace(status="running", submit=lambda *a, **k: sent.append(k["resources"]) or Future())
    for resources in ({}, {"GPU": 1}):
        client.scheduler_info = lambda n_workers, r=resources: {"workers": {"w": {"resources": r}}}
        pool = cluster.DaskPool(client)
        for one in (job("s"), job("p", notebook="03_pretrain", devices=4), job("r", notebook="05_results")):
            pool.submit(None, one)
    assert sent == [{}, {}, {}, {"GPU": 1}, {"GPU": 4}, {}]


def test_a_worker_stops_only_notebooks_of_this_run(monkeypatch):
    killed = []
    child = SimpleNamespace(cmdline=lambda: ["python", "-m", "ipykernel_launcher"], kill=lambda: killed.append(1))
    monkeypatch.setattr(cluster.psutil, "Process", lambda: SimpleNamespace(children=lambda recursive: [child]))
    for running, kills in (("ours", 1), ("theirs", 0), (None, 0)):
        tasks = [SimpleNamespace(key=running)] if running else []
        cluster.stop_kernels(["ours"], SimpleNamespace(state=SimpleNamespace(executing=tasks)))
        assert len(killed) == kills
        killed.clear()


def test_without_dask_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(VisaError, match=r"pip install 'visa-spd\[cluster\]'"), cluster.dask_pool(2):
        pass


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "WAIT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense:"):
        with pytest.raises(VisaError, match="no Dask scheduler answers at"), cluster.dask_pool(0, address):
            pass


class TestForecast:
    def write(self, run, name, notebook, seconds, device="", **parameters):
        (run / "stages").mkdir(parents=True, exist_ok=True)
        stamp = {"stage": name, "notebook": notebook, "seconds": seconds, "parameters": parameters, "device": device}
        (run / "stages" / f"{name}.json").write_text(json.dumps(stamp))

    def cost(self, tmp_path, jobs, synthetic=True, current=()):
        (found,) = forecast.forecast(jobs, current, tmp_path, synthetic)
        return found

    def test_by_stages_of_the_same_settings_before_others_of_the_same_pretraining(self, tmp_path):
        pretrain = {"method": "simsiam", "spd": True}
        jobs = [job(f"s{i}", notebook="03_pretrain", **pretrain, epochs=5, seed=i) for i in range(4)]
        self.write(tmp_path / "other", "x", "03_pretrain", 100, **pretrain, epochs=9)
        self.write(tmp_path / "other", "z", "03_pretrain", 7, method="mocov2", spd=True, epochs=5)
        assert self.cost(tmp_path, jobs).seconds == 400
        for name, seconds in (("a", 10), ("b", 30), ("c", 20)):
            self.write(tmp_path / "run", name, "03_pretrain", seconds, "cuda:0", **pretrain, epochs=5, object=name)
        (tmp_path / "run/stages/broken.json").write_text("{")
        cost = self.cost(tmp_path, jobs, current={"s0"})
        assert (cost.stages, cost.to_run, cost.seconds, cost.on_gpu) == (4, 3, 60, True)
        assert "in all, one stage after the other: 60 s of GPU time" in forecast.report([cost], "run")

    def test_what_was_never_timed_is_not_known(self, tmp_path):
        jobs = [job("s", notebook="03_pretrain", method="simsiam"), job("t", notebook="03_pretrain", method="simclr")]
        self.write(tmp_path / "run", "a", "03_pretrain", 10, method="simsiam")
        cost = self.cost(tmp_path, jobs)
        assert cost.seconds is None and "not known: 1 of their like" in forecast.report([cost], "run")

    def test_real_data_fall_back_on_the_table_in_the_book(self, tmp_path):
        jobs = [job("s", pretraining="simsiam")]
        assert self.cost(tmp_path, jobs).seconds is None
        with forecast.MEASURED.open(newline="") as stream:
            rows = [r for r in csv.DictReader(stream) if (r["notebook"], r["pretraining"]) == ("04_score", "simsiam")]
        cost = self.cost(tmp_path, jobs, synthetic=False)
        assert cost.seconds == sorted(float(r["seconds"]) for r in rows)[len(rows) // 2] and "fryum" in cost.basis

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (864_000, "10 days")]
    )
    def test_durations_are_told_in_fitting_units(self, seconds, text):
        assert forecast.duration(seconds) == text
