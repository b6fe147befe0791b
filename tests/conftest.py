"""Shape checks of the operator's signatures; small real datasets and one finished run, made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from smooth_attention.core.records import Record

# before anything imports the package; an int is a float to a type checker, and here
jaxtyping.install_import_hook(
    "smooth_attention.ops", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def write_scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write generated scenes in the ``folder`` layout; with classes, background and the four kinds are five classes."""
    from smooth_attention.data.shapes import KINDS, draw_scene

    def write(count: int = 12, *, size: int = 64, with_classes: bool = False) -> Path:
        root = tmp_path_factory.mktemp("scenes") / ("kinds" if with_classes else "scenes")
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
def scenes(write_scenes: Callable[..., Path]) -> Path:
    return write_scenes()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished_run(scenes: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A run whose block smooths every position and weighs much, and its record."""
    from smooth_attention.runs.config import RunConfig
    from smooth_attention.runs.train import train

    output = tmp_path_factory.mktemp("runs") / "always"
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
    return output, train(config, output, cache=cache)


@pytest.fixture(scope="session")
def look_run(write_scenes: Callable[..., Path], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary run."""
    from look_runs import train_small

    return train_small(write_scenes(16), tmp_path_factory.mktemp("look") / "small", cache)


@pytest.fixture(scope="session")
def class_run(write_scenes: Callable[..., Path], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five classes with ignored pixels, where every name would be markup if it were not escaped."""
    from look_runs import train_small, write_hostile_scenes

    data = write_hostile_scenes(write_scenes(16, with_classes=True))
    return train_small(data, tmp_path_factory.mktemp("look") / "<i>classes", cache, allow_absent_classes=True)
