"""A sheet to draw on with matplotlib: boxes and lines placed in inches from its upper left corner, then saved as PNG
and SVG, and as SVG that takes its colours from the page. Needs matplotlib (the `plots` extra).
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from madtp.report.plot import inline_svg, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The page's light theme, each colour also the stand-in for what the page has in its own theme.
TEXT, SOFT, LINE, RIGHT, WRONG = "#1c1e21", "#565b63", "#c9cdd2", "#14703a", "#b3261e"
KEPT, MERGED = "#d97400", "#7d8590"  # the same on light and dark
_ON_PAGE = {
    TEXT: "var(--text)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    RIGHT: "var(--right)",
    WRONG: "var(--wrong)",
}
_DPI = 130
_NOTE_CHARACTER, _NOTE_LINE = 0.057, 0.17  # inches
Draw = Callable[["Axes"], None]


@dataclass(frozen=True)
class Drawing:
    """A finished sheet.

    Attributes:
        name: of its files, without ending.
        words: what it shows.
        png, svg: the files' contents, on white.
        inline: SVG for a page.
    """

    name: str
    words: str
    png: bytes
    svg: str
    inline: str


class Sheet:
    """Boxes and lines of text, in inches from the upper left corner.

    Args:
        width: of the sheet; it grows downwards, and to the right where more is put there.
    """

    def __init__(self, width: float) -> None:
        self.width, self.height = width, 0.0
        self._boxes: list[tuple[float, float, float, float, Draw]] = []
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []

    def box(self, x: float, y: float, width: float, height: float, draw: Draw) -> None:
        """Axes there; `draw` is called with them when the sheet is finished."""
        self._boxes.append((x, y, width, height, draw))
        self.width, self.height = max(self.width, x + width), max(self.height, y + height)

    def text(self, x: float, y: float, text: str, **how: Any) -> None:
        """A line whose upper left corner is there; `how` as matplotlib's `Figure.text` takes it."""
        how = {"color": TEXT, "size": 9.0, "va": "top", **how}
        self._texts.append((x, y, text.replace("$", r"\$"), how))
        self.height = max(self.height, y + float(how["size"]) / 72 * 1.4 * (1 + text.count("\n")))

    def note(self, x: float, y: float, text: str) -> float:
        """A small text, in as many lines as the sheet's width asks for; returns the y below it."""
        lines = textwrap.wrap(text, max(24, int((self.width - x) / _NOTE_CHARACTER)))
        for number, line in enumerate(lines):
            self.text(x, y + _NOTE_LINE * number, line, size=7.5, color=SOFT)
        return y + _NOTE_LINE * len(lines)

    def finish(self, name: str, words: str) -> Drawing:
        """Draw everything and save it in every form."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        margin = 0.15
        full = self.width + 2 * margin, self.height + 2 * margin
        figure = Figure(figsize=full)
        FigureCanvasAgg(figure)
        for x, y, width, height, draw in self._boxes:
            left, bottom = (x + margin) / full[0], 1 - (y + margin + height) / full[1]
            draw(figure.add_axes((left, bottom, width / full[0], height / full[1])))
        for x, y, text, how in self._texts:
            figure.text((x + margin) / full[0], 1 - (y + margin) / full[1], text, **how)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
        figure.patch.set_visible(False)
        svg = svg_of(figure, f"{name}: {words}")
        end = svg.index(">") + 1
        opening = svg[: end - 1] + ' font-family="sans-serif">\n <rect width="100%" height="100%" fill="#ffffff"/>'
        file = f'<?xml version="1.0" encoding="utf-8"?>\n{opening}{svg[end:]}'
        return Drawing(name, words, buffer.getvalue(), file, inline_svg(svg, words, _ON_PAGE))


def bare(axes: Axes) -> None:
    """No ticks, a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(LINE)
        spine.set_linewidth(0.6)


def small(axes: Axes) -> None:
    """Ticks and labels for a small box, without a ground of its own."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(color=LINE, labelcolor=SOFT, labelsize=6, length=2, pad=1.5)
