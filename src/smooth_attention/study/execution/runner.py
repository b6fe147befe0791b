"""Does the runs of a study, on this machine or on a Ray cluster; killed at any moment, it goes on where it was."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smooth_attention.core.errors import ConfigError, RunError
from smooth_attention.core.records import read_record
from smooth_attention.runs.config import RunConfig
from smooth_attention.study.design.plan import Forecast, PlannedRun, Speed
from smooth_attention.study.execution.load import record_of, set_aside_damaged
from smooth_attention.study.execution.worker import fail

__all__ = ["LOG", "Executor", "LocalExecutor", "Progress", "Report", "do_runs", "is_finished", "local_executor"]

LOG = "log.txt"
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study is.

    Attributes:
        done: runs finished, those of earlier starts too.
        failed: runs that failed.
        total: runs of the plan.
        running: names of the runs at work, each with its epoch, e.g. ``flood none fold 0 seed 1 (3/10)``.
        seconds_left: by the timed steps, corrected by what the finished runs took.
        news: a sentence to keep, e.g. of a run that ended; mostly None.
    """

    done: int
    failed: int
    total: int
    running: tuple[str, ...]
    seconds_left: float
    news: str | None = None


Report = Callable[[Progress], None]


class Executor(Protocol):
    """Something that does runs: at most ``slots`` at a time."""

    slots: int

    def start(self, run: PlannedRun, directory: Path) -> None:
        """Begin a run."""

    def poll(self, timeout: float) -> tuple[PlannedRun, dict[str, Any]] | None:
        """Return a run that ended and its answer, None if none did in time."""


class LocalExecutor:
    """One worker process, begun anew where it died; it ends with this process, however that ends.

    Args:
        log: where the worker's output goes.
        cache: where decoded images live.
        corruptions: whether corrupted test images are scored too.
    """

    slots = 1

    def __init__(self, log: Path, cache: Path, *, corruptions: bool) -> None:
        self.log, self.cache, self.corruptions = log, cache, corruptions
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.run: PlannedRun | None = None

    def open_worker(self) -> None:
        """Begin the worker, so that it is ready when the first job comes."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smooth_attention.study.execution.worker", str(self.log), str(self.cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is this process's; the worker ends with its input
        )
        self.lines = queue.Queue()
        threading.Thread(target=forward, args=(self.process.stdout, self.lines), daemon=True).start()

    def send(self, job: dict[str, Any]) -> None:
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.open_worker()
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died just now, as its answer will say
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()

    def receive(self, timeout: float | None) -> dict[str, Any] | None:
        """Return the worker's answer, None where it takes longer; a worker that died is an answer too."""
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if line is not None:
            answer: dict[str, Any] = json.loads(line)
            return answer
        assert self.process is not None
        status = self.process.wait()
        why = f"signal {-status}, perhaps for want of memory" if status < 0 else f"status {status}"
        return {"status": "died", "reason": f"the process of the run ended with {why}; see {self.log}"}

    def time(self, config: RunConfig) -> Speed:
        """Return the speed of a configuration.

        Raises:
            ConfigError: where it can't be run.
            RunError: where the steps that are timed fail, or their process dies.
        """
        self.send({"kind": "time", "config": config.model_dump(mode="json")})
        answer = self.receive(None)
        assert answer is not None
        if answer["status"] == "refused":
            raise ConfigError(answer["reason"])
        if answer["status"] == "failed":
            raise RunError(f"{answer['reason']}, while steps were timed; see {self.log}")
        if answer["status"] == "died":
            raise RunError(answer["reason"])
        return Speed(answer["step_seconds"], answer["image_seconds"])

    def start(self, run: PlannedRun, directory: Path) -> None:
        self.run = run
        config = run.config.model_dump(mode="json")
        self.send({"kind": "run", "config": config, "directory": str(directory), "corruptions": self.corruptions})

    def poll(self, timeout: float) -> tuple[PlannedRun, dict[str, Any]] | None:
        answer = self.receive(timeout)
        if answer is None:
            return None
        assert self.run is not None
        run, self.run = self.run, None
        return run, answer

    def close(self) -> None:
        """End the worker at once; what is on disk is whole."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # of a job that it did not read
                pipe.close()
        self.process = None


def forward(lines: Any, into: queue.Queue[str | None]) -> None:
    """Hand on a worker's answers, then None."""
    try:
        for line in lines:
            into.put(line)
    except ValueError:  # closed while reading
        pass
    into.put(None)


@contextmanager
def local_executor(log: Path, cache: Path, *, corruptions: bool) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(log, cache, corruptions=corruptions)
    try:
        yield executor
    finally:
        executor.close()


def do_runs(expected: Forecast, study: Path, executor: Executor, *, report: Report) -> None:
    """Do what is left of a study; runs that failed at an earlier start are tried again.

    Args:
        expected: the plan with its speeds.
        study: the study's directory.
        executor: what does the runs.
        report: told of every change.

    Raises:
        ConfigError: where a record is of another schema.
        RunError: where no further run can succeed, e.g. on a full disk.
    """
    runs, with_corruptions = expected.plan.runs, expected.config.corruptions
    state = State(study, len(runs), Pace(expected.speeds), report)
    for sentence in filter(None, (set_aside_damaged(study, run) for run in runs)):
        state.tell(sentence)
    waiting = [run for run in runs if not is_finished(study / run.directory, with_corruptions)]
    state.begin(waiting)
    while waiting or state.running:
        while waiting and len(state.running) < executor.slots:
            run = waiting.pop(0)
            executor.start(run, study / run.directory)
            state.start(run)
        ended = executor.poll(POLL_SECONDS)
        state.tell(state.finish(*ended) if ended else None, slots=executor.slots)


class State:
    """Which runs are done, failed and at work."""

    def __init__(self, study: Path, total: int, pace: Pace, report: Report) -> None:
        self.study, self.total, self.pace, self.report = study, total, pace, report
        self.done = total
        self.failed = 0
        self.running: dict[str, PlannedRun] = {}

    def begin(self, waiting: list[PlannedRun]) -> None:
        self.done = self.total - len(waiting)
        self.pace.expect(waiting)

    def start(self, run: PlannedRun) -> None:
        self.running[run.name] = run
        self.pace.start(run)

    def finish(self, run: PlannedRun, answer: dict[str, Any]) -> str:
        """Take note of a run that ended, and return the sentence on it."""
        del self.running[run.name]
        self.pace.finish(run, counts=answer["status"] == "done")
        if answer["status"] == "stop":
            raise RunError(f"{answer['reason']}, then run the same command again; finished runs are kept")
        if answer["status"] == "done":
            self.done += 1
            return f"{run.name}: {describe_run(self.study / run.directory)}"
        self.failed += 1
        if answer["status"] == "died":
            fail(self.study / run.directory, run.config.model_dump(mode="json"), answer["reason"])
        return f"{run.name} failed: {answer['reason']}"

    def tell(self, news: str | None, *, slots: int = 1) -> None:
        names = tuple(
            f"{run.name} ({epochs_done(self.study / run.directory)}/{run.config.epochs})"
            for run in self.running.values()
        )
        left = self.pace.seconds_left(slots)
        self.report(Progress(self.done, self.failed, self.total, names, left, news))


class Pace:
    """The time left: seconds by the timed steps, corrected by how long finished runs took against that."""

    def __init__(self, speeds: Mapping[str, Speed]) -> None:
        self.speeds = speeds
        self.expected: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        self.took = self.forecast = 0.0

    def expect(self, runs: list[PlannedRun]) -> None:
        self.expected = {run.name: self.speeds[run.dataset].of(run) for run in runs}

    def start(self, run: PlannedRun) -> None:
        self.begun[run.name] = time.monotonic()

    def finish(self, run: PlannedRun, *, counts: bool) -> None:
        took, expected = time.monotonic() - self.begun.pop(run.name), self.expected.pop(run.name)
        if counts:
            self.took, self.forecast = self.took + took, self.forecast + expected

    def seconds_left(self, slots: int) -> float:
        ratio = self.took / self.forecast if self.forecast else 1.0
        now = time.monotonic()
        left = 0.0
        for name, seconds in self.expected.items():
            spent = now - self.begun[name] if name in self.begun else 0.0
            left += max(0.0, seconds * ratio - spent)
        return left / slots


def is_finished(directory: Path, corruptions: bool) -> bool:
    """Return whether a run needs nothing more."""
    record = record_of(directory)
    if record is None or record.status != "done" or record.measures is None:
        return False
    return not corruptions or record.metrics.test.corruptions is not None


def describe_run(directory: Path) -> str:
    test = read_record(directory).metrics.test
    return f"IoU {test.pooled.iou:.3f} pooled, {test.per_image.iou:.3f} per image"


def epochs_done(directory: Path) -> int:
    lines = directory / "metrics.jsonl"
    return len(lines.read_text(encoding="utf-8").splitlines()) if lines.is_file() else 0
