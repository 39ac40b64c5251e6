"""The page itself: Gradio's components, joined to what they do."""

from __future__ import annotations

from typing import Any

import gradio as gr

from deixis.serving.playground.actions import NO_MODEL, Playground, coco_text, said_text

CSS = """
.gradio-container {max-width: 1100px !important}
h1 {margin: 0.3rem 0}
.said:empty {display: none}
.shown {overflow-x: auto}
.shown table {border-collapse: collapse; width: 100%}
.shown th, .shown td {text-align: left; padding: 0.3rem 0.6rem; overflow-wrap: anywhere}
.shown tr {border-bottom: 1px solid var(--border-color-primary)}
"""
KEPT_S = 3600
"""Seconds that a visitor's files and answers are kept."""
_DOWNLOAD = """(text) => {
    if (!text) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    link.download = "coco.json";
    link.click();
}"""
_ASKS: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
_AT_ONCE: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}


def make_page(playground: Playground) -> gr.Blocks:
    """The page with its components joined to the functions."""
    with gr.Blocks(title="deixis", analytics_enabled=False, delete_cache=(KEPT_S, KEPT_S)) as page:
        gr.Markdown("# deixis")
        seen = gr.State(None, time_to_live=KEPT_S)
        file, typed, first, second = _asked(playground.names)
        with gr.Row():
            find = gr.Button("Find", variant="primary", min_width=120, elem_id="find")
            describe = gr.Button("Describe what is shown", min_width=120, elem_id="describe")
        own = playground.threshold(playground.names[0])
        threshold = gr.Slider(0, 1, own, step=0.01, label="Threshold", buttons=[], elem_id="threshold")
        frame = gr.Slider(1, 2, 1, step=1, label="Frame", visible=False, buttons=[], elem_id="frame")
        said = gr.HTML(said_text(""), elem_id="said")
        with gr.Row():
            _, picture, _ = _panel(0, seen, threshold)
            column, other, _ = _panel(1, seen, threshold)
        table = gr.HTML("", label="What is shown", elem_id="table")
        shown = [picture, other, column, table, _code("python", "Python"), _code("shell", "Command")]
        file.change(playground.read, [file], [seen, said, frame, *shown], **_ASKS)
        find.click(playground.find, [seen, typed, first, second, frame, threshold], [seen, said, *shown], **_ASKS)
        describe.click(playground.describe, [seen, frame, threshold], [seen, said, *shown], **_ASKS)
        picture.select(playground.click, [seen, frame, threshold], [seen, said, *shown], **_ASKS)
        for slider in (threshold, frame):
            slider.change(playground.view, [seen, frame, threshold], shown, **_AT_ONCE)
        first.change(playground.threshold, [first], [threshold], **_AT_ONCE)
    return page


def _asked(names: list[str]) -> tuple[gr.File, gr.Textbox, gr.Dropdown, gr.Dropdown]:
    """The file, what to look for in it, and two models."""
    with gr.Row():
        with gr.Column(min_width=280):
            file = gr.File(label="A picture or a film", file_types=["image", "video"], height=130, elem_id="file")
        with gr.Column(min_width=280):
            label = "Names, with commas between them; or phrases, one per line"
            typed = gr.Textbox(label=label, lines=2, elem_id="typed")
            with gr.Row():
                first = gr.Dropdown(names, value=names[0], label="Model", min_width=120, elem_id="first")
                others = [NO_MODEL, *names]
                second = gr.Dropdown(others, value=NO_MODEL, label="Beside it", min_width=120, elem_id="second")
    return file, typed, first, second


def _panel(number: int, seen: gr.State, threshold: gr.Slider) -> tuple[gr.Column, gr.Image, gr.Button]:
    """A picture and the button that downloads what is in it; the second appears when two models are compared."""
    with gr.Column(min_width=300, visible=number == 0) as column:
        picture = gr.Image(
            label="What is found",
            interactive=False,
            format="jpeg",
            buttons=["download", "fullscreen"],
            elem_id=f"picture{number}",
        )
        button = gr.Button("Download COCO", size="sm", elem_id=f"coco{number}")
        hidden, position = gr.Textbox(visible=False), gr.State(number)
        text = button.click(coco_text, [seen, position, threshold], [hidden], **_ASKS)
        text.then(None, [hidden], None, js=_DOWNLOAD)
    return column, picture, button


def _code(language: Any, label: str) -> gr.Code:
    return gr.Code(
        "",
        language,
        label=label,
        lines=2,
        max_lines=20,
        interactive=False,
        show_line_numbers=False,
        wrap_lines=True,
        elem_id=label.lower(),
    )
