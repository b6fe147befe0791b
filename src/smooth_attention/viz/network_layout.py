"""Where the stages of a network stand in its figure, and how their labels are set; all lengths in inches."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

if TYPE_CHECKING:
    from smooth_attention.look.stages import Stage

__all__ = [
    "CAPTION",
    "CAPTIONED",
    "CARD_SIZE",
    "FAMILY",
    "FOOT",
    "MARGIN",
    "PAD",
    "TITLE",
    "WIDTH",
    "Box",
    "Lettering",
    "Line",
    "Pairs",
    "Side",
    "assign_columns",
    "assign_rows",
    "card_label",
    "choose_lettering",
    "count_text",
    "place_boxes",
    "scale_boxes",
    "shape_text",
    "text_width",
]

Row = Literal["top", "middle", "bottom"]
Pairs = set[tuple[int, int]]
Side = tuple[float, float]  # width and height of a box
Line = tuple[str, bool]  # a line of a label, and whether it is bold

FAMILY = "DejaVu Sans"  # comes with matplotlib
SIZES = (7.0, 6.5, 6.0, 5.5)  # of labels, in points; smaller ones can't be read
LINE = 1.3 / 72  # from line to line, for each point of size
WIDTH, MARGIN, CAPTION = 7.0, 0.08, 0.22
TITLE, FOOT = 0.3, 0.2
BOX_WIDTHS, BOX_HEIGHTS = (0.07, 0.7), (0.16, 0.78)
PAD = 0.06
CHANNEL = 0.55  # between the rows, where no block stands there
CARD_GAP, CARD_SIZE = 0.28, 6.5  # above and below a block that does; points of its label
BREAKS = re.compile(r"(?<=[._])|(?<=,)\s")
CAPTIONED = ("encoder", "decoder")


@dataclass(frozen=True, slots=True)
class Box:
    """Where a stage stands: its row, its centre, its sides."""

    row: Row
    x: float
    y: float
    width: float
    height: float

    @property
    def top(self) -> float:
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2


@dataclass(frozen=True, slots=True)
class Lettering:
    """The labels of all stages in their size (points); upright ones are read from below."""

    labels: list[list[Line]]
    size: float
    is_upright: bool

    @property
    def line(self) -> float:
        return self.size * LINE

    def height(self, number: int) -> float:
        """Return how far the label reaches from its box."""
        label = self.labels[number]
        if self.is_upright:
            return max(text_width(*line, self.size) for line in label)
        return self.line * len(label)


def assign_rows(stages: Sequence[Stage], pairs: Pairs) -> list[Row]:
    """Return the row of each stage: the upper one up to the decoder; a block that joins both stands between them."""
    first = next((n for n, stage in enumerate(stages) if stage.role in ("decoder", "head", "filter")), len(stages))
    if not 0 < first < len(stages):
        first = -(-len(stages) // 2)
    rows: list[Row] = ["top" if number < first else "bottom" for number in range(len(stages))]
    for number in range(1, first):
        readers = [j for i, j in pairs if i == number]
        sources = [i for i, j in pairs if j == number]
        joins_both = bool(sources and readers) and min(readers) >= first and rows[max(sources)] == "top"
        if stages[number].role == "block" and joins_both:
            rows[number] = "middle"
    return rows


def assign_columns(rows: Sequence[Row], pairs: Pairs) -> list[int]:
    """Return the column of each stage, the rows shifted so that links between them run as straight as they can."""
    top, bottom = ([number for number, row in enumerate(rows) if row == wanted] for wanted in ("top", "bottom"))
    source = {
        number: max((i for i, j in pairs if j == number), default=number) if row == "middle" else number
        for number, row in enumerate(rows)
    }
    below = {number: len(bottom) - 1 - place for place, number in enumerate(bottom)}
    above = {number: place for place, number in enumerate(top)}
    across = [(above[source[i]], below[j]) for i, j in pairs if rows[i] != "bottom" and rows[j] == "bottom"]

    def cost(shift: int) -> tuple[int, int]:
        num_columns = max(len(bottom), shift + len(top)) - min(0, shift)
        return num_columns + sum(abs(shift + start - end) for start, end in across), abs(shift)

    shift = min(range(-len(top), len(bottom) + 1), key=cost)
    columns = below | {number: shift + place for number, place in above.items()}
    return [columns[source[number]] - min(0, shift) for number in range(len(rows))]


def choose_lettering(stages: Sequence[Stage], rows: Sequence[Row], slot: float) -> Lettering:
    """Return the largest labels that fit their columns, upright where they could not be read otherwise."""
    room = slot - PAD
    for size in SIZES:
        labels = [wrap_label(stage, size, room) for stage in stages]
        in_rows = [line for label, row in zip(labels, rows, strict=True) if row != "middle" for line in label]
        if all(text_width(*line, size) <= room for line in in_rows):
            return Lettering(labels, size, is_upright=False)
    labels = [upright_label(stage) for stage in stages]
    most = max(len(label) for label, row in zip(labels, rows, strict=True) if row != "middle")
    return Lettering(labels, min(6.5, slot / LINE / most), is_upright=True)


def name_of(stage: Stage) -> str:
    """Return what the figure calls a stage: a block by its class and rule, others without the caption of their row."""
    if stage.role in ("block", "filter"):
        return ", ".join(filter(None, (stage.kind, stage.rule)))
    short = stage.name.removeprefix(f"{stage.role}.") if stage.role in CAPTIONED else stage.name
    return stage.name if short[:1].isdigit() else short


def wrap_label(stage: Stage, size: float, room: float) -> list[Line]:
    """Return name, shape and parameters in lines; the name is broken where it can be."""
    lines = [""]
    for piece in BREAKS.split(name_of(stage)):
        joined = lines[-1] + (" " if lines[-1].endswith(",") else "") + piece
        if lines[-1] and text_width(joined, True, size) > room:
            lines.append(piece)
        else:
            lines[-1] = joined
    details = (shape_text(stage.shape), count_text(stage.parameters))
    return [(line, True) for line in lines] + [(line, False) for line in details]


def upright_label(stage: Stage) -> list[Line]:
    name, *rule = name_of(stage).split(", ", maxsplit=1)
    details = f"{shape_text(stage.shape)}, {count_text(stage.parameters)}"
    return [(name, True), *((line, True) for line in rule), (details, False)]


def place_boxes(
    stages: Sequence[Stage],
    rows: Sequence[Row],
    columns: Sequence[int],
    sides: Sequence[Side],
    lettering: Lettering,
    slot: float,
) -> tuple[list[Box], float]:
    """Return a box for each stage, and the height of the figure."""
    xs = [MARGIN + CAPTION + (column + 0.5) * slot for column in columns]

    def reach(row: Row, sizes: Sequence[float]) -> float:
        return max((size for size, other in zip(sizes, rows, strict=True) if other == row), default=0.0)

    heights = [height for _, height in sides]
    labels = [lettering.height(number) for number in range(len(stages))]
    cards, channel = place_cards(stages, rows, xs, sides)
    low = FOOT + reach("bottom", labels) + 2 * PAD
    high = low + reach("bottom", heights) + channel
    centre: dict[Row, float] = {"top": high + reach("top", heights) / 2, "bottom": low + reach("bottom", heights) / 2}
    boxes = []
    for number, (row, x, side) in enumerate(zip(rows, xs, sides, strict=True)):
        if row == "middle":
            boxes.append(replace(cards[number], y=cards[number].y + low + reach("bottom", heights)))
        else:
            boxes.append(Box(row, x, centre[row], *side))
    return boxes, high + reach("top", heights) + reach("top", labels) + 2 * PAD + TITLE


def scale_boxes(stages: Sequence[Stage], slot: float) -> list[Side]:
    """Return width and height of each stage's box, on one log scale each."""
    channels, sides = zip(*(channels_and_side(stage.shape) for stage in stages), strict=True)
    narrow, wide = BOX_WIDTHS
    return list(zip(log_scale(channels, narrow, min(wide, 0.64 * slot)), log_scale(sides, *BOX_HEIGHTS), strict=True))


def channels_and_side(shape: Sequence[int]) -> tuple[float, float]:
    """Return the channels of a map (C, H, W), of tokens (N, C) or of whatever comes, and the side of its square."""
    if len(shape) == 3:
        return shape[0], math.sqrt(shape[1] * shape[2])
    return (shape[1], math.sqrt(shape[0])) if len(shape) == 2 else (math.prod(shape), 1)


def log_scale(values: Sequence[float], low: float, high: float) -> list[float]:
    """Return lengths from ``low`` for the smallest value to ``high`` for the largest."""
    logs = [math.log(max(value, 1)) for value in values]
    span = max(logs) - min(logs)
    return [low + (high - low) * ((log - min(logs)) / span if span else 0.5) for log in logs]


def place_cards(
    stages: Sequence[Stage], rows: Sequence[Row], xs: Sequence[float], sides: Sequence[Side]
) -> tuple[dict[int, Box], float]:
    """Return the blocks between the rows, their y from the lower row on, and what the rows leave to them."""
    numbers = [number for number, row in enumerate(rows) if row == "middle"]
    if not numbers:
        return {}, CHANNEL
    labels = {number: card_label(stages[number]) for number in numbers}
    step = max(sides[n][1] + CARD_SIZE * LINE * len(labels[n]) for n in numbers) + 3 * PAD + CARD_GAP
    cards: dict[int, Box] = {}
    for number in numbers:
        width = max(sides[number][0], *(text_width(*line, CARD_SIZE) for line in labels[number])) + 2 * PAD
        height = sides[number][1] + CARD_SIZE * LINE * len(labels[number]) + 3 * PAD
        x = min(max(xs[number], MARGIN + CAPTION + width / 2), WIDTH - MARGIN - width / 2)
        taken = {card.y for card in cards.values() if abs(card.x - x) < (card.width + width) / 2 + PAD}
        levels = (CARD_GAP / 2 + (level + 0.5) * step for level in range(len(numbers)))
        cards[number] = Box("middle", x, next(y for y in levels if y not in taken), width, height)
    return cards, max(card.y for card in cards.values()) + (step + CARD_GAP) / 2


def card_label(stage: Stage) -> list[Line]:
    names = [(name, True) for name in name_of(stage).split(", ")]
    return [*names, (shape_text(stage.shape), False), (count_text(stage.parameters), False)]


def text_width(text: str, is_bold: bool, size: float) -> float:
    """Return how wide a line is in inches."""
    font = FontProperties(family=FAMILY, size=size, weight="bold" if is_bold else "normal")
    width: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return width / 72


def shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def count_text(count: int) -> str:
    """Return a number with three digits: ``129``, ``148 k``, ``12.7 M``."""
    for unit, name in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
