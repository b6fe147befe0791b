"""``smooth-attention data preview DATA --output FILE.png``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options
from smooth_attention.data.layouts import LayoutName

__all__ = []


@dataclass(frozen=True)
class PreviewOptions:
    """Draw images of a dataset with their masks over them."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="'shapes' or a directory.", metavar="DATA")]
    output: Annotated[Path, tyro.conf.arg(help="The PNG to write.")]
    layout: Annotated[LayoutName | None, tyro.conf.arg(help="Layout; recognised if left out.")] = None
    mask_threshold: Annotated[int | None, tyro.conf.arg(help="Grey value from which a binary mask is foreground.")] = (
        None
    )
    count: Annotated[int, tyro.conf.arg(help="Number of images, spread evenly over the dataset.")] = 12


def run(arguments: list[str], prog: str) -> None:
    options = read_options(PreviewOptions, arguments, prog)

    import numpy as np

    from smooth_attention.cli.tables import print_line
    from smooth_attention.core.errors import OptionError
    from smooth_attention.core.files import write_bytes
    from smooth_attention.core.outputs import check_output_file
    from smooth_attention.data.opening import open_source
    from smooth_attention.runs.pictures import encode_figure
    from smooth_attention.viz.overlays import Sample, sample_grid

    if options.output.suffix.lower() != ".png" or options.count < 1:
        raise OptionError(
            f"preview needs --output FILE.png and --count of at least 1, got {options.output}, {options.count}"
        )
    check_output_file(options.output)
    source = open_source(options.data, options.layout, mask_threshold=options.mask_threshold)
    chosen = np.unique(np.linspace(0, len(source.stems) - 1, options.count).round().astype(int))
    pairs = [(source.stems[i], source.load(source.stems[i])) for i in chosen]
    samples = [Sample(stem, pair.image, pair.mask) for stem, pair in pairs]
    write_bytes(options.output, encode_figure(sample_grid(samples, classes=source.class_names, title=source.name)))
    print_line(f"{len(pairs)} of {len(source.stems)} pairs of {source.name}: {options.output}")
