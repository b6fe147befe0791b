"""What figures are about: one run or two, chosen test images, and one position in one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smooth_attention.core.errors import ConfigError, OptionError
from smooth_attention.core.names import short_names
from smooth_attention.data.sources import Pair
from smooth_attention.look.attention import Head, Look
from smooth_attention.models.rows import Rule
from smooth_attention.runs.evaluate import OpenedRun, open_run
from smooth_attention.runs.picks import iou_by_stem, spread_stems

__all__ = ["FigureInput", "RunLooks", "open_figure_input"]

NUM_IMAGES = 5


@dataclass(frozen=True, eq=False)
class RunLooks:
    """A run with what it makes of the chosen images.

    Attributes:
        name: of its directory, with its parent where two are called alike.
        opened: the run.
        looks: by stem.
    """

    name: str
    opened: OpenedRun
    looks: Mapping[str, Look]

    @property
    def has_attention(self) -> bool:
        return bool(next(iter(self.looks.values())).heads)

    def head(self, stem: str) -> Head:
        """Return the last attention head of the network, with what it met in an image."""
        return self.looks[stem].heads[-1]


@dataclass(frozen=True, eq=False)
class FigureInput:
    """What the figures are about.

    Attributes:
        runs: one run, or two on the same data.
        pairs: chosen test images with their masks, by stem: five from the worst to the best IoU of the first run, then
            the one that was asked for, if it is another.
        stem: the image whose attention is shown.
        choice: why it was taken, in two words; empty: it was asked for.
        point: pixel (x, y) of it whose attention is shown; None: the roughest position of the first run.
        thresholds: the two that the scatter compares.
    """

    runs: Sequence[RunLooks]
    pairs: Mapping[str, Pair]
    stem: str
    choice: str
    point: tuple[float, float] | None
    thresholds: tuple[float, float]

    @property
    def watching(self) -> list[RunLooks]:
        """Those that have attention to look at."""
        return [run for run in self.runs if run.has_attention]

    def position(self, run: RunLooks) -> int:
        """Return the flat position of the point in the grid of a run."""
        point = self.point
        if point is None:
            first = self.watching[0]
            look, head = first.looks[self.stem], first.head(self.stem)
            left, top, right, bottom = look.box_of(head, look.roughest(head))
            point = (left + right) / 2, (top + bottom) / 2
        return run.looks[self.stem].position_at(run.head(self.stem), *point)

    def title(self, what: str) -> str:
        chosen = "its roughest position" if self.point is None else "position at {:g}, {:g} px".format(*self.point)
        return f"{what}: {self.image_name},\n{chosen}; {self.head_names}"

    @property
    def head_names(self) -> str:
        """The heads that are looked at, of several heads and blocks of a network the last, with their positions."""
        heads = [run.head(self.stem) for run in self.watching]
        return "\nand ".join(dict.fromkeys(f"{h.name}, {h.grid[0]} x {h.grid[1]} positions" for h in heads))

    @property
    def image_name(self) -> str:
        which = f" ({self.choice} of {len(self.pairs)})" if self.choice else ""
        return f"test image {self.stem}{which}"


def open_figure_input(
    runs: Sequence[Path],
    *,
    cache: Path,
    stem: str | None,
    point: tuple[float, float] | None,
    thresholds: tuple[float, float],
) -> FigureInput:
    """Open the runs, choose images and look at them; arguments and errors as in :func:`write_figures`."""
    if not 1 <= len(runs) <= 2:
        raise OptionError(f"figures are of one run, or of two side by side, got {len(runs)}")
    low, high = (Rule(threshold).describe() for threshold in thresholds)
    if low == high:
        raise OptionError(f"the scatter compares two thresholds, got twice {low}; give two that differ")
    if len({run.resolve() for run in runs}) != len(runs):
        raise OptionError(f"{runs[0]} can't be compared with itself; name another run, or it alone")
    opened = [open_run(run, cache=cache) for run in runs]
    first = opened[0]
    if any(other.source.fingerprint != first.source.fingerprint for other in opened):
        raise ConfigError(f"{runs[0]} and {runs[1]} were trained on different data; compare runs on the same")
    shared = [s for s in iou_by_stem(first.record) if all(s in iou_by_stem(o.record) for o in opened)]
    if not shared:
        raise ConfigError(f"{runs[0]} and {runs[1]} share no test image; train them with one split_seed and fold")
    if stem is not None and stem not in shared:
        raise OptionError(f"{stem!r} is no test image of {' and '.join(map(str, runs))}; one is {shared[0]!r}")
    spread = spread_stems(first.record, NUM_IMAGES, among=shared)
    pairs = {s: first.source.load(s) for s in dict.fromkeys([*spread, *([] if stem is None else [stem])])}
    looked = [
        RunLooks(name, o, {s: Look(o.net, pair.image, o.config.image_size) for s, pair in pairs.items()})
        for name, o in zip(short_names(runs), opened, strict=True)
    ]
    chosen, choice = (stem, "") if stem is not None else most_striking(looked, spread)
    height, width = pairs[chosen].mask.shape
    if point is not None and not (0 <= point[0] < width and 0 <= point[1] < height):
        raise OptionError(f"the position {point} lies outside image {chosen}, which is {width} x {height} px")
    return FigureInput(looked, pairs, chosen, choice, point, thresholds)


def most_striking(looked: Sequence[RunLooks], stems: Sequence[str]) -> tuple[str, str]:
    """Return the image in which the first network with attention smooths most, where all tie the roughest; and why."""
    first = next((each for each in looked if each.has_attention), None)
    if first is None:
        return stems[len(stems) // 2], "median IoU"
    heads = {stem: first.head(stem) for stem in stems}
    smoothed = {stem: float(head.gate().mean()) for stem, head in heads.items()}
    if max(smoothed.values()) > min(smoothed.values()):
        return max(stems, key=lambda stem: smoothed[stem]), "most smoothing"
    return max(stems, key=lambda stem: float(heads[stem].roughness.max())), "the roughest"
