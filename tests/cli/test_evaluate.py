"""``evaluate --corruptions``: a table with its convention, everything in the JSON, the same modes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.cli.main import run as run_command
from smooth_attention.core.records import Record
from smooth_attention.runs import robustness


@pytest.mark.parametrize("mode", ["on", "bypass"])
def test_corruptions_are_printed_with_their_convention_and_written(
    finished_run: tuple[Path, Record],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: Any,
) -> None:
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))
    few = partial(robustness.measure_robustness, severities=(1, 5), corruptions=("shot_noise", "fog"))
    monkeypatch.setattr(robustness, "measure_robustness", few)
    options = ["--block", "off"] if mode == "bypass" else []
    arguments = ["evaluate", str(finished_run[0]), "--corruptions", "--output", str(tmp_path / "e.json"), *options]
    assert run_command(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    written = json.loads((tmp_path / "e.json").read_text())
    assert written["mode"] == mode
    figures = written["robustness"]
    assert figures["clean"]["iou"] == pytest.approx(written["metrics"]["pooled"]["iou"])
    for name, words in (("shot_noise", "shot noise"), ("fog", "fog")):
        mild, severe = figures["corruptions"][name]["retention"]
        assert f"{words} {mild:.3f} {severe:.3f}" in out
    assert "retained: pooled IoU over that of the same images uncorrupted" in out
    assert f"mean of the table {figures['retention']:.3f}" in out
    assert f"noise of 2 grey levels: {100 * figures['stability']['noise']['mask_agreement']:.2f} % of pixels" in out
    assert ("rows of attention move by" in out) == (mode == "on")


def test_without_the_option_no_image_is_corrupted(
    finished_run: tuple[Path, Record],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))
    assert run_command(["evaluate", str(finished_run[0]), "--output", str(tmp_path / "e.json")]) == 0
    assert "robustness" not in json.loads((tmp_path / "e.json").read_text())
    assert "retained" not in capsys.readouterr().out
