"""The pictures of a session, with a line under each: what it shows, its unit and its range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from smooth_attention.app.session import ERRORS, RECOMPUTED, Caption, Seen, Session, Settings, Subject, View, fit
from smooth_attention.data.cache import resize_mask
from smooth_attention.metrics.iou import image_iou, show_iou
from smooth_attention.models.rows import Rule, describe_rule
from smooth_attention.viz.colours import IGNORED
from smooth_attention.viz.heatmaps import (
    ATTENTION,
    POWER,
    ROUGHNESS,
    AttentionRow,
    colour_table,
    describe_gate,
    gate_overlay,
    heat_overlay,
    mark_box,
)
from smooth_attention.viz.overlays import Picture, error_overlay, mask_overlay, overlay_key
from smooth_attention.viz.surfaces import scatter_chart, surface_chart

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["PANEL_PX", "attention_rows", "draw_mask", "draw_view", "scaled_box", "turning_charts"]

PANEL_PX = 420  # longer side of the pictures below the image
MAX_ROWS = 64
THRESHOLDS = (0.1, 0.9)
NO_ATTENTION = "no attention in this network"


def draw_view(subject: Subject, seen: Seen, settings: Settings, limit: float, drawn: tuple[Picture, Caption]) -> View:
    """Return the pictures of one network with its ``drawn`` mask; attention is coloured up to ``limit``."""
    rule, look = settings.make_rule(), seen.look
    ground = fit(subject.shown, PANEL_PX)
    mask, mask_caption = drawn
    heading = f"{seen.offer.name} · {rule_of(seen, rule)} · {look.image_size} px"
    if seen.head is None or seen.row is None:
        return View(heading, (mask, *[None] * 4), (mask_caption, *[Caption(NO_ATTENTION)] * 4), "")
    head, row, covered, alpha = seen.head, seen.row, look.covered, settings.opacity
    gate = head.gate(rule)
    pictures = (
        mask,
        heat_overlay(ground, row.plain, limit=limit, covered=covered, alpha=alpha),
        heat_overlay(ground, row.used, limit=limit, covered=covered, alpha=alpha),
        heat_overlay(ground, head.roughness, limit=1.0, covered=covered, alpha=alpha, colours=ROUGHNESS),
        gate_overlay(ground, gate, covered=covered, alpha=alpha),
    )
    scale, ends = css_colours(ATTENTION), ("0", f"{limit:.3g}")
    captions = (
        mask_caption,
        Caption(f"share of 1; at most {row.plain.max():.3g}, sum {row.plain.sum():.3f}", scale, ends),
        Caption(f"share of 1; at most {row.used.max():.3g}, sum {row.used.sum():.3f}", scale, ends),
        Caption(
            f"0 to 1; here {head.roughness.min():.2g} to {head.roughness.max():.2g}", css_colours(ROUGHNESS), ("0", "1")
        ),
        Caption(describe_gate(gate), ("black", "white"), ("kept", "smoothed")),
    )
    box = scaled_box(seen, ground)
    return View(heading, tuple(mark_box(picture, box) for picture in pictures), captions, describe_position(seen))


def css_colours(name: str, steps: int = 16) -> tuple[str, ...]:
    """Return a colour map as colours of a CSS gradient along the values: each at the value that it stands for."""
    table = colour_table(name)
    shares = [step / steps for step in range(steps + 1)]
    return tuple(
        "rgb({} {} {}) {:.2f}%".format(*table[round(share * 255)], 100 * share ** (1 / POWER)) for share in shares
    )


def rule_of(seen: Seen, rule: Rule | None) -> str:
    """Say what the block that is looked at smooths, and whether it was trained to."""
    if seen.head is None:
        return "no attention"
    told = describe_rule(seen.head.module, rule)
    return told if rule is None else f"{told}, {RECOMPUTED}"


def draw_mask(subject: Subject, seen: Seen, settings: Settings) -> tuple[Picture, Caption]:
    """Return the mask over the image, or what it gets wrong, and what is known of it."""
    rule, look, truth = settings.make_rule(), seen.look, subject.truth_for(seen.offer)
    ground = fit(subject.shown, PANEL_PX)
    shape = (ground.shape[0], ground.shape[1])
    labels = look.labels(rule, shape)
    lines = []
    alpha, num_classes = settings.opacity, look.net.classes
    true = resize_mask(truth, shape) if settings.shows == ERRORS and truth is not None else None
    if true is not None:
        picture = error_overlay(ground, true, labels, alpha=alpha, num_classes=num_classes)
        if num_classes > 1:
            lines.append("wrong pixels, coloured by predicted class")
        is_ignored = true == IGNORED
        coloured = np.append(labels[(labels != true) & ~is_ignored], true[is_ignored])
    else:
        picture, coloured = mask_overlay(ground, labels, alpha=alpha, num_classes=num_classes), labels
        if settings.shows == ERRORS:
            lines.append("no errors are drawn: no truth with these labels is known")
    named = overlay_key([coloured], look.net.label_names, judged=true is not None)
    key = tuple((name, "rgb({} {} {})".format(*colour)) for name, colour in named)
    if truth is not None:
        size = "" if look.image_size == look.net.preprocessing.image_size else f" but at {look.image_size} px"
        iou = show_iou(image_iou(look.labels(rule), truth, subject.class_names))
        unseen = "" if subject.is_test_of(seen.offer) else ", which is no test image of this network: no fair IoU"
        lines.append(f"{iou} of this image (protocol standard{size}){unseen}")
    if rule is not None:
        square = (look.image_size, look.image_size)
        changed = float((look.labels(rule, square) != look.labels(None, square)).mean())
        lines.append(f"{100 * changed:.3f} % of the pixels differ from the mask as trained")
    return picture, Caption("; ".join(lines), key=key)


def describe_position(seen: Seen) -> str:
    """Return what is known of the position in a sentence or two."""
    head, row = seen.head, seen.row
    assert head is not None
    assert row is not None
    (height, width), (rows, columns) = seen.look.shape, head.grid
    line, column = divmod(seen.position, columns)
    left, top, right, bottom = (round(edge) for edge in seen.look.box_of(head, seen.position))
    smoothed = {0.0: "not smoothed", 1.0: "smoothed"}.get(row.gate, f"smoothed by {row.gate:.2f}")
    return (
        f"{head.name}: row {line + 1}, column {column + 1} of {rows} x {columns} positions, that is "
        f"x {left} to {right}, y {top} to {bottom} of {width} x {height} px. "
        f"Roughness {row.roughness:.3g}: {smoothed}. gamma {head.module.gamma.item():.4f}."
    )


def attention_rows(session: Session, seen: Sequence[Seen], rule: Rule | None) -> list[AttentionRow]:
    """Return what :func:`smooth_attention.viz.heatmaps.attention_figure` draws of the position."""
    image = session.subject.load()
    return [
        AttentionRow(
            each.offer.name,
            describe_rule(each.head.module, rule),
            image,
            each.look.box_of(each.head, each.position),
            each.row.plain,
            each.row.used,
            each.head.roughness,
            each.head.gate(rule),
            each.look.covered,
        )
        for each in seen
        if each.head is not None and each.row is not None
    ]


def scaled_box(seen: Seen, picture: Picture) -> tuple[float, float, float, float]:
    """Return the position's box in pixels of a copy of the image."""
    assert seen.head is not None
    left, top, right, bottom = seen.look.box_of(seen.head, seen.position)
    x, y = picture.shape[1] / seen.look.shape[1], picture.shape[0] / seen.look.shape[0]
    return left * x, top * y, right * x, bottom * y


def turning_charts(subject: Subject, seen: Sequence[Seen], rule: Rule | None) -> list[go.Figure]:
    """Return surfaces of the position's rows and a scatter of many rows, to be turned; empty without attention."""
    rows, clouds, covered = {}, {}, []
    for each in seen:
        if each.head is None or each.row is None:
            continue
        covered += [each.look.covered] * 2
        rows[f"{each.offer.name}: before smoothing"] = each.row.plain
        rows[f"{each.offer.name}: {describe_rule(each.head.module, rule)}"] = each.row.used
        for threshold in THRESHOLDS:
            found = each.head.rows(each.head.spaced(MAX_ROWS), Rule(threshold))
            clouds[f"{each.offer.name}: threshold {threshold:g}"] = [row.used for row in found]
    if not rows:
        return []
    row, cloud = f"attention of the position, {subject.name}", f"attention of up to {MAX_ROWS} positions, {RECOMPUTED}"
    return [
        surface_chart(rows, subject.shape, title=row if rule is None else f"{row}; {RECOMPUTED}", covered=covered),
        scatter_chart(clouds, subject.shape, title=cloud, covered=covered),
    ]
