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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deadlines import LAST_RESORT_S

RUNS = 4
KILLS = 10
Call = dict[str, Any]
Ask = Callable[..., tuple[int, str, str]]
Finish = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def started(call: Call, **pipes: int) -> Iterator[subprocess.Popen[str]]:
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


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LAST_RESORT_S
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def records(study: Path) -> list[Path]:
    return sorted(study.glob("runs/*/*/*/record.json"))


@pytest.mark.slow
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


@pytest.mark.slow
def test_finished_study_is_reported_and_not_trained_again(
    undisturbed: tuple[Path, str], call: Ask, tmp_path: Path
) -> None:
    output, said = copy(undisturbed, tmp_path / "study"), undisturbed[1]
    before = {path: path.stat().st_mtime_ns for path in records(output)}
    status, again, _ = call(output)
    assert status == 0
    assert {path: path.stat().st_mtime_ns for path in records(output)} == before
    assert "by timed steps" not in again
    assert [line for line in again.splitlines() if line.startswith("- ")] == [
        line for line in said.splitlines() if line.startswith("- ")
    ]


@pytest.mark.slow
def test_dry_run_says_the_plan_and_writes_nothing(call: Ask, tmp_path: Path) -> None:
    status, said, _ = call(tmp_path / "dry", "--dry-run")
    assert status == 0
    assert "4 runs: 1 datasets x 2 arms x 2 seeds" in said
    assert "could see a true difference of" in said
    assert not (tmp_path / "dry").exists()


@pytest.mark.slow
def test_killed_ten_times_gives_the_results_of_an_undisturbed_study(
    undisturbed: tuple[Path, str], command: Callable[..., Call], finish: Finish, tmp_path: Path
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


@pytest.mark.slow
def test_one_incident_after_the_other_gives_the_results_of_an_undisturbed_study(
    undisturbed: tuple[Path, str],
    command: Callable[..., Call],
    call: Ask,
    tmp_path: Path,
) -> None:
    """Killed before its first file was whole, interrupted, killed with its worker at work, bereft of its worker."""
    output = copy(undisturbed, tmp_path / "study")
    (output / "study.yaml").rename(output / ".study.yaml.x7f3")
    for name in ("tables", "figures", "samples", "runs"):
        shutil.rmtree(output / name)
    for name in ("report.html", "results.csv"):
        (output / name).unlink()
    with started(command(output), stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(records(output)) == 1, process)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=LAST_RESORT_S)
    assert process.returncode == 130
    assert "the same command continues where it stopped" in complaint

    with started(command(output)) as process:
        wait_for(lambda: len(records(output)) == 2, process)
        workers = children(process.pid)
        assert workers
    deadline = time.monotonic() + LAST_RESORT_S
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "an orphan lives on"
        time.sleep(0.05)

    with started(command(output), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(records(output)) == 3, process)
        for worker in children(process.pid):
            os.kill(worker, signal.SIGKILL)
        said, complaint = process.communicate(timeout=LAST_RESORT_S)
    assert process.returncode == 1
    assert "1 of 4 runs failed" in complaint
    assert "the process of the run ended with signal 9, perhaps for want of memory" in said

    with started(command(output), stdout=subprocess.PIPE) as first:  # and the same command mends it
        wait_for(lambda: "running" in statuses(output), first)
        first.send_signal(signal.SIGSTOP)  # it can't end before the second begins
        status, _, complaint = call(output)
        first.send_signal(signal.SIGCONT)
        said, _ = first.communicate(timeout=LAST_RESORT_S)
    assert status == 2
    assert f"{output} is at work in another process" in complaint
    assert first.returncode == 0
    assert "[4/4]" in said
    assert (output / "results.csv").read_bytes() == (undisturbed[0] / "results.csv").read_bytes()


def statuses(study: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in records(study)]


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_other_configuration_is_refused(undisturbed: tuple[Path, str], call: Ask) -> None:
    status, _, complaint = call(undisturbed[0], "--margin", "0.02")
    assert status == 2
    assert "holds another study (margin: 0.01 there, 0.02 now); name another directory" in complaint


@pytest.mark.slow
def test_damaged_record_is_named_kept_and_made_again(undisturbed: tuple[Path, str], call: Ask, tmp_path: Path) -> None:
    output = copy(undisturbed, tmp_path / "study")
    damaged = dict(zip(records(output)[1:], ['{"schema": 1, "status": "do', ""], strict=False))
    for path, content in damaged.items():
        path.write_text(content)
    status, said, _ = call(output)
    assert status == 0
    for path, content in damaged.items():
        assert f"{path} is damaged" in said
        assert path.with_name("record.json.damaged").read_text() == content
    assert said.count("it is kept as record.json.damaged, the run is done again") == 2
    assert (output / "results.csv").read_bytes() == (undisturbed[0] / "results.csv").read_bytes()


@pytest.mark.slow
def test_record_of_another_schema_is_refused_and_left_alone(
    undisturbed: tuple[Path, str], call: Ask, tmp_path: Path
) -> None:
    output = copy(undisturbed, tmp_path / "study")
    newer = records(output)[0]
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"schema": 99}))
    status, _, complaint = call(output)
    assert status == 2
    assert f"{newer} has schema 99, expected 1" in complaint
    assert json.loads(newer.read_text())["schema"] == 99


@pytest.mark.slow
def test_failing_run_is_recorded_and_the_rest_go_on(
    command: Callable[..., Call], finish: Finish, tmp_path: Path
) -> None:
    """The arm whose gamma starts out of range fails at once."""
    study = tmp_path / "study.yaml"
    study.write_text("arms: [none, {smooth: {gamma_init: 1.0e+38}}]\nhalf_data: false\nreplicates: {seeds: 2}\n")
    small = ["--epochs", "1", "--image-size", "64", "--batch-size", "4", "--encoder-weights", "none"]
    failed = finish(command(tmp_path / "study", "--config", str(study), options=small), status=1)
    arm = "smooth-0.4+gamma_init=1e+38"
    assert f"2 of 4 runs failed, first scenes {arm} fold 0 seed 0: the loss became" in failed.stderr
    left = {path.parent.parent.name: json.loads(path.read_text()) for path in records(tmp_path / "study")}
    assert left["none"]["status"] == "done"
    assert left[arm]["status"] == "failed"
    assert "the loss became" in left[arm]["reason"]
    assert "finish the runs of both arms" in failed.stdout
    report = (tmp_path / "study" / "report.html").read_text()
    assert "the loss became" in report


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


def copy_small(study: tuple[Path, str], to: Path) -> Path:
    """Copy what a report does with."""
    shutil.copytree(study[0], to, ignore=shutil.ignore_patterns("model", "predictions"))
    return to


@pytest.mark.slow
def test_full_disk_stops_the_study_and_loses_nothing(
    undisturbed: tuple[Path, str], call: Ask, small_disk: Path
) -> None:
    output = copy_small(undisturbed, small_disk / "study")
    shutil.rmtree(records(output)[-1].parent)
    status, _, complaint = call(output)
    assert status == 1
    assert "is full: free some space, then run the same command again; finished runs are kept" in complaint
    subprocess.run(["mount", "-o", "remount,size=2g", str(small_disk)], check=True)
    assert call(output)[0] == 0
    assert (output / "results.csv").read_bytes() == (undisturbed[0] / "results.csv").read_bytes()


@pytest.mark.slow
def test_disk_that_is_full_when_the_report_is_due_is_told_and_keeps_the_old_one(
    undisturbed: tuple[Path, str], call: Ask, small_disk: Path
) -> None:
    output = copy_small(undisturbed, small_disk / "study")
    before = (output / "report.html").read_bytes()
    with (small_disk / "rest").open("wb") as rest, contextlib.suppress(OSError):
        while True:
            rest.write(bytes(2**20))
    status, _, complaint = call(output, "--report-only")
    assert status == 1
    assert "is full: free some space, then run the same command again; finished runs are kept" in complaint
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
    call: Ask, tmp_path: Path, data: str | None, options: list[str], sentence: str
) -> None:
    status, _, complaint = call(tmp_path / "study", *options, options=["--encoder-weights", "none"], data=data)
    assert status == 2
    assert sentence in complaint
    assert complaint.count("\n") == 1
    assert not records(tmp_path / "study")


def test_directory_without_a_study_is_refused(call: Ask, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for options, sentence in (([], "holds no study; name another directory"), (["--report-only"], "is no study")):
        status, _, complaint = call(tmp_path, *options)
        assert status == 2
        assert sentence in complaint
