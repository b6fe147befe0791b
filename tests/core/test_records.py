import platform
from dataclasses import replace
from importlib import metadata

import pytest

from record_files import read_values, write_values
from smooth_attention.core import errors
from smooth_attention.core.errors import ConfigError, RequestError, RunError, SmoothAttentionError
from smooth_attention.core.parts import read_part
from smooth_attention.core.provenance import versions
from smooth_attention.core.records import (
    SCHEMA,
    STATUSES,
    DataFacts,
    PartMetrics,
    PooledMetrics,
    Record,
    RunMetrics,
    SwitchedMetrics,
    read_record,
    write_record,
)
from study_records import make_study_records


@pytest.mark.parametrize("status", STATUSES)
def test_record_comes_back_as_written_with_undefined_metrics_none(tmp_path, status):
    pooled = read_part(PooledMetrics, {"iou": 0.1 + 0.2, "dice": float("nan")})
    test = replace(read_part(PartMetrics, {}), pooled=pooled)
    data = read_part(DataFacts, {"name": "größer"})
    write_record(tmp_path / "run", Record(status=status, config={}, data=data, metrics=RunMetrics(test=test)))
    back = read_record(tmp_path / "run")
    assert (back.status, back.data.name) == (status, "größer")
    assert (back.metrics.test.pooled.iou, back.metrics.test.pooled.dice) == (0.1 + 0.2, None)
    assert read_values(tmp_path / "run") == {
        "status": status,
        "config": {},
        "data": {"name": "größer"},
        "metrics": {"test": {"pooled": {"iou": 0.1 + 0.2, "dice": None}}},
        "schema": SCHEMA,
    }
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record.json"]


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_records_of_a_study_are_written_as_they_were_read(tmp_path, protocol):
    study = make_study_records(
        tmp_path / "study", arms={"none": 0.7, "median": 0.7, "blur": 0.7, "attention": 0.7, "smooth-0.4": 0.7},
        protocol=protocol, seeds=1, corruptions=True,
    )  # fmt: skip
    for result in study.results:
        before = read_values(result.directory)
        write_record(tmp_path / "again", read_record(result.directory))
        assert read_values(tmp_path / "again") == before


def test_what_a_later_version_wrote_is_kept_when_something_is_added(tmp_path):
    values = {
        "schema": SCHEMA,
        "status": "done",
        "config": {"arm": "new", "later": [1]},
        "metrics": {"test": {"gate_off": {"iou": 0.5, "images": [{"stem": "a", "iou": None}]}, "later": None}},
        "later": {"x": [1, None]},
    }
    write_values(tmp_path, values)
    record = read_record(tmp_path)
    switched = read_part(SwitchedMetrics, {"iou": 0.4, "changed_pixels": 0.1})
    test = replace(record.metrics.test, bypass=switched)
    write_record(tmp_path, replace(record, metrics=replace(record.metrics, test=test)))
    values["metrics"]["test"]["bypass"] = {"iou": 0.4, "changed_pixels": 0.1}
    assert read_values(tmp_path) == values


def test_old_failed_record_reads_as_one_without_data_and_metrics(tmp_path):
    write_values(tmp_path, {"status": "failed", "reason": "no data", "config": {}})
    record = read_record(tmp_path)
    assert (record.reason, record.data.fingerprint) == ("no data", None)
    assert (record.measures, record.diagnostics) == (None, None)
    test = record.metrics.test
    assert (test.pooled.iou, test.images, test.gate_off, test.corruptions) == (None, (), None, None)


def test_write_record_knows_its_statuses(tmp_path):
    with pytest.raises(AssertionError):
        write_record(tmp_path, Record(status="nearly", config={}))
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
        (b'{"schema": 1, "data": []}', r"record\.json is damaged \(expected dict, got list\); run the training again"),
    ],
    ids=["empty", "cut", "no utf-8", "other schema", "no schema", "no object", "other shape"],
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
