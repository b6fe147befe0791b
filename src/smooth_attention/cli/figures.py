"""``smooth-attention figures RUN [RUN] --output DIR``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options

__all__ = []


@dataclass(frozen=True)
class FiguresOptions:
    """Draw the paper's figures of one run, or of two on the same data side by side: PNG, SVG, and HTML that turns."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help="One or two run directories.", metavar="RUN [RUN]")
    ]
    output: Annotated[Path, tyro.conf.arg(help="Directory of the figures.")]
    image: Annotated[
        str | None,
        tyro.conf.arg(
            help="Stem of the test image whose attention is shown; left out: of five test images that span worst to "
            "best IoU, the one smoothed most (on a tie, the roughest)."
        ),
    ] = None
    position: Annotated[
        tuple[float, float] | None,
        tyro.conf.arg(help="Pixel of that image, x and y; left out: where attention is roughest.", metavar="X Y"),
    ] = None
    thresholds: Annotated[
        tuple[float, float],
        tyro.conf.arg(help="Two that the scatter compares with the same weights.", metavar="LOW HIGH"),
    ] = (0.1, 0.9)


def run(arguments: list[str], prog: str) -> None:
    options = read_options(FiguresOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line
    from smooth_attention.data.cache_root import default_cache
    from smooth_attention.look.figures import write_figures

    for path in write_figures(
        options.runs,
        options.output,
        cache=default_cache(),
        stem=options.image,
        point=options.position,
        thresholds=options.thresholds,
    ):
        print_line(str(path))
