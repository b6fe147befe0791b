"""Comparison of two sets of masks: scikit-learn on the same files is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as oracle

from record_files import write_values
from smooth_attention.core.errors import DataError
from smooth_attention.data.files import open_image
from smooth_attention.runs.compare import compare

STEMS = [f"im{i}" for i in range(9)]


def write_masks(folder: Path, seed: int, *, labels: int, ending: str = "") -> Path:
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number, stem in enumerate(STEMS):
        mask = generator.integers(0, labels, (20 + number, 30)).astype(np.uint8)
        Image.fromarray(mask * (255 if labels == 2 else 1)).save(folder / f"{stem}{ending}.png")
    return folder


def read(folder: Path, stem: str) -> np.ndarray:
    return np.asarray(open_image(next(folder.glob(f"{stem}*.png"))))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    truth = write_masks(tmp_path / "data" / "masks", 0, labels=2)
    groups = [f"{stem},{'left' if number < 4 else 'right'}{number % 2}" for number, stem in enumerate(STEMS)]
    (tmp_path / "data" / "groups.csv").write_text("\n".join(["stem,group", *groups]))
    return write_masks(tmp_path / "a", 1, labels=2, ending="_mask"), write_masks(tmp_path / "b", 2, labels=2), truth


def test_binary_figures_equal_scikit_learn(folders: tuple[Path, Path, Path]) -> None:
    a, b, truth = folders
    result = compare(a, b, truth)
    expected = np.concatenate([read(truth, stem).ravel() > 0 for stem in STEMS])
    for side, folder, found in (("a", a, result.a), ("b", b, result.b)):
        predicted = np.concatenate([read(folder, stem).ravel() > 0 for stem in STEMS])
        assert found.pooled.iou == pytest.approx(oracle.jaccard_score(expected, predicted))
        assert found.pooled.f1 == pytest.approx(oracle.f1_score(expected, predicted))
        by_image = [oracle.jaccard_score(read(truth, s).ravel() > 0, read(folder, s).ravel() > 0) for s in STEMS]
        assert found.per_image.iou == pytest.approx(np.mean(by_image))
        assert [getattr(image, f"{side}_iou") for image in result.images] == pytest.approx(by_image)
    for found, ours, theirs in (
        (result.differences.pooled, result.b.pooled, result.a.pooled),
        (result.differences.per_image, result.b.per_image, result.a.per_image),
    ):
        for metric, each in found.items():
            assert each.difference == pytest.approx(getattr(ours, metric) - getattr(theirs, metric))
            assert each.low <= each.difference <= each.high
    assert "these two networks only" in result.convention


def test_class_figures_equal_scikit_learn(tmp_path: Path) -> None:
    truth = write_masks(tmp_path / "data" / "masks", 0, labels=4)
    (tmp_path / "data" / "classes.txt").write_text("a\nb\nc\nd\n")
    a, b = (write_masks(tmp_path / str(seed), seed, labels=4) for seed in (1, 2))
    result = compare(a, b, tmp_path / "data")
    expected = np.concatenate([read(truth, stem).ravel() for stem in STEMS])
    predicted = np.concatenate([read(a, stem).ravel() for stem in STEMS])
    scores = oracle.jaccard_score(expected, predicted, average=None)
    assert [result.a.pooled.classes[name].iou for name in "abcd"] == pytest.approx(list(scores))
    assert result.a.pooled.iou == pytest.approx(scores.mean())
    said = result.b.pooled.iou - result.a.pooled.iou
    assert result.differences.pooled["iou"].difference == pytest.approx(said)


def test_groups_are_resampled_whole(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, b, truth = folders
    assert compare(a, b, truth).num_groups == 4
    (tmp_path / "one.csv").write_text("stem,group\n" + "\n".join(f"{stem},all" for stem in STEMS))
    result = compare(a, b, truth, groups=tmp_path / "one.csv")
    assert result.num_groups == 1
    assert result.differences.pooled["iou"].low is None


def test_equal_masks_differ_by_nothing(folders: tuple[Path, Path, Path]) -> None:
    a, _, truth = folders
    result = compare(a, a, truth).differences
    assert {(d.difference, d.low, d.high) for by in (result.pooled, result.per_image) for d in by.values()} == {
        (0.0, 0.0, 0.0)
    }


def test_runs_and_folders_mix(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, b, truth = folders
    write_values(tmp_path / "run", {"status": "done"})
    with pytest.raises(DataError, match="is a run without predictions"):
        compare(tmp_path / "run", b, truth)
    a.rename(tmp_path / "run" / "predictions")
    assert compare(tmp_path / "run", b, truth).num_images == 9


def test_missing_masks_are_left_out_by_name(folders: tuple[Path, Path, Path]) -> None:
    a, b, truth = folders
    (b / "im3.png").unlink()
    result = compare(a, b, truth)
    assert (result.num_images, result.left_out) == (8, ("im3",))


def test_bad_folders_are_named(
    folders: tuple[Path, Path, Path], tmp_path: Path, write_scenes: Callable[..., Path]
) -> None:
    a, b, truth = folders
    with pytest.raises(DataError, match="no such run or folder of masks"):
        compare(tmp_path / "none", b, truth)
    with pytest.raises(DataError, match="no such folder of masks"):
        compare(a, b, tmp_path / "none")
    with pytest.raises(DataError, match="--groups is a CSV"):
        compare(a, b, truth, groups=tmp_path / "none.csv")
    with pytest.raises(DataError, match="have no stem in common"):
        compare(a, b, write_scenes(3))
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(b / "im0.png")
    with pytest.raises(DataError, match=r"im0\.png is 6x5, its truth .* is 30x20"):
        compare(a, b, truth)
