"""The page: its parts and what each of them asks for. Gradio only; torch comes with the viewer, later."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import gradio as gr

from smooth_attention.core.errors import OptionError, SmoothAttentionError

if TYPE_CHECKING:
    from smooth_attention.app.session import Caption, Session, Settings, View
    from smooth_attention.app.viewer import Viewer
    from smooth_attention.viz.overlays import Picture

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

TITLE = "Smooth attention: click into an image"
PICTURES = ("mask", "attention before smoothing", "attention as used", "roughness", "gate")
NOBODY = ""  # no directory is called so
SIZES_PX = (128, 224, 320, 448, 512, 768, 1024)
TRAINED_SIZE = "as trained"
RULE_NAMES = ("as trained", "threshold", "fraction", "no smoothing", "every position")  # those of the session
TOAST: dict[str, Any] = {"duration": None, "title": "Not possible"}
# one network at a time works for all people: two would only slow each other down, and networks are shared
AT_A_TIME: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1, "api_visibility": "private"}
CSS = """
.pictures { display: grid !important; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
@media (min-width: 1100px) { .pictures { grid-template-columns: repeat(5, 1fr); } }
@media (max-width: 700px) { .controls { order: 2; } }
.caption { font-size: 12.5px; line-height: 1.4; }
.caption b { display: block; }
.scale { display: flex; gap: 5px; align-items: center; }
.scale i { flex: 1; height: 8px; border-radius: 2px; }
.key span { display: inline-block; margin-right: 8px; }
.key i { display: inline-block; width: 9px; height: 9px; margin-right: 4px; border: 1px solid #6b7280; }
.heading { font-weight: 600; }
.click-here img { cursor: crosshair; }
footer { display: none !important; }
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the page that events read and write.

    Attributes:
        session: what this person looks at.
        controls: in the order of :func:`read_settings`; their choices never change.
        head: list of attention heads. What is chosen is kept in the session: Gradio refuses all that an event sends
            where one control has a value that has just gone from its list.
        sample: list of sample images.
        notes: sentences on the networks.
        main: the image to click into.
        readout: sentences on the position.
        views: for each of two networks its frame, heading, pictures and captions.
        plots: in three dimensions.
        is_turning: whether the tab of three dimensions is open.
    """

    session: gr.State
    controls: list[Any]
    head: gr.Dropdown
    sample: gr.Dropdown
    notes: gr.HTML
    main: gr.Image
    readout: gr.HTML
    views: list[tuple[gr.Column, gr.HTML, list[gr.Image], list[gr.HTML]]]
    plots: list[gr.Plot]
    is_turning: gr.State

    def drawn(self) -> list[Any]:
        """Return what every change draws anew."""
        parts: list[Any] = [self.session, self.notes, self.main, self.readout]
        for frame, heading, pictures, captions in self.views:
            parts += [frame, heading, *pictures, *captions]
        return parts


def build_page(names: Sequence[str], ask: Callable[[], Viewer], folder: Path) -> gr.Blocks:
    """Return the page.

    Args:
        names: of the networks, in order.
        ask: waits for the viewer, which is made while the first page is served.
        folder: where pictures and files to save are put; that of Gradio, which copies from any other.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        parts, save_view, save_mask, upload, tabs = lay_out(names)
        answers = Answers(ask, folder)
        drawn, lists = parts.drawn(), [parts.sample, parts.head]
        first, second, *others = parts.controls
        turn = {"fn": answers.turn, "inputs": [parts.is_turning, parts.session], "outputs": parts.plots}

        def react(event: Callable[..., Any], answer: Callable[..., Any], *inputs: Any, **more: Any) -> None:
            sent, outputs = [*inputs, *parts.controls], [*drawn, *more.pop("lists", ())]
            asked = event(answer, sent, outputs, show_progress="minimal", **AT_A_TIME, **more)
            asked.success(**turn, show_progress="hidden", **AT_A_TIME)

        # a control that changes while it is answered is read once more; clicks are answered one by one
        session, latest, each = parts.session, {"trigger_mode": "always_last"}, {"trigger_mode": "multiple"}
        react(page.load, answers.start, lists=lists)
        react(first.input, answers.change_first, session, lists=lists, **latest)
        react(parts.sample.input, answers.choose_sample, parts.sample, session, lists=[parts.head], **latest)
        react(upload.upload, answers.choose_upload, upload, session, lists=lists, **latest)
        react(second.input, answers.change_second, session, lists=[parts.head], **latest)
        react(parts.head.input, answers.change_head, parts.head, session, **latest)
        for control in others:
            react(control.input, answers.redraw, session, **latest)
        react(parts.main.select, answers.click_main, session, **each)
        for _, _, pictures, _ in parts.views:
            for picture in pictures:
                react(picture.select, answers.click_picture, session, **each)
        for tab, is_turning in tabs:
            tab.select(lambda is_turning=is_turning: is_turning, None, parts.is_turning, **AT_A_TIME).success(
                **turn, show_progress="minimal", **AT_A_TIME
            )
        for (button, file), answer in ((save_view, answers.save_view), (save_mask, answers.save_mask)):
            # the browser fetches a file only by a click on its own button
            button.click(answer, session, file, show_progress="minimal", **AT_A_TIME).success(
                None, None, None, js=f"() => document.querySelector('#{file.elem_id}').click()"
            )
    return page


def lay_out(names: Sequence[str]) -> tuple[Parts, Any, Any, gr.File, list[tuple[gr.Tab, bool]]]:
    """Return the parts, the two pairs of buttons that save, the upload and the tabs."""
    session, is_turning = gr.State(None, time_to_live=3600), gr.State(False)
    gr.Markdown(f"## {TITLE}")
    notes = gr.HTML("Loading the network ...", elem_id="notes", padding=False)
    with gr.Row():
        with gr.Column(scale=1, min_width=280, elem_classes="controls"):
            first = gr.Dropdown(list(names), value=names[0], label="network", elem_id="first")
            second = gr.Dropdown(
                [("nothing", NOBODY), *zip(names, names, strict=True)], value=NOBODY, label="compared with",
                elem_id="second", visible=len(names) > 1,
            )  # fmt: skip
            sample = gr.Dropdown([], label="sample image", elem_id="sample")
            upload = gr.File(label="or an image of your own", height=150, elem_id="upload")
            rule = gr.Radio(
                RULE_NAMES,
                value=RULE_NAMES[0],
                label="which positions are smoothed",
                info="All but 'as trained' are recomputed with the same weights, not retrained.",
                elem_id="rule",
            )
            value = gr.Slider(0.01, 0.99, 0.1, step=0.01, label="threshold or fraction", elem_id="value")
            opacity = gr.Slider(0.0, 1.0, 0.7, step=0.05, label="opacity", elem_id="opacity")
            shows = gr.Radio(["mask", "errors"], value="mask", label="mask shows", elem_id="shows")
            size = gr.Dropdown(
                [TRAINED_SIZE, *(f"{side} px" for side in SIZES_PX)], value=TRAINED_SIZE, label="networks see",
                info="The image is resized to a square of this side.", elem_id="size",
            )  # fmt: skip
            head = gr.Dropdown([], label="attention head", visible=False, elem_id="head")
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                with gr.Column(min_width=300):
                    main = picture_part("image: click a position", "main")
                with gr.Column(min_width=300):
                    readout = gr.HTML(elem_id="readout", padding=False)
                    save_view = save_pair("Save view (PNG)", "view")
                    save_mask = save_pair("Save mask (PNG)", "mask")
            with gr.Tabs():
                with gr.Tab("pictures") as flat:
                    views = [lay_out_view(number) for number in range(2)]
                with gr.Tab("3-D") as turning:
                    gr.Markdown("Drag to turn. Attention of the position before smoothing and as used; below it, "
                                "of up to 64 evenly spaced positions at the thresholds 0.1 and 0.9.")  # fmt: skip
                    plots = [gr.Plot(show_label=False, elem_id=name) for name in ("surface", "scatter")]
    controls = [first, second, size, rule, value, opacity, shows]
    parts = Parts(session, controls, head, sample, notes, main, readout, views, plots, is_turning)
    return parts, save_view, save_mask, upload, [(flat, False), (turning, True)]


def lay_out_view(number: int) -> tuple[gr.Column, gr.HTML, list[gr.Image], list[gr.HTML]]:
    pictures, captions = [], []
    with gr.Column(visible=number == 0) as frame:
        heading = gr.HTML(elem_id=f"heading-{number}", elem_classes="heading", padding=False)
        with gr.Row(elem_classes="pictures"):
            for place, name in enumerate(PICTURES):
                with gr.Column(min_width=0):
                    pictures.append(picture_part(name, f"picture-{number}-{place}"))
                    captions.append(gr.HTML(elem_id=f"caption-{number}-{place}", elem_classes="caption", padding=False))
    return frame, heading, pictures, captions


def picture_part(name: str, elem_id: str) -> gr.Image:
    return gr.Image(
        label=name, show_label=False, alt_text=name, interactive=False, buttons=["fullscreen"],
        elem_id=elem_id, elem_classes="click-here",
    )  # fmt: skip


def save_pair(label: str, name: str) -> tuple[gr.Button, gr.DownloadButton]:
    """Return a button that makes a file and the hidden one that the browser fetches it by."""
    return gr.Button(label, size="md", elem_id=f"save-{name}"), gr.DownloadButton(
        visible="hidden", elem_id=f"file-{name}"
    )


def told(answer: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return an answer whose errors are sentences on the page, which stays as it is."""

    @wraps(answer)
    def telling(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
        try:
            return answer(*args, **kwargs)
        except SmoothAttentionError as error:
            # not gr.Error: that would write "Error" over everything that the answer would have drawn
            gr.Warning(escape(str(error)), **TOAST)
            return gr.skip()

    return telling


def told_and_stopped(answer: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return an answer whose errors are sentences on the page; what would follow it does not."""

    @wraps(answer)
    def telling(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return answer(*args, **kwargs)
        except SmoothAttentionError as error:
            raise gr.Error(escape(str(error)), **TOAST, print_exception=False) from error

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
            path.parent.mkdir(exist_ok=True)
            part = path.with_name(secrets.token_hex(8))
            part.write_bytes(content)
            part.replace(path)
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

    @told_and_stopped
    def save_view(self, session: Session | None) -> str:
        known = self.known(session)
        return self.keep("view.png", self.ask().view_file(known, known.drawn))

    @told_and_stopped
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
