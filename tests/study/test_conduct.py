"""A study from its question to its answer: what is done once."""

from __future__ import annotations

from pathlib import Path

import pytest

from smooth_attention.data.opening import open_source
from smooth_attention.runs import inputs
from smooth_attention.study.conduct import forecast, is_complete
from smooth_attention.study.design.config import make_study
from smooth_attention.study.design.plan import Speed


class Clock:
    """Times nothing."""

    def time(self, config: object) -> Speed:
        return Speed(step_seconds=4.0, image_seconds=0.0)


def test_planning_opens_the_data_once(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(inputs, "open_source", lambda data, *a, **k: opened.append(data) or open_source(data, *a, **k))
    config = make_study(
        {
            "data": [str(scenes)],
            "arms": ["none", "smooth"],
            "replicates": {"seeds": 4},
            "budget": "0.01h",
            "training": {"epochs": 1},
        }
    )
    open_data = inputs.open_once()
    assert forecast(config, tmp_path, Clock(), open_data).config.replicates.seeds < 4  # so it was planned again
    assert not is_complete(config, tmp_path, open_data)
    assert opened == [str(scenes)]
