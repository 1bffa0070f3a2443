"""The overview of one example: its pictures and words, what survives block after block, and both answers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from madtp.report.seen import RIGHT, Step, Tower, View
from madtp.report.sheet import KEPT, LINE, MERGED, SOFT, TEXT, Draw, Drawing, Sheet, bare
from madtp.report.sheet import RIGHT as GREEN
from madtp.report.sheet import WRONG as RED
from madtp.report.table import amount
from madtp.report.view import patch_overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHOLE, FRAME, GAP, LINE_HEIGHT = 2.0, 1.45, 0.12, 0.24  # inches
MOST_ABREAST = 6
HATCHED: dict[str, Any] = {"facecolor": LINE, "edgecolor": MERGED, "linewidth": 0, "hatch": "////", "alpha": 0.45}
LEGEND = (
    "Clear patches inside the orange line are kept as themselves. Hatched ones were merged; "
    "the darker, the less weight they carry in the merged token, at most the share under the picture."
)
WORDS_LEGEND = "Framed words are kept as themselves. Hatched ones were merged, with the weight they carry."


def abreast(blocks: int) -> int:
    """Frames a row, so that rows are alike and none has more than `MOST_ABREAST`."""
    rows = -(-blocks // MOST_ABREAST)
    return -(-blocks // max(rows, 1))


def answers(view: View) -> list[tuple[str, str, str, str]]:
    """`(name, answer, cost, mark)`, dense and pruned, in words."""
    costs = (
        f"{amount(view.gflops_dense)} GFLOPs",
        f"{amount(view.gflops)} GFLOPs, {100 * view.reduction:.0f}% fewer",
    )
    marks = ["", ""]
    if view.marks is not None and view.mark_name:
        marks = [f"{view.mark_name} {100 * mark:.1f}" for mark in view.marks]
    elif view.marks is not None:
        marks = ["right" if mark >= RIGHT else "wrong" for mark in view.marks]
    said = [answer or "(nothing)" for answer in (view.dense, view.pruned)]
    return [
        (name, answer, cost, mark)
        for name, answer, cost, mark in zip(("dense", "pruned"), said, costs, marks, strict=True)
    ]


def draw_kept(view: View) -> Drawing:
    """What survives, as one picture."""
    most = max(abreast(len(tower.steps)) for tower in view.pictures)
    sheet = Sheet(WHOLE + 0.3 + most * (FRAME + GAP))
    y = 0.0
    for line in textwrap.wrap(f"“{view.text}”" if view.text else "", int(sheet.width / 0.107)):
        sheet.text(0, y, line, size=12, weight="bold")
        y += 0.26
    y += 0.06
    for name, answer, cost, mark in answers(view):
        sheet.text(0, y, f"{name}:", color=SOFT)
        colour = {"right": GREEN, "wrong": RED}.get(mark, TEXT)
        sheet.text(0.65, y, f"{answer}   ({cost})   {mark}", color=colour)
        y += LINE_HEIGHT
    if view.truth:
        sheet.text(0, y, "true:", color=SOFT)
        sheet.text(0.65, y, view.truth)
        y += LINE_HEIGHT
    y += 0.1
    for tower in view.pictures:
        y = _picture(sheet, tower, y)
    y = sheet.note(0, y, LEGEND) + 0.13
    for tower in view.texts:
        y = _words(sheet, tower, y)
    if view.texts:
        sheet.note(0, y, WORDS_LEGEND)
    return sheet.finish("kept", kept_in_words(view))


def kept_in_words(view: View) -> str:
    """What the overview shows, for who cannot see it."""
    said = [f"{tower.name}: {', '.join(step.weights() for step in tower.steps)}" for tower in view.towers]
    return f"Kept as themselves after each block. {'; '.join(said)}. Dense: {view.dense}. Pruned: {view.pruned}."


def heaviest(step: Step) -> str:
    """The largest weight of a merged original."""
    merged = step.share[~step.kept]
    return f"merged ≤ {100 * merged.max():.1f}%" if len(merged) else "none merged"


def show(image: Image.Image, sheet: Sheet, x: float, y: float, side: float) -> float:
    """Put a picture on the sheet, its longer side `side`; returns its height."""
    width, height = (side * of / max(image.size) for of in image.size)

    def draw(axes: Axes) -> None:
        axes.imshow(np.asarray(image), aspect="auto", interpolation="antialiased")
        bare(axes)

    sheet.box(x, y, width, height, draw)
    return height


def _picture(sheet: Sheet, tower: Tower, y: float) -> float:
    assert tower.image is not None
    sheet.text(0, y, tower.name, size=9, weight="bold")
    y += 0.22
    height = show(tower.image.convert("RGB"), sheet, 0, y, WHOLE)
    sheet.text(0, y + height + 0.04, f"{len(tower.steps[0].kept)} patches", size=7.5, color=SOFT)
    columns = abreast(len(tower.steps))
    side = FRAME * tower.image.height / max(tower.image.size)
    bottom = y + height + 0.2
    for number, step in enumerate(tower.steps):
        row, column = divmod(number, columns)
        x, top = WHOLE + 0.3 + column * (FRAME + GAP), y + row * (side + 0.5)
        show(patch_overlay(tower.image, step.share, size=320), sheet, x, top, FRAME)
        sheet.text(x, top + side + 0.03, f"block {number + 1}: {step.weights()} kept", size=7.5)
        sheet.text(x, top + side + 0.17, heaviest(step), size=7, color=SOFT)
        bottom = max(bottom, top + side + 0.4)
    return bottom + 0.12


def wrapped(words: Sequence[str], room: float) -> Iterator[list[tuple[int, float, float]]]:
    """Words as lines of `(number, left, width)` in inches, none longer than `room`."""
    line: list[tuple[int, float, float]] = []
    x = 0.0
    for number, word in enumerate(words):
        width = 0.2 + 0.085 * max(len(word), 4)
        if line and x + width > room:
            yield line
            line, x = [], 0.0
        line.append((number, x, width))
        x += width
    yield line


def _words(sheet: Sheet, tower: Tower, y: float) -> float:
    """A text, and under each word block after block whether it is kept."""
    sheet.text(0, y, tower.name, size=9, weight="bold")
    y += 0.22
    label = 1.3
    for line in wrapped(tower.words, sheet.width - label):
        height = LINE_HEIGHT * (1 + len(tower.steps))
        width = line[-1][1] + line[-1][2]
        for number, step in enumerate(tower.steps):
            told = f"block {number + 1}: {step.weights()}"
            sheet.text(0, y + LINE_HEIGHT * (number + 1) + 0.04, told, size=7.5)
        sheet.box(label, y, width, height, _cells(tower, line, width))
        y += height + 0.12
    return y + 0.05


def _cells(tower: Tower, line: Sequence[tuple[int, float, float]], width: float) -> Draw:
    def draw(axes: Axes) -> None:
        rows = 1 + len(tower.steps)
        axes.set(xlim=(0, width), ylim=(rows, 0))
        axes.axis("off")
        for number, left, wide in line:
            word = tower.words[number].replace("$", r"\$")
            middle = left + wide / 2
            axes.text(middle, 0.5, word, ha="center", va="center", size=8, color=TEXT)
            for row, step in enumerate(tower.steps, 1):
                _cell(axes, step, number, (left, row, wide), word)

    return draw


def _cell(axes: Axes, step: Step, number: int, place: tuple[float, float, float], word: str) -> None:
    from matplotlib.patches import Rectangle

    left, row, wide = place
    kept = bool(step.kept[number])
    corner, size = (left + 0.02, row + 0.08), (wide - 0.04, 0.84)
    if kept:
        axes.add_patch(Rectangle(corner, *size, facecolor="none", edgecolor=KEPT, linewidth=1.2))
    else:
        axes.add_patch(Rectangle(corner, *size, **HATCHED))
    said = word if kept else f"{100 * step.share[number]:.0f}%"
    axes.text(
        left + wide / 2,
        row + 0.5,
        said,
        ha="center",
        va="center",
        size=7.5 if kept else 6.5,
        color=TEXT if kept else SOFT,
    )
