"""The process that does a study's runs: what it does once for all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from smooth_attention.core.errors import ConfigError, RunError
from smooth_attention.data.folder import FolderSource
from smooth_attention.runs import inputs
from smooth_attention.runs.config import RunConfig
from smooth_attention.study.execution import worker
from smooth_attention.study.execution.runner import local_executor
from smooth_attention.study.execution.worker import answer


@pytest.mark.slow
def test_data_is_opened_and_fingerprinted_once_for_all_jobs(
    scenes: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, digested = Counter[str](), Counter[str]()
    open_source, digest = inputs.open_source, FolderSource.digest

    def count_openings(data, *args, **options):
        opened[data] += 1
        return open_source(data, *args, **options)

    def count_digests(source, stem):
        digested[stem] += 1
        return digest(source, stem)

    monkeypatch.setattr(inputs, "open_source", count_openings)
    monkeypatch.setattr(FolderSource, "digest", count_digests)
    options = {"data": str(scenes), "encoder_weights": "none", "image_size": 64, "epochs": 1, "batch_size": 4}
    none, blur = (RunConfig(arm=arm, **options).model_dump(mode="json") for arm in ("none", "blur"))
    jobs = [{"kind": "time", "config": none}] + [
        {"kind": "run", "config": config, "directory": str(tmp_path / config["arm"]), "corruptions": False}
        for config in (none, blur)
    ]
    open_data = inputs.open_once()
    assert [answer(job, cache, open_data)["status"] for job in jobs] == ["done"] * 3
    assert opened == {str(scenes): 1}
    assert set(digested.values()) == {1}


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ConfigError("no such encoder"), "refused", "no such encoder"),
        (RuntimeError("CUDA out\nof memory"), "failed", "RuntimeError: CUDA out of memory"),
    ],
    ids=["request", "any other"],
)
def test_timing_says_why_it_failed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(worker, "time_steps", fail)
    job = {"kind": "time", "config": RunConfig().model_dump(mode="json")}
    assert answer(job, cache, inputs.open_once()) == {"status": status, "reason": reason}


def test_a_batch_of_one_is_refused_when_steps_are_timed(scenes: Path, cache: Path) -> None:
    config = RunConfig(data=str(scenes), arm="none", encoder_weights="none", image_size=32, batch_size=1)
    found = answer({"kind": "time", "config": config.model_dump(mode="json")}, cache, inputs.open_once())
    assert found["status"] == "refused"
    assert "in batches of 1 leave a batch of one image" in found["reason"]


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [("refused", ConfigError, "^why$"), ("failed", RunError, "^why, while steps were timed; see .*log"),
     ("died", RunError, "^why$")],
)  # fmt: skip
def test_a_study_ends_with_the_reason_of_its_timing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, kind: type[Exception], sentence: str
) -> None:
    with local_executor(tmp_path / "log", tmp_path, corruptions=False) as executor:
        monkeypatch.setattr(executor, "send", lambda job: None)
        monkeypatch.setattr(executor, "receive", lambda timeout: {"status": status, "reason": "why"})
        with pytest.raises(kind, match=sentence):
            executor.time(RunConfig())


def test_a_worker_that_died_before_its_job_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends between two looks at it, so the job finds a closed pipe."""
    with local_executor(tmp_path / "log", tmp_path, corruptions=False) as executor:
        executor.open_worker()
        assert executor.process is not None
        executor.process.kill()
        executor.process.wait()
        monkeypatch.setattr(executor.process, "poll", lambda: None)
        with pytest.raises(RunError, match="the process of the run ended with signal 9"):
            executor.time(RunConfig())
