"""The plots of a comparison as SVG files: quality against GFLOPs, quality against time."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

_MARKERS = "osD^vP*XpHd<>h"
AXES = {"gflops": "GFLOPs an example (measured)", "ms_per_image": "milliseconds an image (both towers)"}


def arena_plot(table: Sequence[Mapping[str, Any]], against: str) -> bytes | None:
    """SVG of the main metric against `gflops` or `ms_per_image`, a line a method; untrained and trained apart.

    Args:
        table: from `arena_table`; bars are the spread over seeds.
        against: key of `AXES`.

    Returns:
        None if no line has both numbers.
    """
    lines = [line for line in table if line["quality"] is not None and line[against] is not None]
    if not lines:
        return None
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    panels = [trained for trained in (False, True) if any(line["trained"] == trained for line in lines)]
    figure = Figure(figsize=(5.6 * len(panels) + 1.4, 4.4), layout="constrained")
    canvas = FigureCanvasSVG(figure)
    methods = list(dict.fromkeys(line["method"] for line in lines))
    colours = matplotlib.colormaps["tab20" if len(methods) > 10 else "tab10"]
    known: dict[str, Any] = {}
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for place, trained in zip(axes, panels, strict=True):
        for i, method in enumerate(methods):
            some = [line for line in lines if line["method"] == method and line["trained"] == trained]
            some.sort(key=lambda line: line[against])
            if not some:
                continue
            known[method] = place.errorbar(
                [line[against] for line in some],
                [100 * line["quality"] for line in some],
                [100 * (line["spread"] or 0.0) for line in some],
                color=colours(i),
                marker=_MARKERS[i % len(_MARKERS)],
                linewidth=1.4,
                capsize=2,
            )
        place.set_title("trained alike" if trained else "without training")
        place.set_xlabel(AXES[against])
        place.grid(alpha=0.3)
    axes[0].set_ylabel(f"{lines[0]['metric'].replace('_', ' ')} (%)")
    figure.legend(known.values(), known.keys(), loc="outside right upper", frameon=False)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": against}):
        canvas.print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()
