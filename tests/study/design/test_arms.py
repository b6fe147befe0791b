"""Arms by name: one name for equal settings, sentences for what is unknown."""

from __future__ import annotations

from typing import Any

import pytest

from smooth_attention.core.errors import ConfigError
from smooth_attention.study.design.arms import TUNED, find_arm, half_of, make_arm, parse_arms


@pytest.mark.parametrize(
    ("choice", "name", "settings"),
    [
        ("none", "none", {"arm": "none"}),
        ("smooth", "smooth-0.4", {"arm": "smooth", "threshold": 0.4}),
        ("smooth-0.10", "smooth-0.1", {"arm": "smooth", "threshold": 0.1}),
        ("smooth-f0.25", "smooth-f0.25", {"arm": "smooth", "fraction": 0.25}),
        ("random-0.3", "random-0.3", {"arm": "random", "threshold": 0.3}),
        ("smooth-2.0", "attention", {"arm": "attention"}),
        ({"smooth": {"threshold": 0.4}}, "smooth-0.4", {"arm": "smooth", "threshold": 0.4}),
        ({"smooth": {"gamma_init": 1.0}}, "smooth-0.4+gamma_init=1.0",
         {"arm": "smooth", "threshold": 0.4, "gamma_init": 1.0}),
        ({"none": {"network": "paper"}}, "none+network=paper", {"arm": "none", "network": "paper"}),
        ({"smooth": {"stages": [-2, -3]}}, "smooth-0.4+stages=_-2__-3_",
         {"arm": "smooth", "threshold": 0.4, "stages": [-2, -3]}),
    ],
    ids=str,
)  # fmt: skip
def test_arm_has_one_name_and_its_settings(choice: Any, name: str, settings: dict[str, Any]) -> None:
    (arm,) = parse_arms([choice])
    assert (arm.name, dict(arm.settings), arm.candidates) == (name, settings, ())


def test_equal_arms_are_one() -> None:
    arms = parse_arms(["smooth", {"smooth": {"threshold": 0.4}}, "smooth-0.40", "none", "attention", "smooth-1.5"])
    assert [arm.name for arm in arms] == ["smooth-0.4", "none", "attention"]


def test_tuned_chooses_among_the_smooth_arms_beside_it() -> None:
    arms = parse_arms([TUNED, "none", "random", "smooth-0.1", "smooth-f0.5"])
    assert [arm.name for arm in arms] == ["none", "random-0.4", "smooth-0.1", "smooth-f0.5", TUNED]
    assert arms[-1].candidates == ("smooth-0.1", "smooth-f0.5")


def test_tuned_brings_candidates_where_there_are_too_few() -> None:
    arms = parse_arms(["none", "smooth-0.4", TUNED])
    assert [arm.name for arm in arms] == ["none", "smooth-0.4", "smooth-0.1", "smooth-f0.25", TUNED]


def test_tuned_takes_its_own_rules() -> None:
    arms = parse_arms([{TUNED: {"thresholds": [0.2, 0.3], "fractions": [0.1]}}])
    assert arms[-1].candidates == ("smooth-0.2", "smooth-0.3", "smooth-f0.1")


def test_half_trains_on_half_of_the_images() -> None:
    half = half_of(make_arm("none", {}))
    assert (half.name, dict(half.settings)) == ("none-half", {"arm": "none", "train_frac": 0.5})


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ("smoth", r"no arm 'smoth'; did you mean smooth"),
        ({"smooth": {"treshold": 0.4}}, r"arm 'smooth' has no setting 'treshold'; known: threshold"),
        ({"smooth": 0.4}, r"arm 'smooth' needs a mapping of settings .*, got 0.4"),
        ({"smooth": {}, "none": {}}, r"an arm is a name, or one name with its settings"),
        (4, r"an arm is a name, or one name with its settings, got 4"),
        ({TUNED: {"threshold": 0.4}}, r"arm 'smooth-tuned' has no setting 'threshold'; known: thresholds, fractions"),
    ],
    ids=str,
)
def test_unknown_arms_are_refused(choice: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_arms([choice])


def test_contrast_finds_its_arm_by_any_name() -> None:
    arms = parse_arms(["smooth", "none"])
    assert find_arm("smooth", arms) is find_arm("smooth-0.4", arms)
    with pytest.raises(ConfigError, match=r"contrasts compare arms of the study, got 'blur'; known: smooth-0.4, none"):
        find_arm("blur", arms)
