"""Walks a plan: each stage once what it reads is there, side by side where a pool has room; a failure costs its own."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol

from tqdm import tqdm

from visa.errors import VisaError
from visa.runner import Job, StageLost, run_job, show_in_book

RunJob = Callable[[Job], float]


class Pool(Protocol):
    """Where jobs run: `slots` of them at a time."""

    slots: float

    def submit(self, run: RunJob, job: Job) -> Any:
        """A future with `add_done_callback` and `exception`, as in concurrent.futures."""


class InProcess:
    """Runs a job when it is submitted: one after the other, in this process."""

    slots: float = 1

    def submit(self, run: RunJob, job: Job) -> Future[float]:
        """Run it now; anything but a VisaError goes through."""
        future: Future[float] = Future()
        try:
            future.set_result(run(job))
        except VisaError as error:
            future.set_exception(error)
        return future


@dataclass
class Outcome:
    """What became of the stages: how many `ran`, which `failed` for good and why, which were `left_out` after those."""

    ran: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def execute(
    jobs: Sequence[Job],
    current: Collection[str] = (),
    pool: Pool | None = None,
    retries: int = 2,
    say: Callable[[str], None] = tqdm.write,
    interrupted: Callable[[], bool] = lambda: False,
    run: RunJob = run_job,
) -> Outcome:
    """Run every job whose stage is not among the `current` ones, after those it reads.

    A job that is lost (StageLost, a worker that died) is tried again, `retries` times. One that fails for good costs
    those that read it; all others run. `interrupted` is asked after each: a KeyboardInterrupt can get lost in the
    libraries that run a notebook.
    """
    for job in jobs:
        if job.stage.page and job.stage.name in current:
            show_in_book(job)
    walk = _Walk(jobs, current)
    place: Pool = pool or InProcess()
    outcome, tries = Outcome(), Counter[str]()
    finished: SimpleQueue[Job] = SimpleQueue()
    running: dict[str, Any] = {}
    with tqdm(total=len(jobs), initial=len(jobs) - walk.left, unit="stage", desc="stages", mininterval=1) as bar:
        while walk.ready or running:
            while walk.ready and len(running) < place.slots:
                job = walk.start()
                bar.set_postfix_str(job.stage.name)
                running[job.stage.name] = future = place.submit(run, job)
                future.add_done_callback(lambda _, job=job: finished.put(job))
            job = finished.get()
            if interrupted():
                raise KeyboardInterrupt
            say(_settle(job, running.pop(job.stage.name), walk, outcome, tries, retries))
            bar.update(len(jobs) - walk.left - bar.n)
    return outcome


def _settle(job: Job, future: Any, walk: "_Walk", outcome: Outcome, tries: Counter[str], retries: int) -> str:
    """Note what became of a job, in the walk and the outcome, and say it."""
    error, name = future.exception(), job.stage.name
    if error is None:
        outcome.ran += 1
        if job.stage.page:
            show_in_book(job)
        walk.done(job)
        return f"{name}: {future.result():.0f} s"
    sentence = " ".join(f"{'' if isinstance(error, VisaError) else type(error).__name__ + ': '}{error}".split())
    if tries[name] < retries and (isinstance(error, StageLost) or not isinstance(error, VisaError)):
        tries[name] += 1
        walk.again(job)
        return f"{name} is tried again: {sentence}"
    outcome.failed[name] = sentence
    outcome.left_out += walk.drop(job)
    return f"{name} failed; what does not read it goes on."


class _Walk:
    """Which jobs can start: those that are not up to date, as soon as none that they read is to run before them.

    In the plan's order, so that one process runs them as they are listed.
    """

    def __init__(self, jobs: Sequence[Job], current: Collection[str]) -> None:
        self._jobs, self._place = jobs, {job.stage.name: i for i, job in enumerate(jobs)}
        to_run = self._place.keys() - set(current)
        self._waits_for = {job.stage.name: set(job.stage.reads) & to_run for job in jobs if job.stage.name in to_run}
        self._readers: dict[str, list[str]] = defaultdict(list)
        for name, reads in self._waits_for.items():
            for read in reads:
                self._readers[read].append(name)
        self.ready = [self._place[name] for name, reads in self._waits_for.items() if not reads]
        heapq.heapify(self.ready)
        self.left = len(to_run)

    def start(self) -> Job:
        """The first job that can start."""
        return self._jobs[heapq.heappop(self.ready)]

    def again(self, job: Job) -> None:
        """A job that ran in vain can start once more."""
        heapq.heappush(self.ready, self._place[job.stage.name])

    def done(self, job: Job) -> None:
        """A job has succeeded: those that waited for it alone can start."""
        self.left -= 1
        for name in self._readers.pop(job.stage.name, ()):
            if name in self._waits_for:  # else it was dropped
                self._waits_for[name].discard(job.stage.name)
                if not self._waits_for[name]:
                    heapq.heappush(self.ready, self._place[name])

    def drop(self, job: Job) -> list[str]:
        """A job has failed: all that read it, and what reads those, will not run; returns their names."""
        self.left -= 1
        dropped, stack = [], self._readers.pop(job.stage.name, [])
        while stack:
            name = stack.pop()
            if self._waits_for.pop(name, None) is not None:
                dropped.append(name)
                stack += self._readers.pop(name, [])
        self.left -= len(dropped)
        return dropped
