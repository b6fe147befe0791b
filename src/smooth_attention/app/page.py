"""The page: its parts and what each of them asks for. Gradio only; torch comes with the viewer, later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from smooth_attention.app.answers import NOBODY, PICTURES, TRAINED_SIZE, Answers

if TYPE_CHECKING:
    from smooth_attention.app.viewer import Viewer

__all__ = ["CSS", "build_page"]

TITLE = "Smooth attention: click into an image"
SIZES_PX = (128, 224, 320, 448, 512, 768, 1024)
RULE_NAMES = ("as trained", "threshold", "fraction", "no smoothing", "every position")  # those of the session
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
        controls: in the order of :func:`smooth_attention.app.answers.read_settings`; their choices never change.
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
