"""Thumbnails of the test images that the report shows: those where the arms of the first contrast differ most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smooth_attention.core.errors import ConfigError
from smooth_attention.core.files import replace_directory, write_bytes
from smooth_attention.runs.config import make_config
from smooth_attention.runs.inputs import Opener, open_checked_source
from smooth_attention.runs.pictures import encode_jpeg, encode_mask
from smooth_attention.study.execution.collect import Result, Study
from smooth_attention.study.verdicts.contrasts import Paired, pair_arms

__all__ = ["Sample", "choose_samples", "image_path", "prediction_path", "shrink_labels", "truth_path", "write_samples"]

SAMPLES = "samples"
PER_DATASET = 6
SIDE_PX = 192


@dataclass(frozen=True, slots=True)
class Sample:
    """An image of the report.

    Attributes:
        stem: of the image.
        difference: of its IoU, arm minus reference, mean over the replicates that tested it.
        arm: the first replicate that tested it, under the arm.
        reference: the same under the reference.
    """

    stem: str
    difference: float
    arm: Result
    reference: Result


def choose_samples(study: Study, dataset: str) -> tuple[Sample, ...]:
    """Return the images where the arms of the first contrast differ most, those that gain first.

    Half of them are the largest gains, half the largest losses; where one side has fewer, the other fills up. Only
    images whose predicted masks both runs keep. Empty where no contrast has a finished pair of trainings.
    """
    for arm, reference in study.config.parsed_contrasts:
        paired = pair_arms(study, dataset, arm, reference)
        if paired is not None:
            break
    else:
        return ()
    ours, theirs = ({(r.fold, r.seed): r for r in study.of(dataset, name)} for name in (arm, reference))
    choices = []
    for stem, (difference, first) in mean_differences(paired).items():
        choice = Sample(stem, difference, ours[first], theirs[first])
        if prediction_path(choice.arm, stem).is_file() and prediction_path(choice.reference, stem).is_file():
            choices.append(choice)
    return most_different(choices)


def mean_differences(paired: Paired) -> dict[str, tuple[float, tuple[int, int]]]:
    """Return the mean difference of each image over replicates, and the first replicate that tested it."""
    found: dict[str, list[float]] = {}
    first: dict[str, tuple[int, int]] = {}
    for replicate, stems, row in zip(paired.replicates, paired.images, paired.differences, strict=True):
        for stem, difference in zip(stems, row, strict=True):
            found.setdefault(stem, []).append(float(difference))
            first.setdefault(stem, replicate)
    return {stem: (float(np.mean(values)), first[stem]) for stem, values in found.items()}


def most_different(choices: list[Sample]) -> tuple[Sample, ...]:
    half = PER_DATASET // 2
    ranked = sorted(choices, key=lambda choice: (-abs(choice.difference), choice.stem))
    gains = [choice for choice in ranked if choice.difference > 0]
    losses = [choice for choice in ranked if choice.difference < 0]
    chosen = [*gains[:half], *losses[:half]]
    rest = [choice for choice in ranked if choice not in chosen]
    chosen += rest[: PER_DATASET - len(chosen)]
    return tuple(sorted(chosen, key=lambda choice: (-choice.difference, choice.stem)))


def prediction_path(result: Result, stem: str) -> Path:
    return result.directory / "predictions" / f"{stem}.png"


def image_path(study: Study, dataset: str, stem: str) -> Path:
    return study.directory / SAMPLES / dataset / "images" / f"{stem}.jpg"


def truth_path(study: Study, dataset: str, stem: str) -> Path:
    """Return where the truth of a sample is: a palette PNG whose pixels are labels, 255 for ignored ones."""
    return study.directory / SAMPLES / dataset / "truths" / f"{stem}.png"


def write_samples(study: Study, open_data: Opener = open_checked_source) -> None:
    """Write image and truth of every image that the report shows, at most 192 px wide and high.

    They have the images' own proportions. The data is opened only where a sample is missing.

    Args:
        study: with its records.
        open_data: what opens the data.

    Raises:
        DataError: where the data is gone.
        ConfigError: where it changed since the runs.
    """
    for dataset in study.datasets:
        choices = choose_samples(study, dataset)
        paths = [path(study, dataset, choice.stem) for choice in choices for path in (image_path, truth_path)]
        if not all(path.is_file() for path in paths):
            write_dataset(study, dataset, choices, open_data)


def write_dataset(study: Study, dataset: str, choices: tuple[Sample, ...], open_data: Opener) -> None:
    record = choices[0].arm.record
    source, _ = open_data(make_config(record.config, source=f"the record of {choices[0].arm.directory}"))
    if source.fingerprint != record.data.fingerprint:
        raise ConfigError(
            f"the data of {dataset} changed since {study.directory} was trained, so its images can't be shown beside "
            "their predictions; restore it, or use --report-only"
        )
    root = study.directory / SAMPLES / dataset
    with replace_directory(root) as temporary:
        for choice in choices:
            pair = source.load(choice.stem)
            image, truth = shrink_image(pair.image), shrink_labels(pair.mask, thumbnail_size(pair.mask.shape))
            names = source.class_names or ("background", "foreground")
            write_bytes(temporary / image_path(study, dataset, choice.stem).relative_to(root), encode_jpeg(image))
            write_bytes(
                temporary / truth_path(study, dataset, choice.stem).relative_to(root), encode_mask(truth, names)
            )


def thumbnail_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of a thumbnail of an image (H, W, ...); small ones keep theirs."""
    shrunk = min(1.0, SIDE_PX / max(shape[:2]))
    return max(1, round(shape[0] * shrunk)), max(1, round(shape[1] * shrunk))


def shrink_image(image: np.ndarray) -> np.ndarray:
    height, width = thumbnail_size(image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def shrink_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return labels (H, W) at another size by nearest neighbour."""
    return np.asarray(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))
