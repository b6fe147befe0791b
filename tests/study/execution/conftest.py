"""A small study as a process of its own, and one that nothing happens to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from deadlines import LAST_RESORT_S
from smooth_attention.cli.main import run

OPTIONS = [
    *("--epochs", "2", "--image-size", "64", "--batch-size", "4", "--encoder-weights", "none"),
    *("--half-data", "False", "--seeds", "2", "--arms", "none,smooth-0.01"),
]
Call = dict[str, Any]


@pytest.fixture(scope="session")
def command(scenes: Path, cache: Path) -> Callable[..., Call]:
    """Return what starts a study: arguments for Popen; one thread, so that the tests beside it do not disturb it."""
    environment = {**os.environ, "SMOOTH_ATTENTION_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def make(output: Path, *more: str, options: Sequence[str] = OPTIONS) -> Call:
        arguments = [sys.executable, "-m", "smooth_attention", "study", str(scenes), "--output", str(output)]
        return {"args": [*arguments, *options, *more], "env": environment, "text": True}

    return make


@pytest.fixture
def call(
    scenes: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command of a study in this process; return exit status, output and errors."""
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))

    def ask(
        output: Path, *more: str, options: Sequence[str] = OPTIONS, data: Path | str | None = None
    ) -> tuple[int, str, str]:
        status = run(["study", str(data or scenes), "--output", str(output), *options, *more])
        return (status, *capsys.readouterr())

    return ask


@pytest.fixture(scope="session")
def finish() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what waits for a study and holds it to its exit status."""

    def wait(call: Call, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(**call, capture_output=True, timeout=LAST_RESORT_S, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return wait


@pytest.fixture(scope="session")
def undisturbed(
    command: Callable[..., Call],
    finish: Callable[..., subprocess.CompletedProcess[str]],
    make_once: Callable[[str, Callable[[Path], object]], Path],
) -> tuple[Path, str]:
    """A study that nothing happened to, and what it printed."""

    def fill(place: Path) -> None:
        (place / "said.txt").write_text(finish(command(place / "study")).stdout)

    place = make_once("undisturbed", fill)
    return place / "study", (place / "said.txt").read_text()
