"""The configuration of a study: YAML in full, presets, layers, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smooth_attention.core.arms import ARMS, GATED
from smooth_attention.core.errors import ConfigError
from smooth_attention.study.design.config import (
    PRESETS,
    budget_hours,
    lay_over,
    make_study,
    read_study,
    write_study,
)

EXAMPLE = Path(__file__).parents[3] / "examples" / "study.yaml"


def test_example_is_a_study() -> None:
    config = make_study(read_study(EXAMPLE))
    assert [arm.name for arm in config.parsed_arms] == [
        "none", "blur", "attention", "smooth-0.4", "smooth-f0.25", "smooth-tuned",
    ]  # fmt: skip
    assert config.parsed_contrasts == (("smooth-0.4", "none"), ("smooth-0.4", "attention"), ("smooth-0.4", "blur"))
    assert config.replicates.count == 10
    assert [arm.name for arm in config.trained_arms][-1] == "none-half"
    run = config.run_config("shapes", config.parsed_arms[4], fold=3, seed=1)
    assert (run.data, run.network, run.encoder_weights, run.stages) == ("shapes", "unet", "none", (-2,))
    assert (run.arm, run.threshold, run.fraction) == ("smooth", None, 0.25)
    assert (run.fold, run.folds, run.seed, run.epochs, run.train_frac) == (3, 5, 1, 20, 1.0)


def test_written_study_reads_back_equal(tmp_path: Path) -> None:
    config = make_study(read_study(EXAMPLE))
    write_study(tmp_path / "study.yaml", config)
    assert make_study(read_study(tmp_path / "study.yaml")) == config


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_a_study_with_contrasts_and_a_control(name: str) -> None:
    config = make_study(lay_over(PRESETS[name](), {"data": ["flood"]}))
    assert config.parsed_contrasts
    assert config.control is not None
    assert config.control[0].settings["train_frac"] == 0.5


def test_paper_preset_is_the_papers() -> None:
    config = make_study(PRESETS["paper"]())
    assert [arm.name for arm in config.parsed_arms] == [*(f"smooth-0.{tenth}" for tenth in range(1, 10)), "attention"]
    run = config.run_config("shapes", config.parsed_arms[0])
    assert (run.protocol, run.network, run.epochs, run.batch_size, run.image_size) == ("paper", "paper", 20, 8, 224)


def test_controls_hold_every_arm_of_the_comparison() -> None:
    names = {arm.name for arm in make_study(PRESETS["controls"]()).trained_arms}
    assert names >= {f"{name}-0.4" if name in GATED else name for name in ARMS}
    assert names >= {"none+network=paper", "smooth-0.4+network=paper"}


def test_contrasts_left_out_compare_what_was_asked_for() -> None:
    config = make_study({"arms": ["none", "attention", "se", "smooth-0.1", "smooth-tuned"]})
    assert config.parsed_contrasts == (
        ("smooth-0.1", "none"), ("smooth-0.1", "attention"), ("smooth-tuned", "none"), ("smooth-tuned", "attention"),
    )  # fmt: skip


def test_later_layers_win_and_other_arms_void_earlier_contrasts() -> None:
    merged = lay_over(PRESETS["quick"](), {"training": {"epochs": 3}}, {"arms": ["none", "smooth"]})
    assert merged["training"] == {"image_size": 128, "epochs": 3}
    assert "contrasts" not in merged


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"margin": 0}, r"margin: Input should be greater than 0, got 0"),
        ({"replicates": {"seeds": 0}}, r"replicates.seeds: Input should be greater than or equal to 1, got 0"),
        ({"arms": ["none", "smoth"]}, r"no arm 'smoth'; did you mean smooth"),
        ({"contrasts": [["smooth", "blurr"]]}, r"contrasts compare arms of the study, got 'blurr'"),
        ({"contrasts": [["smooth", "smooth-0.4"]]}, r"a contrast needs two different arms, got 'smooth-0.4' twice"),
        ({"arms": ["none", "blur"]}, r"nothing to compare in arms none, blur; declare contrasts"),
        ({"data": []}, r"data: "),
        ({"seeds": 3}, r"no option 'seeds'"),
        ({"training": {"epoch": 3}}, r"no option 'training.epoch'; did you mean epochs"),
        ({"training": {"image_size": 100}}, r"image_size must be a multiple of 32, got 100"),
        ({"budget": "soon"}, r"a budget is a time such as 2h, 90min or 1h30min, got 'soon'"),
        ({"protocol": "paper", "arms": ["attention", "smooth-tuned"]}, r"protocol 'paper' has no validation images"),
        ({"protocol": "paper", "replicates": {"folds": 3}}, r"protocol 'paper' has no folds"),
    ],
    ids=str,
)
def test_mistakes_are_sentences(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_study(values)


@pytest.mark.parametrize(("text", "hours"), [("2h", 2), ("90min", 1.5), ("1h30min", 1.5), ("0.5h", 0.5), ("45m", 0.75)])
def test_budget_is_read(text: str, hours: float) -> None:
    assert budget_hours(text) == hours


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "can't read the study"), ("[1, 2]", "holds a list, expected a mapping"), ("a: [", "is no YAML")],
)
def test_files_that_are_no_study_are_refused(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        read_study(tmp_path / "study.yaml")


def test_paths_are_one_however_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    written = {"data": ["~/flood/", "./polyps", "shapes"], "network": {"encoder_weights": "~/w.pth"}}
    plain = {"data": ["/home/me/flood", "polyps", "shapes"], "network": {"encoder_weights": "/home/me/w.pth"}}
    assert make_study(written) == make_study(plain)
    assert make_study(written).data == tuple(plain["data"])
