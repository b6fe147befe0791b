"""Samples are the images where the arms differ most, the same whoever draws them, and drawn from the data once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from record_files import read_values, write_values
from smooth_attention.core.errors import ConfigError, DataError
from smooth_attention.core.files import write_bytes
from smooth_attention.data.opening import open_source
from smooth_attention.runs.pictures import encode_mask
from smooth_attention.study.execution.collect import Study
from smooth_attention.study.execution.load import load_study
from smooth_attention.study.reporting.samples import (
    PER_DATASET,
    SIDE_PX,
    choose_samples,
    image_path,
    thumbnail_size,
    truth_path,
    write_samples,
)
from study_records import make_study_records

ARMS = {"none": 0.7, "smooth-0.4": 0.7}


def add_predictions(study: Study) -> None:
    for result in study.results:
        for image in result.record.metrics.test.images:
            mask = encode_mask(np.eye(40, 50, dtype=np.uint8), None)
            write_bytes(result.directory / "predictions" / f"{image.stem}.png", mask)


def change(study: Study, **iou: float) -> Study:
    """Return the study with the IoU of some images of ``smooth-0.4`` set in every training."""
    for result in study.of("flood", "smooth-0.4"):
        record = read_values(result.directory)
        for image in record["metrics"]["test"]["images"]:
            image["iou"] = iou.get(image["stem"], image["iou"])
        write_values(result.directory, record)
    return load_study(study.config, study.directory)


def on_data(study: Study, data: Path, **changes: Any) -> Study:
    """Return the study as if it had been trained on a folder of scenes."""
    source = open_source(data)
    for result in study.results:
        record = read_values(result.directory)
        record["config"]["data"] = str(data)
        record["data"] |= {"fingerprint": source.fingerprint} | changes
        for image, stem in zip(record["metrics"]["test"]["images"], source.stems, strict=True):
            image["stem"] = image["group"] = stem
        write_values(result.directory, record)
    moved = load_study(study.config, study.directory)
    add_predictions(moved)
    return moved


def stems(study: Study) -> list[str]:
    return [choice.stem for choice in choose_samples(study, "flood")]


def test_half_of_the_samples_are_the_largest_gains_and_half_the_largest_losses(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, images=20)
    study = change(study, im003=0.99, im004=0.98, im005=0.97, im006=0.96, im010=0.01, im011=0.02, im012=0.03)
    add_predictions(study)
    assert sorted(stems(study)[:3]) == ["im003", "im004", "im005"]
    assert sorted(stems(study)[3:]) == ["im010", "im011", "im012"]
    differences = [choice.difference for choice in choose_samples(study, "flood")]
    assert differences == sorted(differences, reverse=True)


def test_side_that_has_fewer_is_filled_up_by_the_other(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={"none": 0.5, "smooth-0.4": 0.8}, images=10)
    add_predictions(study)
    chosen = choose_samples(study, "flood")
    assert len(chosen) == PER_DATASET
    assert all(choice.difference > 0 for choice in chosen)


def test_only_images_with_predictions_are_chosen(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, images=20)
    assert stems(study) == []
    add_predictions(study)
    best = stems(study)[0]
    (study.of("flood", "none")[0].directory / "predictions" / f"{best}.png").unlink()
    assert best not in stems(study)


def test_image_of_a_fold_is_shown_by_the_replicate_that_tested_it(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms=ARMS, images=20, folds=2, seeds=2)
    add_predictions(study)
    for choice in choose_samples(study, "flood"):
        assert (choice.arm.fold, choice.arm.seed) == (int(choice.stem[2:]) // 10, 0)
        assert (choice.reference.fold, choice.reference.seed) == (choice.arm.fold, 0)


def test_unfinished_contrast_gives_way_to_the_next(tmp_path: Path) -> None:
    study = make_study_records(tmp_path, arms={**ARMS, "blur": 0.7}, images=8)
    add_predictions(study)
    for result in study.of("flood", "smooth-0.4"):
        (result.directory / "record.json").unlink()
    left = load_study(study.config, tmp_path)
    assert {choice.arm.arm for choice in choose_samples(left, "flood")} == {"blur"}
    for result in study.of("flood", "none"):
        (result.directory / "record.json").unlink()
    assert choose_samples(load_study(study.config, tmp_path), "flood") == ()


def test_samples_are_small_and_keep_proportions_and_labels(scenes: Path, tmp_path: Path) -> None:
    study = on_data(make_study_records(tmp_path / "study", arms=ARMS, images=12), scenes)
    write_samples(study)
    source = open_source(scenes)
    for stem in stems(study):
        pair = source.load(stem)
        with Image.open(image_path(study, "flood", stem)) as image:
            assert (image.height, image.width) == thumbnail_size(pair.mask.shape)
        with Image.open(truth_path(study, "flood", stem)) as truth:
            np.testing.assert_array_equal(np.asarray(truth), pair.mask)  # these are small enough to stay


def test_thumbnails_shrink_to_the_longest_side_and_never_grow() -> None:
    assert thumbnail_size((400, 800, 3)) == (SIDE_PX // 2, SIDE_PX)
    assert thumbnail_size((20, 30)) == (20, 30)
    assert thumbnail_size((4000, 2)) == (SIDE_PX, 1)


def test_samples_are_written_once_and_again_where_one_is_missing(scenes: Path, tmp_path: Path) -> None:
    study = on_data(make_study_records(tmp_path / "study", arms=ARMS, images=12), scenes)
    write_samples(study)
    path = image_path(study, "flood", stems(study)[0])
    before = path.read_bytes()
    path.write_bytes(b"kept")
    write_samples(study)
    assert path.read_bytes() == b"kept"
    path.unlink()
    write_samples(study)
    assert path.read_bytes() == before


def test_data_that_changed_is_refused(scenes: Path, tmp_path: Path) -> None:
    study = on_data(make_study_records(tmp_path, arms=ARMS, images=12), scenes, fingerprint="another")
    with pytest.raises(ConfigError, match=r"data of flood changed since .* was trained.*--report-only"):
        write_samples(study)
    assert not (tmp_path / "samples").exists()


def test_data_that_is_gone_is_told(scenes: Path, tmp_path: Path) -> None:
    study = on_data(make_study_records(tmp_path, arms=ARMS, images=12), scenes)
    for result in study.results:
        result.record.config["data"] = str(tmp_path / "gone")
    with pytest.raises(DataError, match="gone"):
        write_samples(study)


def test_study_without_predictions_has_no_samples(tmp_path: Path) -> None:
    write_samples(make_study_records(tmp_path, arms=ARMS))
    assert not (tmp_path / "samples").exists()
