"""The page itself, in gradio: a panel a model, in which two budgets stand side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from madtp.errors import InputError
from madtp.page import fragments
from madtp.page.explore import MOST, Explorer

TITLE = "madtp: what pruning keeps"
ABOUT = (
    "Choose a picture and a text, then move the budgets: the share of the model's GFLOPs to save. Every number is "
    "measured here, on this machine, and nothing leaves it."
)
# Task -> name of the tab, of the text, a hint, and the button.
TASKS = {
    "vqa": ("Questions", "Question", "what color is the circle?", "Answer"),
    "reasoning": ("Statements", "Statement about both pictures", "there are two red circles.", "Judge"),
    "caption": ("Captions", "", "", "Caption"),
    "retrieval": ("Picture and text", "Caption to match", "a red circle above a blue square.", "Match"),
}
SIDES = (("A", 0.0), ("B", 0.5))  # and the budgets that they begin with
# The last move counts; what came before it while the model ran is dropped. Not by gradio's queue: an answer that is
# asked for while the queue closes its stream never comes.
LAST: dict[str, Any] = {
    "trigger_mode": "always_last",
    "show_progress": "minimal",
    "api_visibility": "private",
    "queue": False,
}


def build(
    explorers: Sequence[Explorer], samples: Sequence[Sequence[Sequence[str]]], turns: ThreadPoolExecutor
) -> gr.Blocks:
    """The page.

    Args:
        explorers: models, measured.
        samples: of each model, its examples as `write_samples` gives them.
        turns: of one thread, which answers: two at a time would be in each other's milliseconds.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(f"<div class='madtp-head'><h1>{TITLE}</h1><p>{ABOUT}</p></div>")
        shown = list(zip(explorers, samples, strict=True))
        if len(shown) == 1:
            _panel(page, turns, *shown[0])
        else:
            for explorer, rows in shown:
                with gr.Tab(f"{TASKS[explorer.task.name][0]}: {Path(explorer.name).name}"):
                    _panel(page, turns, explorer, rows)
    return page


def _panel(page: gr.Blocks, turns: ThreadPoolExecutor, explorer: Explorer, rows: Sequence[Sequence[str]]) -> None:
    """Input on the left, two answers on the right; on a phone one below the other, the examples last."""
    _, label, hint, verb = TASKS[explorer.task.name]
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260, elem_classes="asked"):
            names = ("Picture",) if explorer.pictures == 1 else ("Left picture", "Right picture")
            images = [_picture(name, rows[0][i]) for i, name in enumerate(names)]
            start = rows[0][-1] if label else ""
            text = gr.Textbox(start, label=label, placeholder=hint, visible=bool(label), max_lines=3)
            go = gr.Button(verb, variant="primary")
            problem = gr.HTML("", padding=False)
            with gr.Column(elem_classes="samples"):
                gr.HTML("<h2>Examples</h2>", padding=False)
                examples = [
                    gr.Button(row[-1] if label else f"Picture {i}", icon=row[0], size="sm", elem_classes="sample")
                    for i, row in enumerate(rows, 1)
                ]
        with gr.Column(scale=5, min_width=260, elem_classes="shown"):
            block = gr.Slider(
                1, explorer.blocks, value=explorer.blocks, step=1, label="Block", info="What is left after this block."
            )
            with gr.Row(equal_height=False):
                sides = [_side(name, budget) for name, budget in SIDES]
            legend = f"{escape(fragments.LEGEND)} {escape(_about(explorer))}"
            gr.HTML(f"<p class='legend'>{legend}</p>")
    answer = _answering(explorer, len(images), turns)

    def ask(event: Callable[..., Any], work: Callable[..., Any], *given: Any, of: Sequence[_Side] = sides) -> None:
        """Have an event answered by `work(*given, budget, block)`, one side behind the other.

        One function an event: were there two and both at work when it comes again, the end of either would have gradio
        call both anew, for ever.
        """
        for side in of:
            shown = {"outputs": [problem, side.said, side.kept, side.state], "show_progress_on": side.said}
            event = event(work, [*given, side.budget, block], **shown, **LAST).then

    for event in (text.submit, go.click, page.load, *(image.upload for image in images)):
        ask(event, answer, *images, text)
    for button, row in zip(examples, rows, strict=True):
        ask(button.click(partial(list, row), None, [*images, text], **LAST).then, partial(answer, *row))
    for side in sides:
        ask(side.budget.change, answer, *images, text, of=[side])
    block.change(_redraw, [*(side.state for side in sides), block], [side.kept for side in sides], **LAST)


def _picture(label: str, value: str) -> gr.Image:
    image = gr.Image(value, label=label, type="filepath", sources=["upload", "clipboard"], height=240, buttons=[])
    # gradio would open the file itself, and say "Error" where it is no picture; we have words for that.
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


class _Side(NamedTuple):
    """One of the two budgets: its slider, what is said of its answer, the pictures of what is kept, and the answer."""

    budget: gr.Slider
    said: gr.HTML
    kept: gr.HTML
    state: gr.State


def _side(name: str, value: float) -> _Side:
    with gr.Column(min_width=240, elem_classes=f"side-{name.lower()}"):
        budget = gr.Slider(
            0, MOST, value=value, step=0.01, label=f"Budget {name}", info="Share of the GFLOPs to save; 0 = dense."
        )
        return _Side(budget, gr.HTML(), gr.HTML(), gr.State())


def _about(explorer: Explorer) -> str:
    curve, data = explorer.curve, explorer.data
    assert curve is not None
    return (
        f"Model: {explorer.name}. Temperatures are read off a curve of {len(curve.points)} points, measured on "
        f"{data.n_texts} {explorer.task.text_name} of {data.name} ({data.split}) when the page began."
    )


def _answering(explorer: Explorer, pictures: int, turns: ThreadPoolExecutor) -> Callable[..., tuple[Any, ...]]:
    """A function from the input to one side's output; `turns` answers one at a time."""

    def answer(*values: Any) -> tuple[Any, ...]:
        *files, text, budget, block = values
        assert explorer.curve is not None
        try:
            given = [file for file in files[:pictures] if file]
            found = turns.submit(explorer.answer, given, text, float(budget)).result()
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


def _redraw(*values: Any) -> tuple[str, ...]:
    """What each side's answer has left after a block."""
    *answers, block = values
    return tuple(fragments.pictures(found, int(block)) if found is not None else "" for found in answers)
