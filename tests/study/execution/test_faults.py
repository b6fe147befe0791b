"""A study through what goes wrong: killed, locked, failing, damaged, out of space. Real processes, real runs."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.cli.main import run

OPTIONS = [
    *("--arms", "none,smooth-0.01", "--seeds", "2", "--epochs", "2", "--image-size", "64", "--batch-size", "4"),
    *("--encoder-weights", "none", "--half-data", "False"),
]
RUNS = 4
KILLS = 10


@pytest.fixture(scope="module")
def command(scenes: Path, cache: Path) -> Callable[..., dict[str, Any]]:
    """Return what starts a study: arguments for Popen; one thread, so that the tests beside it do not disturb it."""
    environment = {**os.environ, "SMOOTH_ATTENTION_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def make(output: Path, *options: str) -> dict[str, Any]:
        arguments = [sys.executable, "-m", "smooth_attention", "study", str(scenes), "--output", str(output)]
        return {"args": [*arguments, *(options or OPTIONS)], "env": environment, "text": True}

    return make


@pytest.fixture(scope="module")
def undisturbed(command: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study that nothing happened to, and what it printed."""
    output = tmp_path_factory.mktemp("studies") / "undisturbed"
    return output, finish(command(output)).stdout


def finish(call: dict[str, Any], status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(**call, capture_output=True, timeout=300, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@contextmanager
def started(call: dict[str, Any], **pipes: int) -> Iterator[subprocess.Popen[str]]:
    """Start a study and give it; when the context ends it is killed, whatever it is at."""
    process = subprocess.Popen(**call, **{"stdout": subprocess.DEVNULL, **pipes})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def copy(study: tuple[Path, str], to: Path) -> Path:
    shutil.copytree(study[0], to)
    return to


def rows(study: Path) -> list[dict[str, str]]:
    with (study / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def records(study: Path) -> list[Path]:
    return sorted(study.glob("runs/*/*/*/record.json"))


def test_study_leaves_what_it_promises(undisturbed: tuple[Path, str]) -> None:
    output, said = undisturbed
    assert {path.name for path in output.iterdir()} >= {
        "study.yaml", "plan.json", "results.csv", "tables", "figures", "report.html", "runs", "samples",
    }  # fmt: skip
    assert len(records(output)) == len(rows(output)) == RUNS
    assert "4 runs: 1 datasets x 2 arms x 2 seeds, about 1 min on this machine, by timed steps" in said
    assert "scenes: the study could see a true difference of" in said
    assert "[4/4] scenes smooth-0.01 fold 0 seed 1: IoU" in said
    assert "- scenes: smooth-0.01 against none: " in said
    assert not list(output.glob("runs/*/*/*/checkpoints")), "a finished run needs no checkpoints"


def test_finished_study_is_reported_and_not_trained_again(
    undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]]
) -> None:
    output, said = undisturbed
    before = {path: path.stat().st_mtime_ns for path in records(output)}
    again = finish(command(output)).stdout
    assert {path: path.stat().st_mtime_ns for path in records(output)} == before
    assert "by timed steps" not in again
    assert [line for line in again.splitlines() if line.startswith("- ")] == [
        line for line in said.splitlines() if line.startswith("- ")
    ]


def test_dry_run_says_the_plan_and_writes_nothing(command: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    said = finish(command(tmp_path / "dry", *OPTIONS, "--dry-run")).stdout
    assert "4 runs: 1 datasets x 2 arms x 2 seeds" in said
    assert "could see a true difference of" in said
    assert not (tmp_path / "dry").exists()


@pytest.mark.slow
def test_killed_ten_times_gives_the_results_of_an_undisturbed_study(
    undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    output, chance = tmp_path / "killed", random.Random(0)
    for kill in range(KILLS):
        with started(command(output)) as process:
            if kill:  # later kills hit anything, from the first import to the report
                time.sleep(chance.uniform(1, 9))
            else:
                wait_for(lambda: bool(list(output.glob("runs/*/*/*/checkpoints/last.ckpt"))), process)
    finish(command(output))
    assert (output / "results.csv").read_bytes() == (undisturbed[0] / "results.csv").read_bytes()


def test_worker_ends_with_a_study_that_was_killed(command: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with started(command(tmp_path / "study")) as process:
        wait_for(lambda: bool(records(tmp_path / "study")), process)
        workers = children(process.pid)
        assert workers
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "an orphan lives on"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_second_runner_is_refused_while_the_first_goes_on(
    command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "study"
    with started(command(output), stdout=subprocess.PIPE) as first:
        wait_for(lambda: bool(records(output)), first)
        second = finish(command(output), status=2)
        assert f"{output} is at work in another process" in second.stderr
        said, _ = first.communicate(timeout=120)
    assert first.returncode == 0
    assert "[4/4]" in said


def test_interrupted_study_ends_with_130_and_continues(command: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "study"
    with started(command(output), stderr=subprocess.PIPE) as process:
        wait_for(lambda: bool(records(output)), process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues where it stopped" in said


def test_other_configuration_is_refused(undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]]) -> None:
    refused = finish(command(undisturbed[0], *OPTIONS, "--margin", "0.02"), status=2)
    assert "holds another study (margin: 0.01 there, 0.02 now); name another directory" in refused.stderr


@pytest.mark.parametrize("content", ['{"schema": 1, "status": "do', ""], ids=["cut off", "empty"])
def test_damaged_record_is_named_kept_and_made_again(
    undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]], tmp_path: Path, content: str
) -> None:
    output = copy(undisturbed, tmp_path / "study")
    hurt = records(output)[1]
    hurt.write_text(content)
    said = finish(command(output)).stdout
    assert f"{hurt} is damaged" in said
    assert "it is kept as record.json.damaged, the run is done again" in said
    assert hurt.with_name("record.json.damaged").read_text() == content
    assert (output / "results.csv").read_bytes() == (undisturbed[0] / "results.csv").read_bytes()


def test_record_of_another_schema_is_refused_and_left_alone(
    undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    output = copy(undisturbed, tmp_path / "study")
    newer = records(output)[0]
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"schema": 99}))
    refused = finish(command(output), status=2)
    assert f"{newer} has schema 99, expected 1" in refused.stderr
    assert json.loads(newer.read_text())["schema"] == 99


def test_failing_run_is_recorded_and_the_rest_go_on(command: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The arm whose gamma starts out of range fails at once."""
    study = tmp_path / "study.yaml"
    study.write_text("arms: [none, {smooth: {gamma_init: 1.0e+38}}]\nhalf_data: false\nreplicates: {seeds: 2}\n")
    options = [*OPTIONS[4:-2], "--config", str(study)]
    failed = finish(command(tmp_path / "study", *options), status=1)
    arm = "smooth-0.4+gamma_init=1e+38"
    assert f"2 of 4 runs failed, first scenes {arm} fold 0 seed 0: the loss became" in failed.stderr
    statuses = {path.parent.parent.name: json.loads(path.read_text()) for path in records(tmp_path / "study")}
    assert statuses["none"]["status"] == "done"
    assert statuses[arm]["status"] == "failed"
    assert "the loss became" in statuses[arm]["reason"]
    assert "finish the runs of both arms" in failed.stdout
    report = (tmp_path / "study" / "report.html").read_text()
    assert "the loss became" in report


def test_run_whose_process_dies_is_recorded_and_the_rest_go_on(
    command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "study"
    with started(command(output), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: bool(records(output)), process)
        for worker in children(process.pid):
            os.kill(worker, signal.SIGKILL)
        said, complaint = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "1 of 4 runs failed" in complaint
    assert "the process of the run ended with signal 9, perhaps for want of memory" in said
    finish(command(output))  # and the same command mends it
    assert len(rows(output)) == RUNS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with too little space for a checkpoint."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk_stops_the_study_and_loses_nothing(
    undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]], small_disk: Path
) -> None:
    output = small_disk / "study"
    stopped = finish(command(output), status=1)
    assert "is full: free some space, then run the same command again; finished runs are kept" in stopped.stderr
    subprocess.run(["mount", "-o", "remount,size=2g", str(small_disk)], check=True)
    finish(command(output))
    assert (output / "results.csv").read_bytes() == (undisturbed[0] / "results.csv").read_bytes()


def test_disk_that_is_full_when_the_report_is_due_is_told_and_keeps_the_old_one(
    undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]], small_disk: Path
) -> None:
    output = small_disk / "study"
    kept = shutil.ignore_patterns("model", "predictions")  # which a report does without
    shutil.copytree(undisturbed[0], output, ignore=kept)
    before = (output / "report.html").read_bytes()
    with (small_disk / "rest").open("wb") as rest, contextlib.suppress(OSError):
        while True:
            rest.write(bytes(2**20))
    stopped = finish(command(output, "--report-only"), status=1)
    assert "is full: free some space, then run the same command again; finished runs are kept" in stopped.stderr
    assert (output / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        ("nowhere", [], "no such data directory: nowhere"),
        (None, ["--arms", "none,smoth"], "no arm 'smoth'; did you mean smooth"),
        (None, ["--encoder", "resnet1"], "resnet1"),
        (None, ["--margin", "0"], "margin: Input should be greater than 0, got 0.0"),
        (None, ["--seeds", "0"], "replicates.seeds: Input should be greater than or equal to 1, got 0"),
        (None, ["--folds", "1"], "replicates.folds: Input should be greater than or equal to 2, got 1"),
        (None, ["--budget", "1min", "--image-size", "64", "--epochs", "9999"], "the budget is 1min; raise it"),
        (None, ["--config", "none.yaml"], "can't read the study none.yaml"),
        (None, ["--ray", "127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_requests_are_sentences_and_leave_nothing(
    scenes: Path,
    cache: Path,
    tmp_path: Path,
    data: str | None,
    options: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))
    place = ["--output", str(tmp_path / "study"), "--encoder-weights", "none"]
    assert run(["study", data or str(scenes), *place, *options]) == 2
    complaint = capsys.readouterr().err
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert not records(tmp_path / "study")


def test_study_killed_before_its_first_file_was_whole_is_begun(
    undisturbed: tuple[Path, str], command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    output = copy(undisturbed, tmp_path / "study")
    (output / "study.yaml").rename(output / ".study.yaml.x7f3")
    for name in ("tables", "figures", "samples", "runs"):
        shutil.rmtree(output / name)
    for name in ("report.html", "results.csv"):
        (output / name).unlink()
    finish(command(output))
    assert len(rows(output)) == RUNS


def test_directory_without_a_study_is_refused(command: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "holds no study; name another directory" in finish(command(tmp_path), status=2).stderr
    assert "is no study" in finish(command(tmp_path, "--report-only"), status=2).stderr
