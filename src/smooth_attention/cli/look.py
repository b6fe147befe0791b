"""``smooth-attention look RUN --output look.html``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options

__all__ = []


@dataclass(frozen=True)
class LookOptions:
    """Write one HTML page in which the attention of a run can be looked at, click by click; it needs no network."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="The run directory.", metavar="RUN")]
    output: Annotated[Path, tyro.conf.arg(help="The page.")] = Path("look.html")
    samples: Annotated[int, tyro.conf.arg(help="How many test images, from the worst to the best IoU.")] = 12


def run(arguments: list[str], prog: str) -> None:
    options = read_options(LookOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line
    from smooth_attention.data.cache_root import default_cache
    from smooth_attention.look.page import write_look_page

    stems = write_look_page(options.run, options.output, cache=default_cache(), samples=options.samples)
    size_mb = options.output.stat().st_size / 1e6
    images = "1 test image" if len(stems) == 1 else f"{len(stems)} test images"
    print_line(f"{options.output}: {images} of {options.run}, {size_mb:.1f} MB")
