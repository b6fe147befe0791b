"""What a study says: everything that is judged from its records, once, for tables, report and command line."""

from __future__ import annotations

from dataclasses import dataclass

from smooth_attention.study.execution.collect import Study
from smooth_attention.study.verdicts.claims import Claim, judge_claims
from smooth_attention.study.verdicts.corrupted import find_mixed, judge_retention
from smooth_attention.study.verdicts.findings import Finding
from smooth_attention.study.verdicts.verdict import judge

__all__ = ["Conclusions", "judge_study"]


@dataclass(frozen=True, slots=True)
class Conclusions:
    """What a study says.

    Attributes:
        findings: of the contrasts, those of the positive control last.
        retained: findings on corrupted images; empty where none were scored.
        mixed: a sentence for each contrast that is not among them, its runs being corrupted in different ways.
        claims: of the paper, with what was measured.
    """

    findings: tuple[Finding, ...]
    retained: tuple[Finding, ...]
    mixed: tuple[str, ...]
    claims: tuple[Claim, ...]


def judge_study(study: Study) -> Conclusions:
    """Return all that follows from the records of a study."""
    return Conclusions(judge(study), judge_retention(study), find_mixed(study), tuple(judge_claims(study)))
