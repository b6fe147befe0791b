"""``smooth-attention data check DATA``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smooth_attention.cli.options import read_options
from smooth_attention.data.layouts import LayoutName

__all__ = []

SHOWN = 20


@dataclass(frozen=True)
class CheckOptions:
    """Say what a dataset holds, and what is wrong with it."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="'shapes' or a directory.", metavar="DATA")]
    layout: Annotated[LayoutName | None, tyro.conf.arg(help="Layout; recognised if left out.")] = None
    mask_threshold: Annotated[int | None, tyro.conf.arg(help="Grey value from which a binary mask is foreground.")] = (
        None
    )
    near_duplicates: Annotated[bool, tyro.conf.arg(help="Also find images that show the same, flipped or not.")] = False
    output: Annotated[Path | None, tyro.conf.arg(help="Where to write the proposed groups.csv.")] = None


def run(arguments: list[str], prog: str) -> None:
    options = read_options(CheckOptions, arguments, prog)

    from smooth_attention.cli.tables import print_line, print_table
    from smooth_attention.core.errors import DataError
    from smooth_attention.core.files import write_text
    from smooth_attention.core.outputs import check_output_file
    from smooth_attention.data.check import check_source, propose_groups
    from smooth_attention.data.opening import open_source

    if options.output and not options.near_duplicates:
        raise DataError("--output takes the groups that --near-duplicates proposes; give both or neither")
    if options.output:
        check_output_file(options.output)
    source = open_source(options.data, options.layout, mask_threshold=options.mask_threshold)
    report = check_source(source, with_near_duplicates=options.near_duplicates)
    sizes = ", ".join(f"{width}x{height} ({count})" for (width, height), count in report.sizes[:4])
    more = f" and {len(report.sizes) - 4} more" if len(report.sizes) > 4 else ""
    print_line(f"read as layout {source.layout}" if source.layout else "generated")
    print_line(f"{report.name}: {report.num_pairs} readable pairs in {report.num_groups} groups; sizes {sizes}{more}")
    if report.parts:
        print_line("split: " + ", ".join(f"{part} {count}" for part, count in report.parts.items()))
    rows = [[name, f"{100 * share:.2f}", str(count)] for name, (share, count) in report.classes.items()]
    ignored = f"; {100 * report.ignored_frac:.2f} % of all pixels are ignored (255)" if report.ignored_frac else ""
    print_table("classes", ["class", "% of pixels", "images"], rows, caption=f"share of the counted pixels{ignored}")
    for kind, sentences in (("note", report.notes), ("problem", report.problems), ("leak", report.leaks)):
        for sentence in sentences[:SHOWN]:
            print_line(f"{kind}: {sentence}")
        if len(sentences) > SHOWN:
            print_line(f"... and {len(sentences) - SHOWN} more of this kind")
    if report.near_duplicates is not None:
        print_line(f"near-duplicates: {len(report.near_duplicates)} sets of images that look the same")
        for stems in report.near_duplicates[:SHOWN]:
            print_line(f"  {', '.join(stems)}")
        if options.output:
            groups = propose_groups(source, report.near_duplicates)
            lines = [f"{stem},{group}" for stem, group in groups.items()]
            write_text(options.output, "\n".join(["stem,group", *lines]) + "\n")
            print_line(f"proposed groups: {options.output}")
    print_line(f"{len(report.problems)} problems, {len(report.leaks)} leaks")
    if report.problems:
        raise DataError(f"{report.name} has {len(report.problems)} problems, listed above")
