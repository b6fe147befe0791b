"""What one person looks at, and what the controls of the page say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from smooth_attention.app.networks import Offer
from smooth_attention.core.errors import OptionError
from smooth_attention.look.attention import Head, Look, RowPair
from smooth_attention.models.rows import Rule
from smooth_attention.viz.overlays import Picture

__all__ = [
    "ERRORS",
    "RECOMPUTED",
    "SHOWN_PX",
    "Caption",
    "Seen",
    "Session",
    "Settings",
    "Subject",
    "View",
    "at_middle",
    "fit",
    "make_subject",
]

SHOWN_PX = 440  # longer side of an image on the page
RULES: dict[str, Callable[[float], Rule | None]] = {
    "as trained": lambda value: None,
    "threshold": lambda value: Rule(threshold=value),
    "fraction": lambda value: Rule(fraction=value),
    "no smoothing": lambda value: Rule(),
    "every position": lambda value: Rule(threshold=-1.0),
}
TRAINED, MASK, ERRORS = "as trained", "mask", "errors"
RECOMPUTED = "recomputed with the same weights, not retrained"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the controls of the page say.

    Attributes:
        first: name of the network.
        second: of the one to compare with, or None.
        head: number of the attention head, in the order of the network.
        image_size: side in pixels that networks see; None: as trained.
        rule: one of :data:`RULES`.
        value: threshold or fraction.
        opacity: of what is laid over the image, 0 to 1.
        shows: ``"mask"`` or ``"errors"``.
    """

    first: str
    second: str | None = None
    head: int = 0
    image_size: int | None = None
    rule: str = TRAINED
    value: float = 0.1
    opacity: float = 0.7
    shows: str = MASK

    def networks(self) -> list[str]:
        return [self.first] if self.second in (None, self.first) else [self.first, str(self.second)]

    def make_rule(self) -> Rule | None:
        """Return the rule that is asked for; None is what each network was trained with.

        Raises:
            OptionError: on an unknown rule or a value it can't have.
        """
        if self.rule not in RULES:
            raise OptionError(f"a rule is one of {', '.join(RULES)}, got {self.rule!r}")
        return RULES[self.rule](self.value)


@dataclass(frozen=True, eq=False)
class Subject:
    """The image that somebody looks at.

    Attributes:
        name: stem or file name.
        load: returns it at native size, uint8 (H, W, 3).
        shape: (H, W).
        shown: a copy that fits the page.
        truth: its mask at native size; None: unknown.
        class_names: of the truth's labels; None: binary.
        data: fingerprint of the data set that it is from; None: uploaded.
    """

    name: str
    load: Callable[[], np.ndarray]
    shape: tuple[int, int]
    shown: Picture
    truth: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    data: str | None = None

    def is_test_of(self, offer: Offer) -> bool:
        """Return whether it is a test image of a network, not one that it may have been trained on."""
        return offer.source is not None and offer.source.fingerprint == self.data and self.name in offer.test

    def truth_for(self, offer: Offer) -> np.ndarray | None:
        """Return the truth if a network's masks have the same labels."""
        return self.truth if offer.net.label_names == self.class_names else None


@dataclass(frozen=True, eq=False)
class Session:
    """What one person looks at; nobody else's.

    Attributes:
        subject: the image.
        point: (x, y) of the position, in pixels of the image.
        looks: what networks made of it, by name and image size.
        settings: of what the page shows; None: nothing yet.
        masks: pictures of masks with their captions, by network and settings; they do not depend on the position.
    """

    subject: Subject
    point: tuple[float, float]
    settings: Settings | None = None
    looks: dict[tuple[str, int | None], Look] = field(default_factory=dict)
    masks: dict[tuple[str, Settings], tuple[Picture, Caption]] = field(default_factory=dict)

    @property
    def drawn(self) -> Settings:
        """Settings of what the page shows."""
        assert self.settings is not None
        return self.settings


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands under a picture.

    Attributes:
        text: what it shows, with its range.
        colours: of its scale as CSS colours with their places; empty: it has no scale.
        ends: what the first and the last colour stand for.
        key: names of what is drawn in one colour, with that colour as CSS.
    """

    text: str
    colours: tuple[str, ...] = ()
    ends: tuple[str, str] = ("", "")
    key: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class View:
    """The pictures of one network, each with a line under it.

    Attributes:
        heading: which network, under which rule.
        pictures: mask, attention before smoothing, as used, roughness, gate; None where there is none.
        captions: what they show, with units and range.
        readout: sentences on the position.
    """

    heading: str
    pictures: tuple[Picture | None, ...]
    captions: tuple[Caption, ...]
    readout: str


@dataclass(frozen=True, eq=False)
class Seen:
    """One network's look at the image, with the row of the position.

    Attributes:
        offer: the network.
        look: at the image.
        head: of attention; None: the network has none.
        position: flat, in the head's grid.
        row: where the position looks.
    """

    offer: Offer
    look: Look
    head: Head | None = None
    position: int = 0
    row: RowPair | None = None


def make_subject(name: str, load: Callable[[], np.ndarray], image: np.ndarray) -> Subject:
    return Subject(name, load, (image.shape[0], image.shape[1]), fit(image, SHOWN_PX))


def at_middle(subject: Subject) -> Session:
    height, width = subject.shape
    return Session(subject, (width / 2, height / 2))


def fit(image: np.ndarray, longest_px: int) -> Picture:
    """Return an image whose longer side is ``longest_px``; neither side falls below 1."""
    height, width = image.shape[:2]
    factor = longest_px / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
