"""Answers to what the page asks: which image, which position, what the networks make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from smooth_attention.app.drawing import attention_rows, draw_mask, draw_view, scaled_box, turning_charts
from smooth_attention.app.networks import Catalogue
from smooth_attention.app.session import RECOMPUTED, Seen, Session, Settings, View, at_middle, make_subject
from smooth_attention.app.uploads import read_upload
from smooth_attention.core.errors import OptionError
from smooth_attention.look.attention import Look
from smooth_attention.runs.pictures import encode_figure, encode_mask
from smooth_attention.viz.heatmaps import attention_figure, mark_box
from smooth_attention.viz.overlays import Picture

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Viewer"]


class Viewer:
    """Answers what the page asks; it keeps nothing of a person, sessions do.

    Args:
        paths: runs and model directories by the name in the list; None: an untrained network.
    """

    def __init__(self, paths: Mapping[str, Path | None]) -> None:
        self.open = Catalogue(paths).open

    def choose_sample(self, name: str, stem: str) -> Session:
        """Return a session on a sample image of a network."""
        offer = self.open(name)
        pair = offer.load(stem)
        assert offer.source is not None
        subject = make_subject(stem, lambda: offer.load(stem).image, pair.image)
        source = offer.source
        return at_middle(replace(subject, truth=pair.mask, class_names=source.class_names, data=source.fingerprint))

    def choose_upload(self, path: Path) -> Session:
        """Return a session on an uploaded image."""
        return at_middle(make_subject(path.name, lambda: read_upload(path), read_upload(path)))

    def click(self, session: Session, x_px: float, y_px: float, longest_px: int) -> Session:
        """Return the session at another position: pixel (x, y) of a picture whose longer side is ``longest_px``."""
        height, width = session.subject.shape
        native_px = max(height, width) / longest_px
        return replace(session, point=((x_px + 0.5) * native_px, (y_px + 0.5) * native_px))

    def see(self, session: Session, settings: Settings) -> list[Seen]:
        """Let the networks of the settings look at the image, where they have not yet."""
        wanted = [(name, settings.image_size) for name in settings.networks()]
        for key in [key for key in session.looks if key not in wanted]:
            del session.looks[key]
        seen = []
        for name, size in wanted:
            offer = self.open(name)
            if (name, size) not in session.looks:
                session.looks[name, size] = Look(offer.net, session.subject.load(), size)
            look = session.looks[name, size]
            if not look.heads:
                seen.append(Seen(offer, look))
                continue
            head = look.heads[min(settings.head, len(look.heads) - 1)]
            position = look.position_at(head, *session.point)
            seen.append(Seen(offer, look, head, position, head.rows([position], settings.make_rule())[0]))
        return seen

    def main_picture(self, session: Session, seen: Sequence[Seen]) -> Picture:
        """Return the image with the position outlined, one outline for each grid."""
        picture = session.subject.shown
        for each in seen:
            if each.head is not None:
                picture = mark_box(picture, scaled_box(each, picture))
        return picture

    def draw(self, session: Session, settings: Settings) -> tuple[list[Seen], list[View]]:
        """Return what each network makes of the image at the position, and its pictures on one scale of attention."""
        seen = self.see(session, settings)
        rows = [each.row for each in seen if each.row is not None]
        limit = max((float(max(row.plain.max(), row.used.max())) for row in rows), default=1.0)
        wanted = {(each.offer.name, settings) for each in seen}
        for key in session.masks.keys() - wanted:
            del session.masks[key]
        for each in seen:
            if (each.offer.name, settings) not in session.masks:
                session.masks[each.offer.name, settings] = draw_mask(session.subject, each, settings)
        return seen, [
            draw_view(session.subject, each, settings, limit, session.masks[each.offer.name, settings]) for each in seen
        ]

    def heads(self, session: Session, settings: Settings) -> list[str]:
        """Return the names of the attention heads, of two networks those of the one that has more."""
        return max(([head.name for head in each.look.heads] for each in self.see(session, settings)), key=len)

    def turn(self, session: Session, settings: Settings) -> list[go.Figure]:
        """Return the row of the position, and rows of many at two thresholds, to be turned; empty without attention."""
        return turning_charts(session.subject, self.see(session, settings), settings.make_rule())

    def view_file(self, session: Session, settings: Settings) -> bytes:
        """Return the figure of the position as PNG.

        Raises:
            OptionError: where no network has attention.
        """
        rows = attention_rows(session, self.see(session, settings), settings.make_rule())
        if not rows:
            raise OptionError(f"{settings.first} has no attention to save a view of; save its mask")
        x, y = (round(at) for at in session.point)
        told = "" if settings.make_rule() is None else f"; {RECOMPUTED}"
        title = f"{session.subject.name}: attention of position {x}, {y} px{told}"
        return encode_figure(attention_figure(rows, title=title))

    def mask_file(self, session: Session, settings: Settings) -> bytes:
        """Return the mask of the first network as PNG at the image's own size: 0/255, or a palette of classes."""
        look = self.see(session, settings)[0].look
        return encode_mask(look.labels(settings.make_rule()), look.net.label_names)
