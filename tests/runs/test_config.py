"""Configurations: read, refused in one sentence, written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from smooth_attention.core.errors import ConfigError
from smooth_attention.runs.config import RunConfig, make_config, read_config, write_config


def test_config_survives_yaml(tmp_path: Path) -> None:
    config = RunConfig(data="x", threshold=0.2, stages=(-2, -1), patience=3)
    write_config(tmp_path / "config.yaml", config)
    assert make_config(read_config(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epochs": "twenty"}, "epochs: .* valid integer.* got 'twenty'"),
        ({"epochs": 0}, "epochs: .*greater than or equal to 1, got 0"),
        ({"epoch": 3}, "no option 'epoch'; did you mean epochs\\?"),
        ({"threshold": 0.1, "fraction": 0.2}, "threshold and fraction exclude each other"),
        ({"threshold": float("nan")}, "threshold is NaN"),
        ({"fraction": 1.0}, "fraction: .*less than 1, got 1.0"),
        ({"arm": "none", "threshold": 0.4}, "arm 'none' takes neither threshold nor fraction"),
        ({"arm": "sharp"}, "arm: .*'none', 'blur'.*got 'sharp'"),
        ({"arm": "smoth"}, r"arm: .*\(did you mean smooth\?\), got 'smoth'"),
        ({"network": "deeplab"}, r"network: .*\(did you mean deeplabv3, deeplabv3plus\?\), got 'deeplab'"),
        ({"network": "paper", "encoder": "resnet34"}, "network 'paper' has its own encoder, as published"),
        ({"network": "paper", "stages": (-1,)}, "network 'paper' has its own stages, as published"),
        ({"network": "paper", "output_stride": 8}, "network 'paper' has its own output_stride, as published"),
        ({"output_stride": 4}, "output_stride: .*8, 16 or 32.*got 4"),
        ({"gamma_rate": 0}, "gamma_rate: .*greater than 0, got 0"),
        ({"image_size": 100}, "multiple of 32, got 100; the nearest is 96"),
        ({"fold": 1}, "fold 1 needs folds"),
        ({"fold": 3, "folds": 3}, "fold is 0 to 2 of 3 folds, got 3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_config_refuses_in_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        make_config(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "filled"),
    [
        ({}, {"network": "unet", "stages": (-2,), "gamma_init": 0.1, "threshold": 0.4}),
        ({"network": "deeplabv3"}, {"stages": (-1,), "gamma_init": 0.1}),
        ({"network": "paper"}, {"stages": None, "gamma_init": 0.0}),
        ({"arm": "se"}, {"gamma_init": 1.0, "threshold": None}),
        ({"arm": "nl", "network": "paper"}, {"gamma_init": 1.0}),
        ({"arm": "median", "gamma_init": 0.5}, {"gamma_init": 0.5}),
    ],
    ids=str,
)
def test_config_resolves_what_is_left_out(values: dict[str, object], filled: dict[str, object]) -> None:
    config = make_config(values)
    assert {name: getattr(config, name) for name in filled} == filled
    assert make_config(config.model_dump()) == config


@pytest.mark.parametrize("field", ["data", "encoder_weights"])
@pytest.mark.parametrize(
    ("text", "want"),
    [("a/", "a"), ("./a", "a"), ("/a/b//", "/a/b"), ("~/a/", "/home/me/a"), ("shapes", "shapes"), ("none", "none")],
)
def test_a_path_is_one_however_it_is_written(monkeypatch: pytest.MonkeyPatch, field: str, text: str, want: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert make_config({field: text}) == make_config({field: want})
    assert getattr(make_config({field: text}), field) == want


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "latin-1"])
def test_yaml_in_another_encoding_is_refused_naming_the_file(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "c.yaml").write_bytes("data: größe".encode(encoding))
    with pytest.raises(ConfigError, match=r"c\.yaml is not in UTF-8: .* at byte \d+; save it as text in UTF-8"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs: twenty", "c.yaml: epochs: "),
        ("- epochs", "holds a list, expected a mapping"),
        ("a: [", "c.yaml is no YAML"),
    ],
)
def test_yaml_is_refused_naming_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_config(tmp_path / "c.yaml")


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read the configuration .*none\.yaml"):
        read_config(tmp_path / "none.yaml")
