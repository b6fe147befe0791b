"""The data of a run, opened and checked."""

from __future__ import annotations

from collections.abc import Callable

from smooth_attention.core.errors import DataError
from smooth_attention.data.cache import check_readable
from smooth_attention.data.opening import open_source
from smooth_attention.data.sources import Source
from smooth_attention.runs.config import RunConfig

__all__ = ["Opener", "open_checked_source", "open_once"]

Opener = Callable[[RunConfig], tuple[Source, list[str]]]


def open_checked_source(config: RunConfig) -> tuple[Source, list[str]]:
    """Return the source of a configuration and one sentence for each file left out.

    Raises:
        DataError: at the first file that can take no part, unless the configuration skips them.
    """
    source = open_source(config.data, config.layout, size=config.image_size, mask_threshold=config.mask_threshold)
    if not config.skip_broken:
        if source.problems:
            raise DataError(
                f"{source.problems[0]} ({len(source.problems)} such files); mend them, or use --skip-broken"
            )
        return source, []
    broken = check_readable(source)
    return source.without(set(broken)), [*source.problems, *broken.values()]


def open_once() -> Opener:
    """Return :func:`open_checked_source` for many runs: it opens, checks and fingerprints each data set once."""
    opened: dict[tuple[object, ...], tuple[Source, list[str]]] = {}

    def open_data(config: RunConfig) -> tuple[Source, list[str]]:
        size = config.image_size if config.data == "shapes" else None  # files have their own size
        key = (config.data, config.layout, size, config.mask_threshold, config.skip_broken)
        if key not in opened:
            opened[key] = open_checked_source(config)
        return opened[key]

    return open_data
