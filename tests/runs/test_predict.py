"""The mask of one image, from a path or an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smooth_attention.core.errors import DataError
from smooth_attention.core.records import Record
from smooth_attention.data.files import open_image
from smooth_attention.models import PaperUNet, load_model
from smooth_attention.runs.predict import predict


def test_masks_of_the_test_part_are_those_in_the_run(finished_run: tuple[Path, Record], scenes: Path) -> None:
    run, record = finished_run
    net = load_model(run)
    for stem in record.data.split.test:
        expected = np.asarray(open_image(run / "predictions" / f"{stem}.png"))
        again = predict(net, scenes / "images" / f"{stem}.png")
        assert np.mean(255 * again != expected) < 1e-3  # a batch rounds otherwise than a single image


def test_array_and_path_agree(finished_run: tuple[Path, Record], scenes: Path) -> None:
    net = load_model(finished_run[0])
    path = scenes / "images" / "scene02.png"
    np.testing.assert_array_equal(predict(net, path), predict(net, np.asarray(open_image(path))))


def test_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(DataError, match=r"note\.png is no image that can be read"):
        predict(PaperUNet(None), tmp_path / "note.png")
