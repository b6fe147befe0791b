"""Two small runs on images of which most are not square, and the app as a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from deadlines import LAST_RESORT_S
from smooth_attention import create_model
from smooth_attention.app.viewer import Viewer
from smooth_attention.runs.config import RunConfig
from smooth_attention.runs.train import train


@dataclass(frozen=True, slots=True)
class Served:
    """A page that is served.

    Attributes:
        url: its address, with a slash at the end.
        pid: of the process that serves it.
    """

    url: str
    pid: int


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


@contextmanager
def serve(*arguments: str | Path, cache: Path, folder: Path) -> Iterator[Served]:
    """Run the app until the context ends; its first line of output is the address."""
    log = folder / "app.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", "from smooth_attention.cli.main import main; main()", "app", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env={**os.environ, "SMOOTH_ATTENTION_CACHE": str(cache), "TMPDIR": str(folder)},
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, log.read_text()
            yield Served(address, process.pid)
        finally:
            process.terminate()
            process.wait(LAST_RESORT_S)
            process.stdout.close()
    assert process.returncode == 130
    assert not list(folder.glob("smooth-attention-*"))  # uploads and pictures are gone
    # what Gradio refuses by itself leaves a traceback, which does not reach our code
    assert "smooth_attention/" not in log.read_text(), log.read_text()


@pytest.fixture(scope="session")
def served(app_runs: dict[str, Path], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(app_runs["smooth"], app_runs["none"], cache=cache, folder=tmp_path_factory.mktemp("served")) as page:
        yield page
