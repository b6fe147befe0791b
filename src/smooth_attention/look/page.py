"""One page on what a run's network does with its test images: it opens from disk, in any browser, without a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from smooth_attention.core.errors import OptionError
from smooth_attention.core.files import write_text
from smooth_attention.core.outputs import check_output_file
from smooth_attention.core.provenance import versions
from smooth_attention.core.records import Record
from smooth_attention.look.attention import Look
from smooth_attention.look.page_data import OFF, PageHead, Stop, describe_view, list_stops, plan_views, sample_data
from smooth_attention.models.rows import Rule
from smooth_attention.runs.evaluate import OpenedRun, open_run
from smooth_attention.runs.picks import iou_by_stem, spread_stems
from smooth_attention.viz.colours import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, palette
from smooth_attention.viz.heatmaps import ATTENTION, MARK, POWER, ROUGHNESS, colour_table

__all__ = ["write_look_page"]

TEMPLATE, SCRIPT = "page.html.jinja", "page.js"
SMALL_CHANGE = 0.001  # share of pixels; below it the gate hardly moves a mask
MAX_PAGE_BYTES = 8_000_000
LEAST_SHARE = 1e-6  # that is written as a number


def write_look_page(run: Path, output: Path, *, cache: Path, samples: int = 12) -> list[str]:
    """Write one HTML file in which the attention of a finished run can be looked at, position by position.

    It shows test images from the worst to the best IoU: the mask, the row of attention of a chosen position before and
    after smoothing, roughness and gate, under the rule of the training and others, recomputed with the same weights.

    Args:
        run: the run directory.
        output: the file, replaced where there is one; its directory is made.
        cache: where decoded images live.
        samples: how many test images at most.

    Returns:
        The stems of the images that it shows.

    Raises:
        ConfigError: where there is no finished run, or its data changed.
        DataError: where its data or model is gone.
        OptionError: where ``output`` can't be written, the page would have more than 8 MB, or on fewer than one sample.
    """
    check_output_file(output)
    opened = open_run(run, cache=cache)
    stems = spread_stems(opened.record, samples)
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = page_values(opened, run.resolve().name, stems)
    script = (here / SCRIPT).read_text(encoding="utf-8")
    page = environment.get_template(TEMPLATE).render(script=script, **values)
    if (size := len(page.encode())) > MAX_PAGE_BYTES and len(stems) > 1:
        fitting = max(1, int(len(stems) * MAX_PAGE_BYTES / size))
        raise OptionError(
            f"a page of {len(stems)} images would have {size / 1e6:.1f} MB, above the {MAX_PAGE_BYTES / 1e6:g} MB that "
            f"a mail carries; use --samples {fitting}"
        )
    write_text(output, page)
    return stems


def page_values(opened: OpenedRun, name: str, stems: Sequence[str]) -> dict[str, Any]:
    """Return what the template needs: ``data`` for its script, the rest is text."""
    images, data = iou_by_stem(opened.record), None
    samples = []
    for stem in stems:
        pair = opened.source.load(stem)
        look = Look(opened.net, pair.image, opened.config.image_size)
        if data is None:  # heads, grids and rules are those of every image: all are seen as the same square
            (views, left_out), stops = plan_views(look.heads), list_stops(look)
            facts, data = list_facts(opened, name, look, stems), page_data(opened, look, views, stops)
        class_names = opened.source.class_names
        sample = sample_data(look, pair, views, stops, class_names=class_names, iou=images[stem])
        samples.append({"stem": stem, **sample})
    assert data is not None
    return {
        "title": f"Look into {name}",
        "facts": facts,
        "has_attention": bool(views),
        "arm": opened.config.arm,
        "views": [view.name for view in views],
        "left_out": left_out,
        "remark": remark_on_gate(opened.record),
        "is_binary": opened.source.class_names is None,
        "versions": ", ".join(f"{package} {version}" for package, version in versions().items()),
        "data": {**data, "samples": samples},
    }


def list_facts(opened: OpenedRun, name: str, look: Look, stems: Sequence[str]) -> dict[str, str]:
    """Return what is looked at, for the top of the page."""
    config, test = opened.config, opened.record.metrics.test
    pooled = test.pooled.iou
    return {
        "Run": name,
        "Network": f"{config.network}, encoder {config.encoder}, sees {look.image_size} x {look.image_size} px",
        "Arm": config.arm,
        **({"Rule of the training": look.describe()} if look.heads else {}),
        "Data": f"{opened.source.name}, {len(stems)} of {len(test.images)} test images",
        "Protocol": config.protocol,
        "IoU of all test images": "undefined" if pooled is None else f"{pooled:.3f}, pooled",
    }


def page_data(opened: OpenedRun, look: Look, views: Sequence[PageHead], stops: Sequence[Stop]) -> dict[str, Any]:
    """Return what the script needs for all images."""
    names, trained = opened.source.class_names, look.describe()
    colours = palette(len(names)) if names else np.array([(0, 0, 0), TRUE_POSITIVE], np.uint8)
    return {
        "covered": look.covered,
        "views": [describe_view(view) for view in views],
        "stops": [
            {
                "kind": stop.kind,
                "value": stop.value,
                "rule": look.describe(stop.rule),
                "is_trained": look.describe(stop.rule) == trained,
                "threshold": step_threshold(look, stop),
            }
            for stop in stops
        ],
        "classes": names,
        "colours": [css(colour) for colour in colours[: len(names) if names else 2]],
        "errors": {"found": css(TRUE_POSITIVE), "alarm": css(FALSE_POSITIVE), "missed": css(FALSE_NEGATIVE)},
        "tables": {"attention": encode_table(ATTENTION), "roughness": encode_table(ROUGHNESS)},
        "power": POWER,
        "mark": MARK,
    }


def remark_on_gate(record: Record) -> str | None:
    """Return a sentence on how much of the masks the gate changes, as recorded; None where there is no gate."""
    gate_off = record.metrics.test.gate_off
    if gate_off is None:
        return None
    share = gate_off.changed_pixels
    changing = f"{100 * share:.2g} % of the pixels" if share >= LEAST_SHARE else "less than 0.0001 % of the pixels"
    sentence = f"Without the gate {changing if share else 'no pixel'} of all test masks would change."
    return f"{sentence} Expect the mask to hardly move." if share < SMALL_CHANGE else sentence


def step_threshold(look: Look, stop: Stop) -> float | None:
    """Return the roughness above which a rule smooths, where it is such a step between 0 and 1."""
    if not look.heads:
        return None
    block = look.heads[-1].module
    own = Rule(block.threshold, block.fraction) if block.soft_threshold is None else OFF
    threshold = (own if stop.rule is None else stop.rule).threshold
    return threshold if threshold is not None and 0 <= threshold <= 1 else None


def encode_table(name: str) -> str:
    """Return a colour map as base64 of 256 RGB triples."""
    return base64.b64encode(colour_table(name).tobytes()).decode()


def css(colour: Iterable[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
