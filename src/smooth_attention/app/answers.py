"""What the page's events are answered with. Gradio only; torch comes with the viewer, later."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import gradio as gr

from smooth_attention.core.errors import OptionError, SmoothAttentionError
from smooth_attention.core.files import write_bytes

if TYPE_CHECKING:
    from smooth_attention.app.session import Caption, Session, Settings, View
    from smooth_attention.app.viewer import Viewer
    from smooth_attention.viz.overlays import Picture

__all__ = ["NOBODY", "PICTURES", "TRAINED_SIZE", "Answers"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PICTURES = ("mask", "attention before smoothing", "attention as used", "roughness", "gate")
NOBODY = ""  # no directory is called so
TRAINED_SIZE = "as trained"


def told(answer: Callable[Arguments, Result], *, stops: bool = False) -> Callable[Arguments, Result]:
    """Return an answer whose errors are sentences on the page, which stays as it is.

    Args:
        answer: of an event.
        stops: whether what would follow the event is left out then. Gradio writes "Error" over all that such an answer
            would have drawn, so it is for those that draw nothing.
    """

    @wraps(answer)
    def telling(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        try:
            return answer(*args, **kwargs)
        except SmoothAttentionError as error:
            toast: dict[str, Any] = {"message": escape(str(error)), "duration": None, "title": "Not possible"}
            if stops:
                raise gr.Error(**toast, print_exception=False) from error
            gr.Warning(**toast)
            return gr.skip()

    return telling


class Answers:
    """What the page's events call; one for all people.

    Gradio finds the place of an event's data by annotations, which it has to be able to resolve.
    """

    def __init__(self, ask: Callable[[], Viewer], folder: Path) -> None:
        self.ask, self.folder, self.seed = ask, folder, secrets.token_bytes(16)

    def start(self, *controls: Any) -> list[Any]:
        """Show the first network with the image in the middle of its samples."""
        try:
            return self.show_network(None, read_settings(None, controls))
        except SmoothAttentionError as error:  # for the page to stay at "Loading" would be a lie
            parts = [None, escape(str(error)), None, "", *self.show_view(None), *self.show_view(None)]
            return [*parts, gr.Dropdown([], visible=False), gr.Dropdown([], visible=False)]

    @told
    def change_first(self, session: Session | None, *controls: Any) -> list[Any]:
        """Show another network, from its first head, on the same image; where there is none yet, on a sample."""
        settings = read_settings(session, controls)
        is_another = session is None or session.drawn.first != settings.first
        return self.show_network(session, replace(settings, head=0) if is_another else settings)

    def show_network(self, session: Session | None, settings: Settings) -> list[Any]:
        """Return what is drawn, and the lists that depend on the network."""
        viewer, offer = self.ask(), self.ask().open(settings.first)
        if session is None and offer.samples:
            session = viewer.choose_sample(settings.first, list(offer.samples)[len(offer.samples) // 2])
        samples = [(name if iou is None else f"{name}, IoU {iou:.3f}", name) for name, iou in offer.samples.items()]
        subject = None if session is None else session.subject
        chosen = subject.name if subject and subject.is_test_of(offer) and subject.name in offer.samples else None
        return [
            *self.draw(session, settings),
            gr.Dropdown(samples, value=chosen, visible=bool(samples)),
            self.list_heads(session, settings),
        ]

    def list_heads(self, session: Session | None, settings: Settings) -> gr.Dropdown:
        heads = [] if session is None else self.ask().heads(session, settings)
        head = min(settings.head, len(heads) - 1) if heads else None
        return gr.Dropdown([(name, place) for place, name in enumerate(heads)], value=head, visible=len(heads) > 1)

    @told
    def change_second(self, session: Session | None, *controls: Any) -> list[Any]:
        """Show another network beside the first."""
        known, settings = self.known(session), read_settings(session, controls)
        return [*self.draw(known, settings), self.list_heads(known, settings)]

    @told
    def change_head(self, head: int, session: Session | None, *controls: Any) -> list[Any]:
        known, settings = self.known(session), read_settings(session, controls)
        return self.draw(known, replace(settings, head=head))

    @told
    def choose_sample(self, name: str | None, session: Session | None, *controls: Any) -> list[Any]:
        if name is None:  # lists send what they hold when they are left, too
            return gr.skip()
        settings = read_settings(session, controls)
        chosen = self.ask().choose_sample(settings.first, name)
        if session and (session.subject.name, session.subject.data) == (name, chosen.subject.data):
            chosen = session
        return [*self.draw(chosen, settings), self.list_heads(chosen, settings)]

    @told
    def choose_upload(self, path: str, session: Session | None, *controls: Any) -> list[Any]:
        return self.show_network(self.ask().choose_upload(Path(path)), read_settings(session, controls))

    @told
    def redraw(self, session: Session | None, *controls: Any) -> list[Any]:
        return self.draw(self.known(session), read_settings(session, controls))

    def known(self, session: Session | None) -> Session:
        """Return the session where there is one: a page that was idle for an hour has lost it."""
        if session is None:
            raise OptionError("there is no image, or this page was idle for too long; choose a sample or upload one")
        return session

    @told
    def click_main(self, event: gr.SelectData, session: Any, *controls: Any) -> list[Any]:
        from smooth_attention.app.session import SHOWN_PX

        clicked = self.ask().click(self.known(session), event.index[0], event.index[1], SHOWN_PX)
        return self.draw(clicked, read_settings(session, controls))

    @told
    def click_picture(self, event: gr.SelectData, session: Any, *controls: Any) -> list[Any]:
        from smooth_attention.app.drawing import PANEL_PX

        clicked = self.ask().click(self.known(session), event.index[0], event.index[1], PANEL_PX)
        return self.draw(clicked, read_settings(session, controls))

    def picture_file(self, pixels: Picture | None) -> str | None:
        """Return the file of a picture.

        Of an array Gradio would write a file in place, where a browser may be fetching the same picture.
        """
        from smooth_attention.runs.pictures import encode_jpeg

        return None if pixels is None else self.keep("picture.jpeg", encode_jpeg(pixels))

    def keep(self, name: str, content: bytes) -> str:
        """Return a file of that name and content, in a place that nobody guesses from the content."""
        path = self.folder / sha256(self.seed + content).hexdigest() / name
        try:
            os.utime(path)  # Gradio removes what has not been touched for a day
        except FileNotFoundError:
            write_bytes(path, content, durable=False)
        return str(path)

    def draw(self, session: Session | None, settings: Settings) -> list[Any]:
        """Return a value for each part of :meth:`Parts.drawn`."""
        viewer = self.ask()
        notes = "".join(
            f"<p><b>{escape(name)}</b>: {escape(' '.join(viewer.open(name).notes))}</p>" for name in settings.networks()
        )
        if session is None:
            return [None, notes, None, "", *self.show_view(None), *self.show_view(None)]
        seen, views = viewer.draw(session, settings)
        read = [(each.offer.name, view.readout) for each, view in zip(seen, views, strict=True) if view.readout]
        readout = "".join(f"<p><b>{escape(name)}</b>: {escape(sentences)}</p>" for name, sentences in read)
        title = f"<p><b>image {escape(session.subject.name)}</b></p>"
        shown = [self.show_view(view) for view in [*views, None][:2]]
        main = self.picture_file(viewer.main_picture(session, seen))
        return [replace(session, settings=settings), notes, main, title + readout, *shown[0], *shown[1]]

    def show_view(self, view: View | None) -> list[Any]:
        """Return frame, heading, pictures and captions of a network; None hides them."""
        if view is None:
            return [gr.Column(visible=False), "", *[None] * len(PICTURES), *[""] * len(PICTURES)]
        pictures = [self.picture_file(picture) for picture in view.pictures]
        captions = [show_caption(name, caption) for name, caption in zip(PICTURES, view.captions, strict=True)]
        return [gr.Column(visible=True), escape(view.heading), *pictures, *captions]

    @told
    def turn(self, is_turning: bool, session: Session | None) -> list[Any]:
        """Draw in three dimensions where that tab is open."""
        if not is_turning or session is None:
            return [gr.skip(), gr.skip()]
        return self.ask().turn(session, session.drawn) or [None, None]

    @partial(told, stops=True)
    def save_view(self, session: Session | None) -> str:
        known = self.known(session)
        return self.keep("view.png", self.ask().view_file(known, known.drawn))

    @partial(told, stops=True)
    def save_mask(self, session: Session | None) -> str:
        known = self.known(session)
        return self.keep("mask.png", self.ask().mask_file(known, known.drawn))


def read_settings(session: Session | None, controls: Sequence[Any]) -> Settings:
    """Return what the controls say, in the order of ``Parts.controls``, and the head of the session."""
    from smooth_attention.app.session import Settings

    first, second, size, rule, value, opacity, shows = controls
    return Settings(
        first,
        None if second == NOBODY else second,
        0 if session is None else session.drawn.head,
        None if size == TRAINED_SIZE else int(size.removesuffix(" px")),
        rule,
        value,
        opacity,
        shows,
    )


def show_caption(name: str, caption: Caption) -> str:
    """Return a caption as HTML: the name, the colours with what they stand for, a sentence."""
    bar = ""
    if caption.colours:
        low, high = caption.ends
        bar = (
            f'<span class="scale">{escape(low)}<i style="background: linear-gradient(to right, '
            f'{", ".join(caption.colours)})"></i>{escape(high)}</span>'
        )
    patches = (f'<span><i style="background: {colour}"></i>{escape(what)}</span>' for what, colour in caption.key)
    key = f'<div class="key">{"".join(patches)}</div>' if caption.key else ""
    return f"<b>{escape(name)}</b>{bar}{key}{escape(caption.text)}"
