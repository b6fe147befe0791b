"""What a study says is judged once, whoever shows it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.cli.study import run
from smooth_attention.core.files import write_json
from smooth_attention.study.execution.load import PLAN_FILE, read_plan
from smooth_attention.study.verdicts.claims import judge_claims
from smooth_attention.study.verdicts.conclusions import judge_study
from smooth_attention.study.verdicts.corrupted import judge_retention
from smooth_attention.study.verdicts.verdict import judge
from study_records import make_study_records

ARMS = {"none": 0.70, "attention": 0.70, "smooth-0.4": 0.73}


def test_conclusions_are_findings_retention_and_claims(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, corruptions=True)
    found = judge_study(study)
    assert found.findings == judge(study)
    assert found.retained == judge_retention(study)
    assert found.claims == tuple(judge_claims(study))
    assert found.mixed == ()
    assert all((found.findings, found.retained, found.claims))


def test_everything_is_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study_records(tmp_path, arms=ARMS, corruptions=True)
    write_json(tmp_path / PLAN_FILE, {**read_plan(tmp_path), "command": "smooth-attention study"})
    calls: Counter[str] = Counter()
    for judged in (judge, judge_retention, judge_claims):
        count_everywhere(monkeypatch, judged, calls)
    run(["--output", str(study.directory), "--report-only"], "smooth-attention study")
    assert calls == {"judge": 1, "judge_retention": 1, "judge_claims": 1}
    shown = capsys.readouterr().out
    assert "corrupted images: smooth-0.4 keeps more" in shown
    assert (tmp_path / "tables" / "retention.md").is_file()
    assert (tmp_path / "report.html").is_file()


def count_everywhere(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], calls: Counter[str]) -> None:
    """Count the calls of a function under every name that a module of the package gives it."""

    def counted(*args: Any) -> Any:
        calls[function.__name__] += 1
        return function(*args)

    for name, module in list(sys.modules.items()):
        if name.startswith("smooth_attention"):
            for attribute in [key for key, value in vars(module).items() if value is function]:
                monkeypatch.setattr(module, attribute, counted)
