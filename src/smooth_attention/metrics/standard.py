"""Protocol ``standard``: every image scored at its native size, per image and pooled over the data set.

Per class, with pixels counted as tp, fp, fn, tn: IoU = tp / (tp + fp + fn), Dice = F1 = 2 tp / (2 tp + fp + fn),
precision = tp / (tp + fp), recall = tp / (tp + fn), accuracy = (tp + tn) / all. *Pooled* metrics add the counts of all
images first, so that large objects weigh more; *per-image* metrics score each image and then average, so that every
image weighs the same. Both are usual in the literature and differ: say which one a number is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor, are_deterministic_algorithms_enabled, bfloat16, from_numpy

from smooth_attention.core.errors import DataError, OptionError, ShapeError
from smooth_attention.metrics.boundary import boundary_counts, hd95
from smooth_attention.metrics.calibration import NUM_BINS, calibration_counts, calibration_error

__all__ = ["COUNTED", "StandardMetrics", "count_pixels", "mean_defined", "score_counts"]

COUNTED = ("iou", "dice", "accuracy", "precision", "recall", "f1")
"""The metrics that follow from tp, fp, fn, tn alone, in the order of every table."""

# Softmax and bilinear resizing leave 0..1 by a few roundings, half precision by a few 1e-4; logits by far more.
PROBABILITY_SLACK = 1e-3

# Largest (pixels, L * L) table that counting in deterministic mode may fill, 128 MiB.
MAX_TABLE = 2**24


def count_pixels(
    prediction: np.ndarray | Tensor, truth: np.ndarray | Tensor, *, num_classes: int, ignore_index: int | None = 255
) -> Int64[np.ndarray, "l 4"]:
    """Count tp, fp, fn, tn of each class, one against the rest, in one image.

    Pixels whose truth is ``ignore_index`` count nowhere, whatever is predicted there. Each row adds up to the number of
    the other pixels. A binary task has two classes with labels 0 and 1; its metrics are those of row 1, the foreground.

    Args:
        prediction: integer or boolean label map, (H, W), labels 0..num_classes-1 wherever the truth is not ignored.
        truth: integer or boolean label map of the same size.
        num_classes: number of classes L, at least 2.
        ignore_index: label in the truth of pixels to leave out, not a class itself. None: every pixel counts.

    Returns:
        One row per class; columns tp, fp, fn, tn.

    Raises:
        ShapeError: the sizes differ or a map has not two axes.
        DataError: a map is not of integers, or holds a label that is neither a class nor ignored.
        OptionError: fewer than two classes, or ``ignore_index`` is one of them.

    Example:
        >>> import numpy as np
        >>> count_pixels(np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 255]]), num_classes=2)  # tp, fp, fn, tn
        array([[1, 0, 1, 1],
               [1, 1, 0, 1]])
    """
    return count_maps(checked_maps(prediction, truth, num_classes=num_classes, ignore_index=ignore_index), num_classes)


def score_counts(counts: np.ndarray) -> dict[str, Float64[np.ndarray, "*lead"]]:
    """The metrics that follow from counts of pixels, for every class and image at once.

    A class absent from both truth and prediction has NaN in all metrics but accuracy. One absent from only one of them
    scores 0 in all metrics but accuracy: also precision where nothing was predicted, and recall where there was nothing
    to find, so that no metric is kinder than IoU. Accuracy is NaN only where no pixel counts. Dice and F1 of hard masks
    are the same number, given under both names.

    Args:
        counts: non-negative, (..., 4), columns tp, fp, fn, tn; any leading axes. For pooled metrics sum over images
            first.

    Returns:
        Under each name of ``COUNTED`` an array of the leading axes, in 0..1 or NaN.

    Raises:
        ShapeError: the last axis is not of length 4.

    Example:
        >>> import numpy as np
        >>> {name: round(float(value), 2) for name, value in score_counts(np.array([3, 1, 2, 4])).items()}
        {'iou': 0.5, 'dice': 0.67, 'accuracy': 0.7, 'precision': 0.75, 'recall': 0.6, 'f1': 0.67}
    """
    counts = np.asarray(counts)
    if counts.ndim == 0 or counts.shape[-1] != 4:
        raise ShapeError(f"counts must end in an axis of tp, fp, fn, tn, got {counts.shape=}; use count_pixels")
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    is_absent = tp + fp + fn == 0
    dice = divide_defined(2 * tp, 2 * tp + fp + fn)
    scores = {
        "iou": divide_defined(tp, tp + fp + fn),
        "dice": dice,
        "accuracy": divide_defined(tp + tn, tp + fp + fn + tn),
        "precision": np.where(is_absent, np.nan, np.nan_to_num(divide_defined(tp, tp + fp))),
        "recall": np.where(is_absent, np.nan, np.nan_to_num(divide_defined(tp, tp + fn))),
        "f1": dice.copy(),
    }
    return {name: scores[name] for name in COUNTED}


class StandardMetrics:
    """Accumulates images and gives pooled and per-image metrics, with the images' own metrics beside them.

    For a binary task all metrics are the foreground's. For classes a top-level metric is the mean over the named
    classes for which it is defined; metrics by class stand beside it. An image may have any size: give its native one.
    Boundary IoU uses a band of 2 % of the image diagonal, HD95 is in pixels, ECE is over all pixels with 15 bins.

    Args:
        class_names: names of the labels 0..L-1, at least two and all different. None: a binary task, labels 0 and 1.
        groups: group of each stem (a patient, a video), used where ``update`` is given none.
        ignore_index: label in the truth of pixels that count in no metric. None: every pixel counts.

    Raises:
        OptionError: too few or repeated names, or ``ignore_index`` is one of the labels.

    Example:
        >>> import numpy as np
        >>> metrics = StandardMetrics(None)
        >>> metrics.update("lake", np.array([[0.9, 0.8], [0.2, 0.4]]), np.array([[1, 0], [0, 0]]))
        >>> metrics.compute()["pooled"]["iou"]
        0.5
    """

    def __init__(
        self,
        class_names: Sequence[str] | None,
        *,
        groups: Mapping[str, str] | None = None,
        ignore_index: int | None = 255,
    ) -> None:
        if class_names is not None and (len(class_names) < 2 or len(set(class_names)) < len(class_names)):
            raise OptionError(
                f"class_names must be at least two different names, got {tuple(class_names)}; None is a binary task"
            )
        self.class_names = None if class_names is None else tuple(class_names)
        self.num_classes = 2 if class_names is None else len(class_names)
        self.ignore_index = ignore_index
        self._labels = (1,) if class_names is None else tuple(range(self.num_classes))
        self._groups = dict(groups) if groups is not None else {}
        self._images: dict[str, ScoredImage] = {}
        self._calibration = np.zeros((NUM_BINS, 3))
        check_options(self.num_classes, ignore_index)

    def update(
        self, stem: str, probability: np.ndarray | Tensor, truth: np.ndarray | Tensor, *, group: str = ""
    ) -> None:
        """Score one image from probabilities at its native size.

        The prediction is the foreground where its probability is at least 0.5; for classes the most probable one, the
        lower label in a tie. Its confidence, for the calibration error, is the probability of what is predicted.

        Args:
            stem: name of the image, once per image.
            probability: of the foreground, (H, W); for classes (L, H, W). In 0..1, so after sigmoid or softmax.
            truth: integer label map, (H, W).
            group: what the image belongs to; where empty, that of ``groups``.

        Raises:
            ShapeError: the size is not the truth's, or the number of classes not that of ``class_names``.
            DataError: NaN or values outside 0..1, an unexpected label, a truth that is not of integers, or a stem that
                was scored before.
        """
        probability = self._checked_probability(stem, to_numpy(probability), tuple(np.shape(truth)))
        if self.class_names is None:
            prediction = probability >= 0.5
            confidence = np.where(prediction, probability, 1 - probability)
        else:
            prediction, confidence = probability.argmax(axis=0), probability.max(axis=0)
        maps = self._add(stem, prediction, truth, group)
        self._calibration += calibration_counts(
            np.clip(confidence, 0, 1), maps.prediction == maps.truth, ignored=maps.ignored
        )

    def update_labels(
        self, stem: str, prediction: np.ndarray | Tensor, truth: np.ndarray | Tensor, *, group: str = ""
    ) -> None:
        """Score one image from a mask without probabilities; it takes no part in the calibration error.

        Args:
            stem: name of the image, once per image.
            prediction: integer or boolean label map, (H, W).
            truth: integer or boolean label map of the same size.
            group: what the image belongs to; where empty, that of ``groups``.

        Raises:
            ShapeError: the sizes differ.
            DataError: an unexpected label, a map that is not of integers, or a stem that was scored before.
        """
        self._add(stem, prediction, truth, group)

    def compute(self) -> dict[str, Any]:
        """All metrics of the images so far, in plain Python values that JSON can hold; an undefined metric is None.

        Returns:
            ``pooled``: ``COUNTED`` and ``boundary_iou`` of the counts added over all images, and ``ece`` over
            all pixels of the images that came with probabilities (None if none did). For classes also
            ``pixel_accuracy``, the share of pixels with the right class, and ``classes``: ``{name: metrics}``.

            ``per_image``: the same, ``boundary_iou`` and ``hd95_px``, each the mean over the images for which it is
            defined; ``num_images``; ``num_undefined``, for each metric the number of images left out. For classes an
            image's metric is the mean over its defined classes, and ``classes`` has each class's mean over images.

            ``hd95``: ``missed``, the stems of images where exactly one of prediction and truth is empty, which have no
            distance and are not in the mean; ``misses``, their number. For classes: images where that holds for at
            least one class, and ``classes`` has ``misses`` and ``missed`` of each.

            ``images``: in the order they came, ``stem``, ``group`` and the metrics of ``per_image``; for classes also
            ``classes``: ``{name: {iou, boundary_iou, hd95_px}}``.

        Raises:
            DataError: no image was scored.
        """
        if not self._images:
            raise DataError("no image was scored, so there is nothing to compute; call update for at least one image")
        counts = np.stack([image.counts for image in self._images.values()])
        boundary = np.stack([image.boundary for image in self._images.values()])
        by_class = score_counts(counts)
        by_class["boundary_iou"] = divide_defined(boundary[..., 0], boundary[..., 1])
        by_class["hd95_px"] = np.stack([image.hd95_px for image in self._images.values()])
        return {
            "pooled": self._summarise_pooled(counts.sum(axis=0), boundary.sum(axis=0)),
            "per_image": self._summarise_images(by_class),
            "hd95": self._summarise_misses(),
            "images": self._list_images(by_class),
        }

    def _checked_probability(self, stem: str, probability: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        expected = size if self.class_names is None else (self.num_classes, *size)
        if probability.shape != expected:
            raise ShapeError(
                f"image {stem!r}: probability must be {expected} for a truth of {size} and "
                f"{'a binary task' if self.class_names is None else f'{self.num_classes} classes'}, got "
                f"{probability.shape}; resize it to the truth's native size and leave out batch and channel axes of one"
            )
        low, high = (probability.min(), probability.max()) if probability.size else (0, 1)
        if not (low >= -PROBABILITY_SLACK and high <= 1 + PROBABILITY_SLACK):  # NaN fails both
            raise DataError(
                f"image {stem!r}: probabilities must be in 0..1, got values from {low} to {high}; "
                "apply a sigmoid or softmax to logits first, and look for NaN in the network's output"
            )
        return probability

    def _add(self, stem: str, prediction: np.ndarray | Tensor, truth: np.ndarray | Tensor, group: str) -> Maps:
        if stem in self._images:
            raise DataError(f"image {stem!r} was scored before; score each image once, under a stem of its own")
        maps = checked_maps(
            prediction, truth, num_classes=self.num_classes, ignore_index=self.ignore_index, source=f"image {stem!r}: "
        )
        counts = count_maps(maps, self.num_classes)[list(self._labels)]
        self._images[stem] = score_contours(maps, counts, self._labels, group or self._groups.get(stem, ""))
        return maps

    def _summarise_pooled(self, counts: np.ndarray, boundary: np.ndarray) -> dict[str, Any]:
        by_class = score_counts(counts)
        by_class["boundary_iou"] = divide_defined(boundary[:, 0], boundary[:, 1])
        summary = {name: plain_number(mean_defined(values, axis=0)) for name, values in by_class.items()}
        summary["ece"] = plain_number(calibration_error(self._calibration))
        if self.class_names is not None:
            # Every counted pixel is in each row once, whatever its class.
            summary["pixel_accuracy"] = plain_number(divide_defined(counts[:, 0].sum(), counts[0].sum()))
            summary |= self._by_name(by_class)
        return summary

    def _summarise_images(self, by_class: dict[str, np.ndarray]) -> dict[str, Any]:
        by_image = {name: mean_defined(values, axis=1) for name, values in by_class.items()}
        summary: dict[str, Any] = {
            name: plain_number(mean_defined(values, axis=0)) for name, values in by_image.items()
        }
        summary["num_images"] = len(self._images)
        summary["num_undefined"] = {name: int(np.isnan(values).sum()) for name, values in by_image.items()}
        return summary | self._by_name({name: mean_defined(values, axis=0) for name, values in by_class.items()})

    def _summarise_misses(self) -> dict[str, Any]:
        is_missed = np.stack([image.is_missed for image in self._images.values()])

        def list_stems(chosen: np.ndarray) -> dict[str, Any]:
            missed = [stem for stem, is_chosen in zip(self._images, chosen, strict=True) if is_chosen]
            return {"misses": len(missed), "missed": missed}

        summary = list_stems(np.asarray(is_missed.any(axis=1)))
        if self.class_names is not None:
            summary["classes"] = {
                name: list_stems(is_missed[:, position]) for position, name in enumerate(self.class_names)
            }
        return summary

    def _list_images(self, by_class: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        by_image = {name: mean_defined(values, axis=1) for name, values in by_class.items()}
        small = {name: by_class[name] for name in ("iou", "boundary_iou", "hd95_px")}
        return [
            {"stem": stem, "group": image.group}
            | {name: plain_number(values[row]) for name, values in by_image.items()}
            | self._by_name({name: values[row] for name, values in small.items()})
            for row, (stem, image) in enumerate(self._images.items())
        ]

    def _by_name(self, by_class: dict[str, np.ndarray]) -> dict[str, Any]:
        """``{"classes": {name: metrics}}`` of metrics over classes; nothing for a binary task."""
        if self.class_names is None:
            return {}
        metrics = {name: [plain_number(value) for value in values] for name, values in by_class.items()}
        return {
            "classes": {
                label: {name: values[position] for name, values in metrics.items()}
                for position, label in enumerate(self.class_names)
            }
        }


@dataclass(frozen=True, slots=True)
class Maps:
    """Checked label maps of one image, (H, W); labels at ignored pixels mean nothing."""

    prediction: np.ndarray
    truth: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """What is kept of one image: arrays over the scored classes."""

    group: str
    counts: np.ndarray
    boundary: np.ndarray
    hd95_px: np.ndarray
    is_missed: np.ndarray


def score_contours(maps: Maps, counts: np.ndarray, labels: Sequence[int], group: str) -> ScoredImage:
    boundary = np.zeros((len(labels), 2), dtype=np.int64)
    hd95_px = np.full(len(labels), np.nan)
    has_prediction, has_truth = counts[:, [0, 1]].any(axis=1), counts[:, [0, 2]].any(axis=1)
    # Most images hold few of the classes, and an absent one has no contour to look at.
    for position in np.flatnonzero(has_prediction | has_truth).tolist():
        prediction, truth = maps.prediction == labels[position], maps.truth == labels[position]
        boundary[position] = boundary_counts(prediction, truth, ignored=maps.ignored)
        hd95_px[position] = hd95(prediction, truth, ignored=maps.ignored)
    return ScoredImage(group, counts, boundary, hd95_px, has_prediction != has_truth)


def count_maps(maps: Maps, num_classes: int) -> np.ndarray:
    prediction, truth = maps.prediction[~maps.ignored], maps.truth[~maps.ignored]
    if truth.size == 0:
        return np.zeros((num_classes, 4), dtype=np.int64)
    from torchmetrics.functional.classification import multiclass_stat_scores  # takes seconds to import

    # In deterministic mode torchmetrics compares every pixel with every pair of classes in one table, at any size.
    chunk = max(1, MAX_TABLE // num_classes**2) if are_deterministic_algorithms_enabled() else truth.size
    counts = np.zeros((num_classes, 4), dtype=np.int64)
    for start in range(0, truth.size, chunk):
        part = slice(start, start + chunk)
        scores = multiclass_stat_scores(
            from_numpy(prediction[part]),
            from_numpy(truth[part]),
            num_classes=num_classes,
            average=None,
            validate_args=False,  # done at the door, with messages that name the image
        )
        counts += scores[:, [0, 1, 3, 2]].numpy()  # torchmetrics has tp, fp, tn, fn, support
    return counts


def check_options(num_classes: int, ignore_index: int | None) -> None:
    if num_classes < 2:
        raise OptionError(
            f"num_classes must be at least 2, got {num_classes}; a binary task has background and foreground"
        )
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        raise OptionError(
            f"ignore_index must not be one of the labels 0..{num_classes - 1}, got {ignore_index}; "
            "give the ignored pixels a label of their own, such as 255, or None"
        )


def checked_maps(
    prediction: np.ndarray | Tensor,
    truth: np.ndarray | Tensor,
    *,
    num_classes: int,
    ignore_index: int | None,
    source: str = "",
) -> Maps:
    """Both maps as int64 and the mask of ignored pixels; ``source`` opens the error messages."""
    check_options(num_classes, ignore_index)
    arrays = {"prediction": to_numpy(prediction), "truth": to_numpy(truth)}
    if arrays["prediction"].shape != arrays["truth"].shape or arrays["truth"].ndim != 2:
        raise ShapeError(
            f"{source}prediction and truth must be (H, W) and of one size, got {arrays['prediction'].shape} and "
            f"{arrays['truth'].shape}; resize the prediction to the truth's native size"
        )
    ignored = np.zeros(arrays["truth"].shape, dtype=bool) if ignore_index is None else arrays["truth"] == ignore_index
    for name, labels in arrays.items():
        if labels.dtype.kind not in "biu":
            raise DataError(
                f"{source}{name} must hold integer labels, got {labels.dtype}; threshold or argmax it first"
            )
        arrays[name] = labels = labels.astype(np.int64)
        found = labels[~ignored]
        if found.size and (found.min() < 0 or found.max() >= num_classes):
            wrong = np.unique(found[(found < 0) | (found >= num_classes)])
            raise DataError(
                f"{source}{name} must hold labels 0..{num_classes - 1}"
                f"{'' if ignore_index is None else f' (the truth also {ignore_index} for ignored pixels)'}, got "
                f"{', '.join(map(str, wrong[:5]))}{', ...' if wrong.size > 5 else ''}; map them to the labels, "
                "e.g. a 0/255 mask by mask > 127"
            )
    return Maps(arrays["prediction"], arrays["truth"], ignored)


def to_numpy(values: np.ndarray | Tensor) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype is bfloat16 else values).numpy()  # NumPy has no bfloat16


def divide_defined(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """Quotient, NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def mean_defined(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Mean over the values that are not NaN; NaN where all are, or where there are none."""
    return divide_defined(np.nansum(values, axis=axis), (~np.isnan(values)).sum(axis=axis))


def plain_number(value: np.ndarray | float) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
