import platform
from importlib import metadata

import pytest

from smooth_attention.core import errors
from smooth_attention.core.errors import ConfigError, RequestError, RunError, SmoothAttentionError
from smooth_attention.core.provenance import versions
from smooth_attention.core.records import SCHEMA, STATUSES, read_record, write_record


@pytest.mark.parametrize("status", STATUSES)
def test_record_comes_back_as_written_with_undefined_figures_none(tmp_path, status):
    record = {"status": status, "metrics": {"iou": 0.1 + 0.2, "dice": float("nan")}, "data": {"name": "größer"}}
    write_record(tmp_path / "run", record)
    back = read_record(tmp_path / "run")
    assert back == {
        "schema": SCHEMA,
        "status": status,
        "metrics": {"iou": 0.1 + 0.2, "dice": None},
        "data": {"name": "größer"},
    }
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record.json"]


def test_write_record_sets_the_schema_whatever_the_record_said(tmp_path):
    write_record(tmp_path, {"schema": SCHEMA - 1, "status": "done"})
    assert read_record(tmp_path) == {"schema": SCHEMA, "status": "done"}


def test_write_record_knows_its_statuses(tmp_path):
    with pytest.raises(AssertionError):
        write_record(tmp_path, {"status": "nearly"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"record\.json is damaged \(Expecting value.*run the training again"),
        (b'{"schema": 1, "status"', r"record\.json is damaged"),
        (b'{"schema": 1, "status": "\xff"}', r"record\.json is damaged \('utf-8'"),
        (b'{"schema": 2, "status": "done"}', r"record\.json has schema 2, expected 1; run the training again"),
        (b'{"status": "done"}', r"record\.json has schema None, expected 1"),
        (b"[1]", r"record\.json has schema None, expected 1"),
    ],
    ids=["empty", "cut", "no utf-8", "other schema", "no schema", "no object"],
)
def test_read_record_refuses(tmp_path, content, match):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ConfigError, match=match):
        read_record(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "empty directory", "file"])
def test_read_record_says_that_this_is_no_run(tmp_path, kind):
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("weights")
    elif kind == "empty directory":
        path.mkdir()
    with pytest.raises(ConfigError, match=r"run is no run: it holds no record\.json; give what train wrote"):
        read_record(path)


def test_versions_are_those_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    for package in ("smooth-attention", "torch", "numpy"):
        assert found[package] == metadata.version(package)


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_errors_tell_a_wrong_request_from_a_failed_run(name):
    error = getattr(errors, name)
    assert issubclass(error, SmoothAttentionError)
    assert issubclass(error, RequestError) == issubclass(error, ValueError)
    if error is not SmoothAttentionError:
        assert issubclass(error, RequestError) != issubclass(error, RunError)
