"""Two small runs on images of which most are not square, and the app as a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from app_page import Served, serve
from smooth_attention import create_model
from smooth_attention.app.viewer import Viewer
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.train import train


@pytest.fixture(scope="session")
def wide_scenes(write_scenes: Callable[..., Path], make_once: Callable[..., Path]) -> Path:
    return make_once("wide", lambda place: write_scenes(15, size=96, into=place)) / "scenes"


@pytest.fixture(scope="session")
def app_runs(wide_scenes: Path, cache: Path, make_once: Callable[..., Path]) -> dict[str, Path]:
    """Return finished runs by arm: the block of ``smooth`` weighs much, ``none`` has none."""
    small: dict[str, Any] = {
        "data": str(wide_scenes), "encoder_weights": "none", "image_size": 96, "epochs": 1, "batch_size": 4
    }  # fmt: skip
    options: dict[str, dict[str, Any]] = {"smooth": {"fraction": 0.25, "gamma_init": 4.0}, "none": {}}

    def fill(root: Path) -> None:
        for arm, own in options.items():
            train(RunConfig(arm=arm, **small, **own), root / arm, cache=cache)
            shutil.rmtree(root / arm / "checkpoints")  # hundreds of MB

    root = make_once("app", fill)
    return {arm: root / arm for arm in options}


@pytest.fixture(scope="session")
def make_viewer(
    app_runs: dict[str, Path], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Viewer]:
    """Return what makes a viewer of both runs and of a model without a run, ``heads``, which has several."""

    def make(*, classes: int, heads: int) -> Viewer:
        model = tmp_path_factory.mktemp("model") / "heads"
        torch.manual_seed(0)
        options = {"fraction": 0.5, "heads": heads}
        create_model("unet", encoder_weights=None, classes=classes, block_options=options).save_pretrained(model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SMOOTH_ATTENTION_CACHE", str(cache))
            made = Viewer({**app_runs, "heads": model})
            for name in app_runs:
                made.open(name)
        return made

    return make


@pytest.fixture(scope="session")
def served(app_runs: dict[str, Path], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(app_runs["smooth"], app_runs["none"], cache=cache, folder=tmp_path_factory.mktemp("served")) as page:
        yield page
