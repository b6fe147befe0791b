"""``smooth-attention compare A B --truth DIR``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options

__all__ = []


@dataclass(frozen=True)
class CompareOptions:
    """Compare two runs, or two folders of masks from any framework, image by image."""

    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="A run, or a folder of masks.", metavar="A")]
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="The other one.", metavar="B")]
    truth: Annotated[Path, tyro.conf.arg(help="Folder of true masks, or a data directory with masks/.")]
    groups: Annotated[Path | None, tyro.conf.arg(help="CSV stem,group instead of the truth's.")] = None
    mask_threshold: Annotated[int | None, tyro.conf.arg(help="Grey value from which a binary mask is foreground.")] = (
        None
    )
    output: Annotated[Path | None, tyro.conf.arg(help="Also write everything, image by image, as JSON.")] = None


def run(arguments: list[str], prog: str) -> None:
    options = read_options(CompareOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line, print_table, show
    from smooth_attention.core.files import write_json
    from smooth_attention.core.outputs import check_output_file
    from smooth_attention.core.records import METRIC_TITLES
    from smooth_attention.runs.compare import compare

    if options.output:
        check_output_file(options.output)
    result = compare(options.a, options.b, options.truth, groups=options.groups, mask_threshold=options.mask_threshold)
    a, b, differences = result.a, result.b, result.differences
    for words, sides, intervals in (
        ("pooled over images", (a.pooled, b.pooled), differences.pooled),
        ("mean over images", (a.per_image, b.per_image), differences.per_image),
    ):
        rows = []
        for name, title in METRIC_TITLES.items():
            found = intervals.get(name)
            bounds = (None,) * 3 if found is None else (found.difference, found.low, found.high)
            rows.append([title, *(show(value) for value in (*(getattr(side, name) for side in sides), *bounds))])
        header = ["", "A", "B", "B - A", "low 95 %", "high 95 %"]
        print_table(words, header, rows, caption=result.convention)
    changed = [image.difference for image in result.images if image.difference is not None]
    higher, lower = sum(change > 0 for change in changed), sum(change < 0 for change in changed)
    print_line(
        f"{result.num_images} images in {result.num_groups} groups; "
        f"IoU higher in B on {higher}, lower on {lower}, equal on {len(changed) - higher - lower}"
    )
    if result.left_out:
        print_line(f"left out, as not on all sides: {len(result.left_out)} masks, first {result.left_out[0]}")
    if options.output:
        write_json(options.output, result)
        print_line(f"written: {options.output}")
