"""Options as they are typed: the home directory is read wherever a path may stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from smooth_attention.cli.options import config_file, read_options


@dataclass(frozen=True)
class Paths:
    """Every kind of option that may be a path."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    output: Path
    data: str = "shapes"
    several: tuple[str, ...] = ()
    other: Path | None = None
    number: int = 3


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


def test_home_is_read_in_paths_and_in_texts_that_begin_with_it() -> None:
    arguments = ["~/a", "b~", "--output=~/o", "--data=~/d", "--several", "~/s", "t", "--number", "4"]
    want = Paths((Path("/home/me/a"), Path("b~")), Path("/home/me/o"), "/home/me/d", ("/home/me/s", "t"), None, 4)
    assert read_options(Paths, arguments, "prog") == want


def test_home_is_read_in_defaults_of_a_file_too() -> None:
    found = read_options(Paths, ["a", "--output", "o"], "prog", defaults={"data": "~/d", "other": Path("~/x")})
    assert (found.data, found.other) == ("/home/me/d", Path("/home/me/x"))


@pytest.mark.parametrize("arguments", [["--config=~/c.yaml"], ["--config", "~/c.yaml"]], ids=len)
def test_home_is_read_in_the_name_of_the_file(arguments: list[str]) -> None:
    assert config_file(arguments) == Path("/home/me/c.yaml")
