"""The process that does a study's runs: what it does once for all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from smooth_attention.data.folder import FolderSource
from smooth_attention.runs import inputs
from smooth_attention.runs.config import RunConfig
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
