"""Options of ``study``: what is said wins over the file, the file over the preset; False is said too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from smooth_attention.cli.options import read_options
from smooth_attention.cli.study import StudyOptions, hours, study_config
from smooth_attention.core.errors import ConfigError
from smooth_attention.study.design.config import StudyConfig


def read(*arguments: str) -> StudyConfig:
    options = read_options(StudyOptions, ["flood", "--output", "out", *arguments], "study")
    return study_config(dataclasses.asdict(options))


def names(config: StudyConfig) -> list[str]:
    return [arm.name for arm in config.parsed_arms]


def test_without_arms_or_file_it_is_quick() -> None:
    config = read()
    assert names(config)[:4] == ["none", "blur", "attention", "smooth-0.4"]
    assert config.training.image_size == 128
    assert config.data == ("flood",)


@pytest.mark.parametrize(
    ("option", "value", "field", "want"),
    [
        ("--augment", "False", "training.augment", False),
        ("--half-data", "False", "half_data", False),
        ("--decay-gamma", None, "training.decay_gamma", True),
        ("--image-size", "64", "training.image_size", 64),
        ("--network", "fpn", "network.name", "fpn"),
        ("--encoder-weights", "none", "network.encoder_weights", "none"),
        ("--folds", "4", "replicates.folds", 4),
        ("--margin", "0.03", "margin", 0.03),
        ("--corruptions", None, "corruptions", True),
        ("--budget", "2h", "budget", "2h"),
    ],
)
def test_every_option_reaches_its_field(option: str, value: str | None, field: str, want: Any) -> None:
    found: Any = read(option, *([] if value is None else [value]))
    for part in field.split("."):
        found = getattr(found, part)
    assert found == want


def test_thresholds_and_fractions_join_the_arms() -> None:
    config = read("--arms", "none,attention", "--thresholds", "0.1,0.3", "--fractions", "0.5")
    assert names(config) == ["none", "attention", "smooth-0.1", "smooth-0.3", "smooth-f0.5"]
    assert names(read("--thresholds", "0.2"))[:5] == ["none", "blur", "attention", "smooth-0.4", "smooth-0.2"]


def test_file_wins_over_preset_and_options_over_both(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("training: {epochs: 3, batch_size: 2}\nmargin: 0.05\n")
    config = read("--preset", "quick", "--config", str(file), "--epochs", "7")
    assert (config.training.epochs, config.training.batch_size, config.training.image_size) == (7, 2, 128)
    assert config.margin == 0.05


def test_mistake_in_a_file_names_it(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("arms: [none, smoth]\n")
    with pytest.raises(ConfigError, match=r"study.yaml: no arm 'smoth'; did you mean smooth"):
        read("--config", str(file))


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "1 min"), (125, "2 min"), (3600, "1 h 00 min"), (9060, "2 h 31 min")]
)
def test_hours_are_read_easily(seconds: float, text: str) -> None:
    assert hours(seconds) == text
