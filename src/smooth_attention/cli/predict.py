"""``smooth-attention predict RUN_OR_MODEL IMAGES... --output DIR``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options

__all__ = []


@dataclass(frozen=True)
class PredictOptions:
    """Write one mask per image at the image's size: 0/255 for a binary task, palette PNG for classes."""

    model: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(help="A run or model directory.", metavar="RUN_OR_MODEL")
    ]
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help="Images, or directories.", metavar="IMAGES...")
    ]
    output: Annotated[Path, tyro.conf.arg(help="Where the masks go, as <stem>.png.")]
    probabilities: Annotated[bool, tyro.conf.arg(help="Also write <stem>.npy, float32.")] = False
    overlay: Annotated[bool, tyro.conf.arg(help="Also write <stem>_overlay.png.")] = False


def run(arguments: list[str], prog: str) -> None:
    options = read_options(PredictOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line, track
    from smooth_attention.core.errors import RunError
    from smooth_attention.core.outputs import check_output_directory
    from smooth_attention.models import load_model
    from smooth_attention.runs.mask_files import predict_files

    check_output_directory(options.output)
    count, masked = predict_files(
        load_model(options.model),
        options.images,
        options.output,
        with_probabilities=options.probabilities,
        with_overlay=options.overlay,
    )
    broken = [each.error for each in track(masked, "predict", total=count) if each.mask is None]
    print_line(f"{count - len(broken)} masks in {options.output}")
    for sentence in broken:
        print_line(f"left out: {sentence}")
    if broken:
        raise RunError(f"{len(broken)} of {count} images can't be read, listed above")
