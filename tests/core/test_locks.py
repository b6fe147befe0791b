"""Locks: refused while another process has them, gone with that process, not inherited."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deadlines import LAST_RESORT_S
from smooth_attention.core.errors import ConfigError
from smooth_attention.core.locks import exclusive

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from smooth_attention.core.locks import exclusive

def leave_in_a_child():
    with exclusive(Path(sys.argv[1]), refusal="taken"):
        if (child := os.fork()) == 0:
            return
        os.waitpid(child, 0)
        print("held", flush=True)
        time.sleep(9999)

if sys.argv[2] == "leave":
    leave_in_a_child()
    sys.exit()
with exclusive(Path(sys.argv[1]), refusal="taken"):
    if sys.argv[2] == "fork" and os.fork() == 0:
        os.setsid()
        print(os.getpid(), flush=True)
        time.sleep(9999)
    elif sys.argv[2] == "spawn":
        print(subprocess.Popen(["sleep", "9999"], start_new_session=True, close_fds=False).pid, flush=True)
    elif sys.argv[2] == "hold":
        print("held", flush=True)
    time.sleep(9999)
"""


@contextmanager
def holder(path: Path, way: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), way], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("way", ["hold", "leave"])  # leave: a forked child has left the context before
def test_lock_is_refused_while_held_and_free_once_its_process_was_killed(tmp_path: Path, way: str) -> None:
    path = tmp_path / "deep" / ".lock"
    with holder(path, way) as (process, said):
        assert said == "held"
        with pytest.raises(ConfigError, match="study is at work"), exclusive(path, refusal="study is at work"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with exclusive(path, refusal="stale"):
            pass


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_lock_is_not_inherited_by_a_child_that_lives_on(tmp_path: Path, way: str) -> None:
    path = tmp_path / ".lock"
    with holder(path, way) as (process, child):
        try:
            process.kill()
            process.wait()
            os.kill(int(child), 0)  # it lives
            with exclusive(path, refusal="inherited"):
                pass
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path, "hold") as (process, _):
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"]).wait()
        with exclusive(path, refusal="never", patience_seconds=LAST_RESORT_S):
            pass


def test_lock_is_free_after_the_context_and_after_an_error_in_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    for _ in range(2):
        with pytest.raises(KeyError), exclusive(path, refusal="kept"):
            raise KeyError
    assert path.read_bytes() == b""
