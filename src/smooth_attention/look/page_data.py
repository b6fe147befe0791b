"""What a look page holds of one image: rows of attention in 8 bits, its roughness, a gate and a mask for each rule.

Arrays are deflated and written as base64; the page inflates them.

Shape suffixes: ``P`` positions that are kept, ``K`` keys, pooled where there are many.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from math import isfinite, prod
from typing import Any, Literal

import numpy as np
from PIL import Image

from smooth_attention.data.cache import resize_mask
from smooth_attention.data.sources import Pair
from smooth_attention.look.attention import Head, Look
from smooth_attention.metrics.iou import image_iou
from smooth_attention.models.rows import Rule
from smooth_attention.runs.pictures import encode_jpeg, shrink

__all__ = ["OFF", "PageHead", "Stop", "describe_view", "list_stops", "plan_views", "sample_data"]


# of an image before anything is deflated, all heads together: twelve images make less than 8 MB
ROW_BYTES, MAP_BYTES, PICTURE_BYTES = 240_000, 100_000, 80_000
MAX_VIEWS = 8
CHUNK_ENTRIES = 2**20  # of the rows that are computed at once
LONGEST_PX, JPEG_QUALITIES = 640, (85, 70, 50, 30, 10)
THRESHOLDS = (0.01, 0.02, *(round(0.05 * step, 2) for step in range(1, 19)))
FRACTIONS = (0.05, 0.1, 0.25, 0.5, 0.75)
OFF, EVERY = Rule(), Rule(threshold=-1.0)


@dataclass(frozen=True, slots=True)
class Stop:
    """One rule that the page offers.

    Attributes:
        kind: which control of the page.
        rule: None is the one of the training.
        value: threshold or fraction, where the control is a slider.
    """

    kind: Literal["trained", "none", "threshold", "fraction", "every"]
    rule: Rule | None
    value: float | None = None


def list_stops(look: Look) -> list[Stop]:
    """Return the rules in the order of the controls, that of the training first; it alone without attention."""
    trained = Stop("trained", None)
    if not look.heads:
        return [trained]
    thresholds = [Stop("threshold", Rule(threshold=value), value) for value in THRESHOLDS]
    fractions = [Stop("fraction", Rule(fraction=value), value) for value in FRACTIONS]
    return [trained, Stop("none", OFF), *thresholds, *fractions, Stop("every", EVERY)]


@dataclass(frozen=True, slots=True)
class PageHead:
    """One attention head as the page keeps it.

    Attributes:
        index: among the heads of a look.
        name: of the head.
        grid: (h, w) of the positions.
        gamma: weight of the block's output.
        step: every how many-th position is kept in both axes.
        pool: keys are summed in blocks of so many a side.
    """

    index: int
    name: str
    grid: tuple[int, int]
    gamma: float
    step: int
    pool: int

    @property
    def rows(self) -> range:
        """Rows of the grid in which positions are kept."""
        return kept_places(self.grid[0], self.step)

    @property
    def columns(self) -> range:
        return kept_places(self.grid[1], self.step)

    @property
    def positions(self) -> list[int]:
        return [row * self.grid[1] + column for row in self.rows for column in self.columns]


def plan_views(heads: Sequence[Head]) -> tuple[list[PageHead], list[str]]:
    """Return the heads that a page can hold, in their order, and the names of the others.

    At most 8, fewer where their maps alone fill the page; every block gets one before any gets a second.
    """
    blocks = [head.met.name for head in heads]
    turns = sorted(range(len(heads)), key=lambda index: (heads[index].number, blocks.index(heads[index].met.name)))
    shown: list[int] = []
    for index in turns:
        if len(shown) < MAX_VIEWS and (not shown or sum(map_bytes(heads[i]) for i in (*shown, index)) <= MAP_BYTES):
            shown.append(index)
    views = [plan_view(index, heads[index], ROW_BYTES // 2 // len(shown)) for index in sorted(shown)]
    return views, [head.name for index, head in enumerate(heads) if index not in shown]


def map_bytes(head: Head) -> int:
    """Return the size of the roughness of a head, with that of its gate where it is soft, which deflates as little."""
    return (4 if head.module.soft_threshold is None else 8) * prod(head.grid)


def plan_view(index: int, head: Head, entries: int) -> PageHead:
    return PageHead(index, head.name, head.grid, float(head.module.gamma.detach()), *choose_steps(head.grid, entries))


def choose_steps(grid: tuple[int, int], entries: int) -> tuple[int, int]:
    """Return how sparse positions and how coarse keys have to be so that their matrix has at most ``entries``.

    Returns:
        Every how many-th position is kept in both axes, and the side of a block of keys: the same, or one less.
    """
    for pool in count(1):
        for step in (pool, pool + 1):
            positions = prod(len(kept_places(side, step)) for side in grid)
            keys = prod(-(-side // pool) for side in grid)
            if positions * keys <= max(1, entries):
                return step, pool
    raise AssertionError("one position and one key always fit")


def kept_places(side: int, step: int) -> range:
    """Return every ``step``-th place, the first in the middle of the first ``step``."""
    return range((min(step, side) - 1) // 2, side, step)


def describe_view(view: PageHead) -> dict[str, Any]:
    """Return what the page knows of a head whatever the image."""
    return {
        "name": view.name,
        "grid": view.grid,
        "gamma": view.gamma,
        "rows": list(view.rows),
        "columns": list(view.columns),
        "step": view.step,
        "pool": view.pool,
        "keys": [-(-side // view.pool) for side in view.grid],
    }


def sample_data(
    look: Look,
    pair: Pair,
    views: Sequence[PageHead],
    stops: Sequence[Stop],
    *,
    class_names: tuple[str, ...] | None,
    iou: float | None,
) -> dict[str, Any]:
    """Return what the page holds of one image.

    Args:
        look: at the image.
        pair: the image with its truth.
        views: heads that are shown.
        stops: rules that are offered, that of the training first.
        class_names: of the truth's labels; None: binary.
        iou: of the mask under the rule of the training, as recorded; None: undefined.
    """
    height, width = look.shape
    shape = picture_shape(look.shape)
    picture = Image.fromarray(pair.image).resize(shape[::-1], Image.Resampling.LANCZOS)
    return {
        "width": width,
        "height": height,
        "picture": shape[::-1],
        "image": pack_picture(np.asarray(picture)),
        "truth": pack(resize_mask(pair.mask, shape)),
        **mask_data(look, pair.mask, stops, class_names, iou),
        "views": [view_data(look, look.heads[view.index], view, stops) for view in views],
    }


def picture_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a picture on the page."""
    return shrink(shape, LONGEST_PX)


def mask_data(
    look: Look, truth: np.ndarray, stops: Sequence[Stop], class_names: tuple[str, ...] | None, iou: float | None
) -> dict[str, Any]:
    """Return the masks at the picture's size, equal ones once, each as its difference (XOR) from the one before."""
    shape = picture_shape(look.shape)
    masks: dict[bytes, np.ndarray] = {}
    drawn: dict[Any, tuple[int, float | None]] = {}
    for stop in stops:
        key = what_decides(look, stop)
        if key not in drawn:
            labels = look.labels(stop.rule, shape)
            masks.setdefault(labels.tobytes(), labels)
            score = image_iou(look.labels(stop.rule), truth, class_names) if stop.rule is not None else iou
            drawn[key] = list(masks).index(labels.tobytes()), finite(score)
    chosen = [drawn[what_decides(look, stop)] for stop in stops]
    different = [np.zeros(shape, np.uint8), *masks.values()]
    return {
        "masks": [pack(mask ^ before) for before, mask in pairwise(different)],
        "mask_of_stop": [place for place, _ in chosen],
        "iou_of_stop": [score for _, score in chosen],
    }


def what_decides(look: Look, stop: Stop) -> Any:
    """Return what two rules share if they make the same mask: the gates where there is one block, else the rule."""
    if len({head.met.name for head in look.heads}) != 1:
        return stop
    return tuple(head.gate(stop.rule).tobytes() for head in look.heads)


def view_data(look: Look, head: Head, view: PageHead, stops: Sequence[Stop]) -> dict[str, Any]:
    """Return what the page holds of one head in one image."""
    trained = head.gate()
    left, top, right, bottom = look.box_of(head, look.roughest(head))
    rows = list(row_blocks(head, view))
    return {
        "start": [min((left + right) / 2, look.shape[1]), min((top + bottom) / 2, look.shape[0])],
        "roughness": pack(head.roughness),
        "trained_gate": pack(trained),
        "gates": pack(np.stack([head.gate(stop.rule) for stop in stops[1:]]).astype(np.uint8)),
        **pack_rows("plain", np.concatenate([plain for plain, _ in rows])),
        **pack_rows("mean", np.concatenate([mean for _, mean in rows])),
    }


def row_blocks(head: Head, view: PageHead) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give rows (P, K) of the kept positions, some at a time: before smoothing, and the mean of the neighbours'."""
    size = max(1, CHUNK_ENTRIES // prod(head.grid))
    positions = view.positions
    for start in range(0, len(positions), size):
        pairs = head.rows(positions[start : start + size], EVERY)
        plain, mean = (np.stack(maps) for maps in zip(*((pair.plain, pair.used) for pair in pairs), strict=True))
        yield pool_keys(plain, view.pool), pool_keys(mean, view.pool)


def pool_keys(rows: np.ndarray, pool: int) -> np.ndarray:
    """Return rows (P, h, w) as (P, K), summed over blocks of keys; blocks at the border may be smaller."""
    rows = np.add.reduceat(rows, range(0, rows.shape[1], pool), axis=1)
    rows = np.add.reduceat(rows, range(0, rows.shape[2], pool), axis=2)
    return rows.reshape(len(rows), -1)


def pack_rows(name: str, rows_PK: np.ndarray) -> dict[str, str]:
    """Return rows as ``round(255 * sqrt(value / largest of the row))`` and those largest values."""
    largest_P = rows_PK.max(axis=1)
    codes_PK = np.rint(255 * np.sqrt(rows_PK / largest_P[:, None])).astype(np.uint8)
    return {name: pack(codes_PK), f"{name}_max": pack(largest_P)}


def pack(values: np.ndarray) -> str:
    """Return the bytes of uint8 or float32 values, little end first, deflated, as base64."""
    kind = "<f4" if values.dtype == np.float32 else "u1"
    return base64.b64encode(zlib.compress(values.astype(kind, casting="equiv").tobytes(), 9)).decode()


def pack_picture(pixels: np.ndarray) -> str:
    """Return a JPEG as base64, of lower quality where it would be large otherwise."""
    for quality in JPEG_QUALITIES:
        content = encode_jpeg(pixels, quality=quality)
        if len(content) <= PICTURE_BYTES:
            break
    return base64.b64encode(content).decode()


def finite(score: float | None) -> float | None:
    return round(score, 6) if score is not None and isfinite(score) else None
