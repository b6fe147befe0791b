"""Opening the data of runs: once for many of them, and anew where it differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from smooth_attention.core.errors import DataError
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.inputs import open_once


def test_each_data_set_is_opened_once(scenes: Path) -> None:
    open_data = open_once()
    first, notes = open_data(RunConfig(data=str(scenes), image_size=64))
    again, _ = open_data(RunConfig(data=str(scenes), image_size=128, arm="none", seed=3))
    assert first is again
    assert notes == []
    others = [
        open_data(config)[0]
        for config in (
            RunConfig(data=str(scenes), skip_broken=True),
            RunConfig(data=str(scenes), layout="folder"),
            RunConfig(data="shapes", image_size=64),
            RunConfig(data="shapes", image_size=96),
        )
    ]
    assert len({id(source) for source in (first, *others)}) == 5
    assert open_once()(RunConfig(data=str(scenes)))[0] is not first


def test_data_that_was_refused_is_opened_again(tmp_path: Path, scenes: Path) -> None:
    open_data = open_once()
    config = RunConfig(data=str(tmp_path / "pets"))
    with pytest.raises(DataError, match="no such data directory"):
        open_data(config)
    (tmp_path / "pets").symlink_to(scenes)
    assert open_data(config)[0].stems
