"""Masks of files: one per image at the image's size, nothing of the user's overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from miniatures import save_image
from smooth_attention.core.errors import DataError
from smooth_attention.core.records import Record
from smooth_attention.data.files import open_image
from smooth_attention.models import PaperUNet, Preprocessing, load_model
from smooth_attention.runs.mask_files import list_inputs, predict_files
from smooth_attention.runs.predict import predict
from smooth_attention.viz.colours import palette


def test_masks_have_the_images_sizes_and_are_0_or_255(
    finished_run: tuple[Path, Record], scenes: Path, tmp_path: Path
) -> None:
    net = load_model(finished_run[0])
    options = {"with_probabilities": True, "with_overlay": True}
    count, masked = predict_files(net, [scenes / "images"], tmp_path / "out", **options)
    written = [each.mask for each in masked]
    assert count == len(written)
    assert [path.stem for path in written] == [f"scene{i:02d}" for i in range(12)]
    for path in written:
        mask, image = open_image(path), open_image(scenes / "images" / path.name)
        assert (mask.size, mask.mode) == (image.size, "L")
        assert set(np.unique(np.asarray(mask))) <= {0, 255}
        probability = np.load(path.with_suffix(".npy"))
        np.testing.assert_array_equal(np.asarray(mask) == 255, probability >= 0.5)
        assert open_image(path.with_name(f"{path.stem}_overlay.png")).size == image.size


@pytest.mark.parametrize("names", [("a", "b", "c"), None], ids=["named", "unnamed"])
def test_classes_become_palette_pngs_of_indices(scenes: Path, tmp_path: Path, names: tuple[str, ...] | None) -> None:
    net = PaperUNet(None, classes=3)
    net.preprocessing = Preprocessing(image_size=64, class_names=names)
    _, (masked,) = predict_files(net, [scenes / "images" / "scene01.png"], tmp_path / "out")
    mask = open_image(masked.mask)
    assert mask.mode == "P"
    np.testing.assert_array_equal(np.asarray(mask), predict(net, scenes / "images" / "scene01.png"))
    np.testing.assert_array_equal(np.reshape(mask.getpalette(), (-1, 3))[:3], palette(3)[:3])


def test_images_are_never_overwritten(finished_run: tuple[Path, Record], scenes: Path) -> None:
    net = load_model(finished_run[0])
    before = (scenes / "images" / "scene00.png").read_bytes()
    with pytest.raises(DataError, match="would be written beside"):
        predict_files(net, [scenes / "images"], scenes / "images")
    assert (scenes / "images" / "scene00.png").read_bytes() == before


def test_list_inputs_names_what_is_wrong(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such image or directory"):
        list_inputs([tmp_path / "none.png"])
    with pytest.raises(DataError, match="holds no image"):
        list_inputs([tmp_path])
    with pytest.raises(DataError, match="two images share the stem 'scene00'"):
        list_inputs([scenes / "images", scenes / "masks" / "scene00.png"])


def test_colliding_names_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("a.png", "a_overlay.png"):
        save_image(tmp_path / "in" / name, np.zeros((40, 40, 3), np.uint8))
    net = PaperUNet(None)
    with pytest.raises(DataError, match=r"a\.png and .*a_overlay\.png would both be written as a_overlay\.png"):
        predict_files(net, [tmp_path / "in"], tmp_path / "out", with_overlay=True)
    assert not (tmp_path / "out").exists()
    _, masked = predict_files(net, [tmp_path / "in"], tmp_path / "out")
    assert [each.mask.name for each in masked] == ["a.png", "a_overlay.png"]


def test_an_image_that_is_broken_does_not_keep_the_others(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (40, 40, 3), np.uint8)
    for stem in "abc":
        path = save_image(tmp_path / "in" / f"{stem}.png", noise)
    path.with_name("b.png").write_bytes(path.read_bytes()[:200])
    (tmp_path / "in" / "._c.png").write_bytes(b"x")  # macOS leaves these on foreign disks
    count, masked = predict_files(PaperUNet(None), [tmp_path / "in"], tmp_path / "out")
    found = {each.image.stem: each for each in masked}
    assert count == len(found) == 3
    assert (found["b"].mask, found["a"].mask) == (None, tmp_path / "out" / "a.png")
    assert "b.png is broken" in found["b"].error
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
