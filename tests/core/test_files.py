"""Every kill and every error here is real: a child process is killed by a signal or by a limit of the kernel."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deadlines import LAST_RESORT_S
from smooth_attention.core.files import expand, plain, replace_directory, write_bytes, write_json, write_text

NAN, INFINITY = float("nan"), float("inf")
LIMIT = 65_536

WRITE_OVER_LIMIT = """
import resource, signal, sys
from pathlib import Path
from smooth_attention.core.files import write_bytes
if sys.argv[2] == "killed":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
write_bytes(Path(sys.argv[1]), bytes(1_000_000))
"""

WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from smooth_attention.core.files import write_bytes
for letter in itertools.cycle(b"bcdefghijklmnopqrstuvwxyz"):
    write_bytes(Path(sys.argv[1]), bytes([letter]) * int(sys.argv[2]))
"""

DIE_INSIDE = """
import os, signal, sys
from pathlib import Path
from smooth_attention.core.files import replace_directory
with replace_directory(Path(sys.argv[1])) as temporary:
    (temporary / "new").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    assert os.umask(before) == request.param


@pytest.mark.parametrize("data", [b"", b"new\n", bytes(100_000)], ids=len)
@pytest.mark.parametrize("old", [None, b"old and longer than the new one" * 9], ids=["absent", "replaced"])
def test_write_bytes_leaves_exactly_that_file(tmp_path, data, old):
    path = tmp_path / "made" / "where missing" / "file.bin"
    if old is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(old)
    write_bytes(path, data)
    assert path.read_bytes() == data
    assert names_in(path.parent) == ["file.bin"]


@pytest.mark.parametrize(("end", "status", "parts"), [("killed", -signal.SIGXFSZ, [LIMIT]), ("error", 1, [])])
def test_write_bytes_stopped_midway_keeps_the_old_file(tmp_path, end, status, parts):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_OVER_LIMIT, path, end, str(LIMIT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert path.read_bytes() == b"old"
    left = [other for other in tmp_path.iterdir() if other != path]
    assert [other.stat().st_size for other in left] == parts
    assert all(other.name.startswith(".file.") for other in left)


def test_write_bytes_is_never_seen_in_part_and_survives_sigkill(tmp_path):
    path, size = tmp_path / "file", 1 << 20
    path.write_bytes(b"a" * size)
    seen = set()
    with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, path, str(size)]) as writer:
        deadline = time.monotonic() + LAST_RESORT_S
        while len(seen) < 12 and time.monotonic() < deadline:
            data = path.read_bytes()
            assert data == data[:1] * size
            seen.add(data[:1])
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert len(seen) == 12
    data = path.read_bytes()
    assert data == data[:1] * size


def test_write_text_is_utf8_with_its_line_ends(tmp_path):
    write_text(tmp_path / "file", "größer\r\n≥\n")
    assert (tmp_path / "file").read_bytes() == "größer\r\n≥\n".encode()


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (NAN, None),
        (INFINITY, None),
        (-INFINITY, None),
        (np.float32("nan"), None),
        (0.1, 0.1),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (None, None),
        ("NaN", "NaN"),
        (Path("a") / "b", "a/b"),
        ((1, (2.0, NAN)), [1, [2.0, None]]),
        (np.array([[1.0, NAN], [INFINITY, 4.0]]), [[1.0, None], [None, 4.0]]),
        ({0: {"iou": [np.float32(0.5), NAN]}}, {"0": {"iou": [0.5, None]}}),
    ],
    ids=repr,
)
def test_write_json_turns_undefined_into_null_and_keeps_the_rest(tmp_path, value, want):
    path = tmp_path / "figures.json"
    write_json(path, {"value": value})
    assert json.loads(path.read_text()) == {"value": want}
    assert type(plain(value)) is type(want)


def test_write_json_refuses_what_is_no_figure_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "figures.json"
    write_json(path, {"iou": 0.5})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"iou": object()})
    assert json.loads(path.read_text()) == {"iou": 0.5}
    assert names_in(tmp_path) == ["figures.json"]


@pytest.mark.parametrize("old_mode", [None, 0o600], ids=["absent", "replaced"])
def test_permissions_follow_the_umask(tmp_path, umask, old_mode):
    file, directory = tmp_path / "file", tmp_path / "directory"
    if old_mode:
        file.touch(old_mode)
        directory.mkdir(0o700)
    write_bytes(file, b"")
    with replace_directory(directory):
        pass
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert directory.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("old", [[], ["old", "kept nowhere"]], ids=["absent", "replaced"])
def test_replace_directory_replaces_the_whole(tmp_path, old):
    path = tmp_path / "made" / "model"
    for name in old:
        path.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    with replace_directory(path) as temporary:
        assert names_in(temporary) == []
        assert temporary.parent == path.parent  # so that the last rename stays on one file system
        (temporary / "new").write_text("new")
        assert (names_in(path) if path.exists() else []) == sorted(old)
    assert names_in(path) == ["new"]
    assert names_in(path.parent) == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [[], ["old"]], ids=["absent", "present"])
def test_replace_directory_keeps_the_old_one_on_an_exception(tmp_path, error, old):
    path = tmp_path / "model"
    for name in old:
        path.mkdir()
        (path / name).write_text(name)

    def fail_inside():
        with replace_directory(path) as temporary:
            (temporary / "new").write_text("half")
            raise error("midway")

    with pytest.raises(error, match="midway"):
        fail_inside()
    assert names_in(tmp_path) == ["model"] * bool(old)
    assert (names_in(path) if old else []) == old


def test_replace_directory_killed_inside_keeps_the_old_one(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    done = subprocess.run([sys.executable, "-c", DIE_INSIDE, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names_in(path) == ["old"]
    assert all(name.startswith(".model.") for name in names_in(tmp_path) if name != "model")


@pytest.mark.parametrize("name", ["n" * 255, "\N{BLACK STAR}" * 85], ids=["ascii", "three bytes a letter"])
def test_names_may_be_as_long_as_the_system_allows(tmp_path, name):
    write_text(tmp_path / name, "old")
    write_text(tmp_path / name, "new")
    assert (tmp_path / name).read_text() == "new"
    for content in ("old", "new"):
        with replace_directory(tmp_path / "below" / name) as temporary:
            (temporary / content).touch()
    assert names_in(tmp_path / "below" / name) == ["new"]


@pytest.mark.parametrize(
    ("path", "want"),
    [("~", "/home/me"), ("~/x", "/home/me/x"), ("~nobody-here/x", "~nobody-here/x"), ("a/~", "a/~"), ("a/", "a")],
)
def test_expand_reads_the_home_directory_at_the_start(monkeypatch, path, want):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand(Path(path)) == Path(want)
