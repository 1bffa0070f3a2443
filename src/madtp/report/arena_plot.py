"""The plots of a comparison, as SVG files and for a page: quality against GFLOPs, quality against time."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from madtp.report.plot import TEXT, colour, new_figure, page_svg, quality_label
from madtp.report.table import score

_MARKERS = "osD^vP*XpHd<>h"
WAYS = {False: "without training", True: "trained alike"}
AXES = {"gflops": "GFLOPs an example (measured)", "time": "time of the towers (dense = 1)"}


def arena_plot(table: Sequence[Mapping[str, Any]], against: str) -> bytes | None:
    """SVG file of the main metric against `gflops` or `time`, a line a method; untrained and trained apart.

    Args:
        table: from `arena_table`; bars are the spread over seeds.
        against: key of `AXES`.

    Returns:
        None if no line has both numbers.
    """
    lines = _placed(table, against)
    if not lines:
        return None
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    panels = _panels(lines)
    figure = Figure(figsize=(5.6 * len(panels) + 1.4, 4.4), layout="constrained")
    canvas = FigureCanvasSVG(figure)
    colours = matplotlib.colormaps["tab20" if len(_methods(lines)) > 10 else "tab10"]
    known: dict[str, Any] = {}
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for place, trained in zip(axes, panels, strict=True):
        known |= _draw(place, lines, trained, against, colours)
        place.set_title(WAYS[trained])
        place.set_xlabel(AXES[against])
        place.grid(alpha=0.3)
        place.set_xlim(left=0)
    axes[0].set_ylabel(quality_label(lines[0]["metric"]))
    figure.legend(known.values(), known.keys(), loc="outside right upper", frameon=False)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": against}):
        canvas.print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def arena_figures(table: Sequence[Mapping[str, Any]], against: str) -> list[tuple[str, str]]:
    """The same for a page, in its colours: SVG element and caption, one each for untrained and trained."""
    lines = _placed(table, against)
    shown = []
    for trained in _panels(lines):
        figure, axes = new_figure()
        known = _draw(axes, lines, trained, against, colour)
        axes.set_xlabel(AXES[against], color=TEXT)
        axes.set_ylabel(quality_label(lines[0]["metric"]), color=TEXT)
        axes.margins(x=0.08, y=0.12)
        axes.set_xlim(left=0)
        figure.legend(
            known.values(),
            known.keys(),
            loc="outside upper center",
            ncols=3,
            frameon=False,
            labelcolor=TEXT,
            fontsize=8,
        )
        told = "; ".join(
            f"{line['method']} at {line['reduction_asked']:g}: {score(line['metric'], line['quality'])} "
            f"at {line[against]:.3g}"
            for line in lines
            if line["trained"] == trained
        )
        words = f"Quality against {AXES[against]}, {WAYS[trained]}"
        shown.append((page_svg(figure, f"{words}. {told}."), f"{words}; bars are the spread over seeds."))
    return shown


def _placed(table: Sequence[Mapping[str, Any]], against: str) -> list[Mapping[str, Any]]:
    """The lines that have both numbers. `time` is 1 / speedup: of rows made hours apart milliseconds would drift."""
    timed = [{**line, "time": 1 / line["speedup"] if line["speedup"] else None} for line in table]
    return [line for line in timed if line["quality"] is not None and line[against] is not None]


def _panels(lines: Sequence[Mapping[str, Any]]) -> list[bool]:
    return [trained for trained in (False, True) if any(line["trained"] == trained for line in lines)]


def _methods(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["method"] for line in lines))


def _draw(
    axes: Any, lines: Sequence[Mapping[str, Any]], trained: bool, against: str, colours: Callable[[int], Any]
) -> dict[str, Any]:
    """A line a method, the same colour and mark in every plot of a table; returns what the legend needs."""
    known = {}
    for i, method in enumerate(_methods(lines)):
        some = [line for line in lines if line["method"] == method and line["trained"] == trained]
        some.sort(key=lambda line: line[against])
        if some:
            known[method] = axes.errorbar(
                [line[against] for line in some],
                [100 * line["quality"] for line in some],
                [100 * (line["spread"] or 0.0) for line in some],
                color=colours(i),
                marker=_MARKERS[i % len(_MARKERS)],
                linewidth=1.4,
                capsize=2,
            )
    return known
