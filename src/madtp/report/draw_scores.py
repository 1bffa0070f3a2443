"""The scores that one example's tokens were kept or merged by: as maps over picture and words, and as histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from madtp.report.draw_kept import FRAME, GAP, abreast
from madtp.report.seen import SCORES, Numbers, Step, Tower, View
from madtp.report.sheet import KEPT, LINE, MERGED, SOFT, TEXT, Draw, Drawing, Sheet, bare, small
from madtp.report.view import patch_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL, HISTOGRAM, BINS = 1.15, 0.85, 24
TOP = 0.97  # share of the tokens whose scores a map tells apart at its upper end
COLOURS = {"class": "#3b7dd8", "self": "#a05bd0", "token": "#1a9a8a"}  # of the three scores, on light and dark
ABOUT = {
    "class": "attention from\nthe pooled token",
    "self": "attention from\nthe other tokens",
    "token": "closeness to a\nsemantic token",
    "importance": "mean of the three:\nabove θ is kept",
}
MAPS = (
    "Maps: yellow = high, dark blue = low, by block; inside the orange line is what the block keeps. Grey lines cross "
    "what came in merged already: it has one score."
)
BARS = (
    "Histograms count tokens going in: orange are kept, grey are merged. The dashed line is the threshold θ. "
    "A block that would merge none or one is left whole."
)


def draw_scores(view: View) -> list[Drawing]:
    """The scores of each picture, then of each text that has any."""
    drawn = [_picture(tower, f"scores{_end(i, view.pictures)}") for i, tower in enumerate(view.pictures)]
    drawn += [_text(tower, f"scores-text{_end(i, view.texts)}") for i, tower in enumerate(view.texts)]
    return [drawing for drawing in drawn if drawing is not None]


def _end(number: int, of: Sequence[Tower]) -> str:
    return f"-{number + 1}" if len(of) > 1 else ""


def known(tower: Tower) -> list[str]:
    """The scores that every block of a tower has."""
    return [name for name in SCORES if tower.steps and all(name in step.scores for step in tower.steps)]


def scores_in_words(tower: Tower) -> str:
    """The thresholds and what they kept, for who cannot see it."""
    said = []
    for number, step in enumerate(tower.steps, 1):
        theta = "no threshold" if step.threshold is None else f"threshold {step.threshold:.3g}"
        stays = 0 if step.stays is None else int(step.stays.sum())
        said.append(f"block {number}: {theta}, {stays} of {len(step.scores['importance'])} tokens kept")
    return f"Scores of the {tower.name}. {'; '.join(said)}."


def _picture(tower: Tower, name: str) -> Drawing | None:
    names = known(tower)
    if not names:
        return None
    assert tower.image is not None
    columns = abreast(len(tower.steps))
    side = FRAME * tower.image.height / max(tower.image.size)
    sheet = Sheet(LABEL + columns * (FRAME + GAP))
    sheet.text(0, 0, f"scores of the {tower.name}", size=11, weight="bold")
    y = 0.35
    for first in range(0, len(tower.steps), columns):
        band = list(enumerate(tower.steps))[first : first + columns]
        for column, (number, step) in enumerate(band):
            sheet.text(LABEL + column * (FRAME + GAP), y, _head(number, step), size=7.5)
        y += 0.34
        for score in names:
            _label(sheet, y, SCORES[score], ABOUT[score])
            for column, (_, step) in enumerate(band):
                sheet.box(LABEL + column * (FRAME + GAP), y, FRAME, side, _map(tower, step, score))
            y += max(side, 0.5) + GAP  # the name of a score beside a flat picture takes room
        y = _histograms(sheet, band, names, y) + 0.2
    sheet.note(0, sheet.note(0, y, MAPS), BARS)
    return sheet.finish(name, scores_in_words(tower))


def _head(number: int, step: Step) -> str:
    theta = "" if step.threshold is None else f"\nθ = {step.threshold:.3g}"
    theta += ", left whole" if step.stays is not None and step.stays.all() else ""
    return f"block {number + 1}: {step.weights()}{theta}"


def _label(sheet: Sheet, y: float, name: str, about: str) -> None:
    sheet.text(0, y, name, size=9, weight="bold")
    sheet.text(0, y + 0.2, about, size=7, color=SOFT)


def _map(tower: Tower, step: Step, score: str) -> Draw:
    assert tower.image is not None
    grid = patch_grid(len(step.kept), tower.image.size)

    def draw(axes: Axes) -> None:
        values = step.scores[score]
        low, high = float(values.min()), float(np.quantile(values, TOP))  # one token must not darken all others
        shown = step.spread(score).reshape(grid)
        axes.imshow(shown, aspect="auto", cmap="viridis", interpolation="nearest", vmin=low, vmax=high)
        _strike(axes, ~step.alone.reshape(grid))
        outline(axes, step.kept.reshape(grid))
        bare(axes)

    return draw


def _strike(axes: Axes, where: np.ndarray) -> None:
    """A line across every cell that holds a merged token."""
    lines = [[(x - 0.5, y + 0.5), (x + 0.5, y - 0.5)] for y, x in np.argwhere(where)]
    _strokes(axes, lines, color="#9aa0a8", linewidth=0.4)


def outline(axes: Axes, inside: np.ndarray) -> None:
    """An orange line between the cells that are `inside` and the others."""
    lines = []
    for y, x in np.argwhere(inside[:, 1:] != inside[:, :-1]):
        lines.append([(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)])
    for y, x in np.argwhere(inside[1:] != inside[:-1]):
        lines.append([(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)])
    _strokes(axes, lines, color="#ff8c00", linewidth=1.3, solid_capstyle="projecting")


def _strokes(axes: Axes, lines: Sequence[Sequence[tuple[float, float]]], **how: Any) -> None:
    """Many strokes as one path, which keeps the files small; the limits of the axes stay."""
    points = [point for line in lines for point in (*line, (np.nan, np.nan))]
    limits = axes.get_xlim(), axes.get_ylim()
    if points:
        axes.plot(*zip(*points, strict=True), **how)
    axes.set(xlim=limits[0], ylim=limits[1])


def _histograms(sheet: Sheet, band: Sequence[tuple[int, Step]], names: Sequence[str], y: float) -> float:
    """TIS with the threshold, and the three scores it is the mean of; returns the y below."""
    _label(sheet, y, "TIS", "tokens at each\nvalue, and θ")
    for column, (_, step) in enumerate(band):
        sheet.box(LABEL + column * (FRAME + GAP) + 0.1, y, FRAME - 0.15, HISTOGRAM, importance_histogram(step))
    y += HISTOGRAM + 0.3
    parts = [name for name in COLOURS if name in names]
    if not parts:
        return y
    _label(sheet, y, "its parts", "")
    for row, part in enumerate(parts):
        sheet.text(0, y + 0.2 + 0.14 * row, f"— {SCORES[part]}", size=7.5, color=COLOURS[part])
    for column, (_, step) in enumerate(band):
        sheet.box(LABEL + column * (FRAME + GAP) + 0.1, y, FRAME - 0.15, HISTOGRAM, _parts_histogram(step, parts))
    return y + HISTOGRAM + 0.3


def importance_histogram(step: Step) -> Draw:
    """How many tokens going in have which TIS: kept ones on merged ones, with the threshold."""
    scores, stays = step.scores["importance"], step.stays
    assert stays is not None

    def draw(axes: Axes) -> None:
        axes.hist([scores[~stays], scores[stays]], bins=_edges([scores], step), stacked=True, color=[MERGED, KEPT])
        _finish(axes, step)

    return draw


def _parts_histogram(step: Step, parts: Sequence[str]) -> Draw:
    def draw(axes: Axes) -> None:
        edges = _edges([step.scores[part] for part in parts], step)
        for part in parts:
            clipped = step.scores[part].clip(edges[0], edges[-1])
            axes.hist(clipped, bins=edges, histtype="step", color=COLOURS[part], linewidth=1)
        _finish(axes, step)

    return draw


def _edges(scores: Sequence[Numbers], step: Step) -> list[float]:
    values = np.concatenate([*scores, [] if step.threshold is None else [step.threshold]])
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = low - 0.5e-3, high + 0.5e-3
    return np.linspace(low, high, BINS + 1).tolist()


def _finish(axes: Axes, step: Step) -> None:
    if step.threshold is not None:
        axes.axvline(step.threshold, color=TEXT, linewidth=1, linestyle=(0, (3, 2)))
    small(axes)
    axes.locator_params(nbins=3)


def _text(tower: Tower, name: str) -> Drawing | None:
    """Words down, blocks across: a map a score, then each word's TIS beside the threshold."""
    names = known(tower)
    if not names:
        return None
    blocks, words = len(tower.steps), len(tower.words)
    wide, high = min(max(0.32 * blocks, 1.0), 2.2), 0.2 * words
    sheet = Sheet(1.0)
    sheet.text(0, 0, f"scores of the {tower.name}", size=11, weight="bold")
    x, y = LABEL, 0.6
    for row, word in enumerate(tower.words):
        sheet.text(LABEL - 0.08, y + 0.2 * row + 0.03, word, size=8, ha="right")
    for score in names:
        sheet.text(x, y - 0.22, SCORES[score], size=9, weight="bold")
        sheet.box(x, y, wide, high, _word_map(tower, score))
        sheet.text(x, y + high + 0.22, ABOUT[score], size=7, color=SOFT)
        x += wide + 0.25
    dots = min(max(0.5 * blocks, 1.6), 3.2)
    sheet.text(x + 0.2, y - 0.22, "TIS and θ", size=9, weight="bold")
    sheet.box(x + 0.25, y, dots, max(high, 1.2), _dots(tower))
    told = "Maps by block, yellow = high; framed words are kept. Dots: a word each, orange kept, grey merged; bar: θ."
    sheet.note(0, y + max(high, 1.2) + 0.6, told)
    return sheet.finish(name, scores_in_words(tower))


def _word_map(tower: Tower, score: str) -> Draw:
    """Each block's scores between its lowest and its highest."""
    values = np.stack([step.spread(score) for step in tower.steps], 1)
    low, high = values.min(0), values.max(0)
    shown = (values - low) / np.where(high > low, high - low, 1.0)
    alone, kept = (np.stack([getattr(step, name) for step in tower.steps], 1) for name in ("alone", "kept"))

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        axes.imshow(shown, aspect="auto", cmap="viridis", interpolation="nearest", vmin=0, vmax=1)
        _strike(axes, ~alone)
        for row, column in np.argwhere(kept):
            corner = (column - 0.42, row - 0.38)
            axes.add_patch(Rectangle(corner, 0.84, 0.76, fill=False, edgecolor="#ff8c00", linewidth=1.4))
        bare(axes)
        axes.set_xticks(range(kept.shape[1]), [str(block + 1) for block in range(kept.shape[1])])
        axes.tick_params(labelsize=6.5, length=0, labelcolor=SOFT)

    return draw


def _dots(tower: Tower) -> Draw:
    def draw(axes: Axes) -> None:
        small(axes)
        for number, step in enumerate(tower.steps, 1):
            scores, stays = step.scores["importance"], step.stays
            assert stays is not None
            colours = np.where(stays, KEPT, MERGED)
            axes.scatter(np.full(len(scores), number), scores, s=14, c=colours, linewidths=0, zorder=3)
            if step.threshold is not None:
                axes.plot([number - 0.3, number + 0.3], [step.threshold] * 2, color=TEXT, linewidth=1.2)
        axes.set_xlim(0.5, len(tower.steps) + 0.5)
        axes.set_xticks(range(1, len(tower.steps) + 1))
        axes.grid(axis="y", color=LINE, linewidth=0.5)
        axes.set_xlabel("block", color=SOFT, size=7, labelpad=1)

    return draw
