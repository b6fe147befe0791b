"""Shape checks of the operator's signatures; small real datasets and trained runs, made once for all tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

if TYPE_CHECKING:
    from smooth_attention.core.records import Record

# before anything imports the package; an int is a float to a type checker, and here
jaxtyping.install_import_hook(
    "smooth_attention.ops", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

SHARED = Path(__file__).parents[2] / "shared"
Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_configure() -> None:
    """Processes of tests can be interrupted; a shell lets what it runs in the background ignore that, heirs and all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of the most slow tests, so that no worker is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return what fills a directory once for all workers of pytest-xdist; tests read there, who writes takes a copy."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    root = root / "once"
    root.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        place, made = root / name, root / f".{name}.made"
        with FileLock(root / f".{name}.lock"):
            if not made.exists():
                shutil.rmtree(place, ignore_errors=True)  # of a try that failed
                place.mkdir()
                fill(place)
                made.touch()
        return place

    return make


@pytest.fixture(scope="session")
def write_scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write generated scenes in the ``folder`` layout; with classes, background and the four kinds are five classes."""
    from smooth_attention.data.shapes import KINDS, draw_scene

    def write(count: int = 12, *, size: int = 64, with_classes: bool = False, into: Path | None = None) -> Path:
        root = (into or tmp_path_factory.mktemp("scenes")) / ("kinds" if with_classes else "scenes")
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        for index in range(count):
            scene = draw_scene(index, size=size)
            label = 1 + KINDS.index(scene.kind)
            mask = np.where(scene.mask, label if with_classes else 255, 0).astype(np.uint8)
            if with_classes:
                mask[:2] = 255
            height = size + 8 * (index % 3)  # sizes differ, none is square but the first
            resized = Image.fromarray(scene.image).resize((size, height), Image.Resampling.BILINEAR)
            resized.save(root / "images" / f"scene{index:02d}.png")
            Image.fromarray(mask).resize((size, height), Image.Resampling.NEAREST).save(
                root / "masks" / f"scene{index:02d}.png"
            )
        if with_classes:
            (root / "classes.txt").write_text("\n".join(["background", *KINDS]) + "\n")
        return root

    return write


@pytest.fixture(scope="session")
def scenes(write_scenes: Callable[..., Path], make_once: Once) -> Path:
    return make_once("scenes", lambda place: write_scenes(into=place)) / "scenes"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished_run(scenes: Path, cache: Path, make_once: Once) -> tuple[Path, Record]:
    """A run whose block smooths every position and weighs much, and its record."""
    from smooth_attention.core.records import read_record
    from smooth_attention.runs.config import RunConfig
    from smooth_attention.runs.train import train

    config = RunConfig(
        data=str(scenes),
        network="paper",
        encoder_weights="none",
        image_size=128,
        epochs=2,
        batch_size=4,
        arm="always",
        gamma_init=20.0,
    )
    output = make_once("always", lambda place: train(config, place, cache=cache))
    return output, read_record(output)


@pytest.fixture(scope="session")
def paper_run(scenes: Path, cache: Path, make_once: Once) -> tuple[Path, Record]:
    """A run of protocol ``paper``, and its record."""
    from smooth_attention.core.records import read_record
    from smooth_attention.runs.config import RunConfig
    from smooth_attention.runs.train import train

    config = RunConfig(data=str(scenes), protocol="paper", encoder_weights="none", image_size=64, epochs=3)
    output = make_once("paper", lambda place: train(config, place, cache=cache))
    return output, read_record(output)


@pytest.fixture(scope="session")
def look_run(write_scenes: Callable[..., Path], cache: Path, make_once: Once) -> Path:
    """A binary run."""
    from look_runs import train_small

    return make_once("look", lambda place: train_small(write_scenes(16, into=place), place / "small", cache)) / "small"


@pytest.fixture(scope="session")
def class_run(write_scenes: Callable[..., Path], cache: Path, make_once: Once) -> Path:
    """A run of five classes with ignored pixels, where every name would be markup if it were not escaped."""
    from look_runs import train_small, write_hostile_scenes

    def fill(place: Path) -> None:
        data = write_hostile_scenes(write_scenes(16, with_classes=True, into=place))
        train_small(data, place / "<i>classes", cache, allow_absent_classes=True)

    return make_once("classes", fill) / "<i>classes"


@pytest.fixture(scope="session")
def bare_run(write_scenes: Callable[..., Path], cache: Path, make_once: Once) -> Path:
    """A run without a block."""
    from look_runs import train_small

    def fill(place: Path) -> None:
        train_small(write_scenes(into=place), place / "bare", cache, arm="none", threshold=None)

    return make_once("bare", fill) / "bare"
