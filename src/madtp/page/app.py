"""The page itself, in gradio: a panel a model, in which two budgets stand side by side."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from madtp.errors import InputError
from madtp.page import fragments
from madtp.page.explore import MOST, Answer, Explorer

TITLE = "madtp: what pruning keeps"
ABOUT = (
    "Choose a picture and a text, then move the budget: the share of the model's GFLOPs to save. Both sides answer the "
    "same; every number is measured here, on this machine."
)
TASKS = {
    "vqa": ("Questions", "Question", "what color is the circle?"),
    "reasoning": ("Statements", "Statement about the pictures", "there are two red circles."),
    "caption": ("Captions", "", ""),
    "retrieval": ("Picture and text", "Caption to match", "a red circle above a blue square."),
}
SIDES = (("A", 0.0), ("B", 0.5))  # and the budgets that they begin with
# The last move counts; what came before it while the model ran is dropped.
LAST: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}


def build(explorers: Sequence[Explorer], samples: Sequence[Sequence[Sequence[str]]]) -> gr.Blocks:
    """The page.

    Args:
        explorers: models, measured.
        samples: of each model, its examples as `write_samples` gives them.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(f"<div class='madtp-head'><h1>{TITLE}</h1><p>{ABOUT}</p></div>")
        shown = list(zip(explorers, samples, strict=True))
        if len(shown) == 1:
            _panel(page, *shown[0])
        else:
            for explorer, rows in shown:
                with gr.Tab(f"{TASKS[explorer.task.name][0]}: {Path(explorer.name).name}"):
                    _panel(page, explorer, rows)
    return page


def _panel(page: gr.Blocks, explorer: Explorer, rows: Sequence[Sequence[str]]) -> None:
    """Input on the left, two answers on the right; on a phone one below the other."""
    _, label, hint = TASKS[explorer.task.name]
    first = list(rows[0])
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            names = ("Picture",) if explorer.pictures == 1 else ("Left picture", "Right picture")
            images = [_picture(name, first[i]) for i, name in enumerate(names)]
            text = gr.Textbox(
                first[-1] if label else "", label=label, placeholder=hint, visible=bool(label), max_lines=3
            )
            go = gr.Button("Caption" if not label else "Answer", variant="primary")
            problem = gr.HTML("", padding=False)
            inputs = [*images, text] if label else images
            examples = gr.Examples(
                [list(row) for row in rows], inputs, label="Examples: click one", examples_per_page=6
            )
        with gr.Column(scale=5, min_width=260):
            block = gr.Slider(
                1, explorer.blocks, value=explorer.blocks, step=1, label="Block", info="What is left after this block."
            )
            with gr.Row(equal_height=False):
                sides = [_side(name, budget) for name, budget in SIDES]
            gr.HTML(
                f"<div class='kept'><figcaption>{escape(fragments.LEGEND)} {escape(_about(explorer))}</figcaption></div>"
            )
    for budget, said, kept, state in sides:
        answer = _answering(explorer, len(images))
        asked = {"fn": answer, "inputs": [*images, text, budget, block], "outputs": [problem, said, kept, state]}
        for event in (budget.change, text.submit, go.click, examples.load_input_event.then, page.load):
            event(**asked, **LAST)
        for image in images:
            image.upload(**asked, **LAST)
        block.change(_redraw, [state, block], kept, **LAST)


def _picture(label: str, value: str) -> gr.Image:
    image = gr.Image(value, label=label, type="filepath", sources=["upload", "clipboard"], height=240, buttons=[])
    # gradio would open the file itself, and say "Error" where it is no picture; we have words for that.
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def _side(name: str, value: float) -> tuple[gr.Slider, gr.HTML, gr.HTML, gr.State]:
    with gr.Column(min_width=240):
        budget = gr.Slider(
            0, MOST, value=value, step=0.01, label=f"Budget {name}", info="Share of the GFLOPs to save; 0 = dense."
        )
        return (
            budget,
            gr.HTML(label=f"Answer {name}", elem_id=f"answer-{name}"),
            gr.HTML(label=f"Kept {name}"),
            gr.State(),
        )


def _about(explorer: Explorer) -> str:
    curve = explorer.curve
    assert curve is not None
    return (
        f"Model: {explorer.name}. Temperatures are read off a curve of {len(curve.points)} points, measured on "
        f"{explorer.data.n_texts or len(explorer.data)} {explorer.task.text_name} of {explorer.data.name} when the page began."
    )


def _answering(explorer: Explorer, pictures: int) -> Callable[..., tuple[Any, ...]]:
    """A function from the input to one side's output."""

    def answer(*values: Any) -> tuple[Any, ...]:
        *files, text, budget, block = values
        assert explorer.curve is not None
        try:
            found = explorer.answer([file for file in files[:pictures] if file], text, float(budget))
        except InputError as error:
            return fragments.problem(_without_folder(str(error), files)), "", "", None
        return "", fragments.numbers(found, explorer.curve), fragments.pictures(found, int(block)), found

    return answer


def _without_folder(said: str, files: Sequence[str | None]) -> str:
    """A message that names the reader's file, not the place where the server keeps its copy."""
    for file in files:
        if file:
            said = said.replace(file, Path(file).name)
    return said


def _redraw(found: Answer | None, block: float) -> str:
    return fragments.pictures(found, int(block)) if found is not None else ""
