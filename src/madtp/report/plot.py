"""The plots of a report, as SVG that takes its colours from the page. Needs matplotlib (the `plots` extra)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from madtp.errors import InputError
from madtp.report.table import NO_SHARE, Figures, Report, Row, figures, metric_names, number, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 6  # colours the page defines: --series-0 ... --series-5
_MARKERS = "osD^vP"
_LINES = ("-", "--", "-.", ":")
# Stand-ins drawn by matplotlib, then replaced by the page's own colours, so that one SVG serves light and dark.
TEXT, FAINT = "#010101", "#020202"
_STAND_INS = {TEXT: "var(--text)", FAINT: "var(--line)"} | {
    f"#0301{i:02x}": f"var(--series-{i})" for i in range(SERIES)
}
_LEAST_SPAN = 0.10  # of the quality axis: a difference of noise must not look like a cliff


def check_plots() -> None:
    """Call it before a long run that ends in a report.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("plots need matplotlib", "report.html", 'pip install "madtp[plots]"') from error


def quality_plot(report: Report, against: str = "gflops") -> str | None:
    """SVG of the main metric against measured cost; None if no row has both.

    Args:
        report: the report.
        against: "gflops", or "time", as a share of the dense model's.
    """
    drawn = [(getattr(row, against), row.quality, row) for row in figures(report)]
    placed = [(cost, quality, row) for cost, quality, row in drawn if cost is not None and quality is not None]
    alone = None  # what the dense model costs, where its quality was not measured
    if len(placed) == 1 and not placed[0][2].dense:
        alone = placed[0][2].gflops_dense if against == "gflops" else 1.0
    # times mean something beside others of the same run
    if not placed or (against != "gflops" and len(placed) < 2 and alone is None):
        return None
    figure, axes = new_figure()
    spread = against == "gflops"
    for index, (cost, quality, row) in enumerate(placed):
        if spread and row.p50 is not None and row.p95 is not None:
            axes.plot([row.p50, row.p95], [100 * quality] * 2, color=colour(index), linewidth=1.2, marker="|", ms=6)
        axes.plot([cost], [100 * quality], color=colour(index), marker=marker(index), ms=8, linestyle="none")
        axes.annotate(
            _literal(row.title or row.name),
            (cost, 100 * quality),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=TEXT,
        )
    costs = [cost for cost, _, _ in placed]
    dense = next((quality for _, quality, row in placed if row.dense), None)
    if dense is not None:
        axes.axhline(100 * dense, color=FAINT, linewidth=1, linestyle="--", zorder=0)
    if alone is not None:
        axes.axvline(alone, color=FAINT, linewidth=1, linestyle="--", zorder=0)
        place = axes.get_xaxis_transform()
        axes.text(alone, 0.02, "dense ", transform=place, ha="right", color=TEXT)
    axes.set_xlim(0, 1.12 * max([*costs, alone or 0.0, *((row.p95 or 0.0) * spread for _, _, row in placed)]) or 1.0)
    axes.set_ylim(*_quality_span([quality for _, quality, _ in placed]))
    name = "GFLOPs per instance (mean; bar: p50 to p95)" if spread else "time of the towers (dense = 1)"
    axes.set_xlabel(name, color=TEXT)
    axes.set_ylabel(quality_label(metric_names(report)[0]), color=TEXT)
    return page_svg(figure, _quality_words(placed, "GFLOPs" if spread else "of dense's time", alone))


def quality_label(metric: str) -> str:
    """What stands at the axis of a metric that is drawn times 100."""
    return _literal(f"{metric.replace('_', ' ')} ({'hundredths' if metric in NO_SHARE else '%'})")


def _quality_words(placed: Sequence[tuple[float, float, Figures]], unit: str, alone: float | None) -> str:
    told = "; ".join(f"{row.label}: {100 * quality:.1f}% at {cost:.3g} {unit}" for cost, quality, row in placed)
    if alone is not None:
        told += f"; dense costs {alone:.3g} {unit}"
    return f"Quality against cost. {told}."


def _quality_span(qualities: Sequence[float]) -> tuple[float, float]:
    """Limits of the quality axis in percent: room around the points, ``_LEAST_SPAN`` at least, within what can be."""
    low, high = min(qualities), max(qualities)
    middle, half = (low + high) / 2, max(0.7 * (high - low), _LEAST_SPAN / 2)
    bottom, top = max(middle - half, -0.02), middle + half
    if high <= 1:  # a share; the margin leaves room for the mark
        top = min(top, 1.02)
    return 100 * min(bottom, top - _LEAST_SPAN), 100 * max(top, bottom + _LEAST_SPAN)


def tokens_plot(report: Report) -> str | None:
    """SVG of the number of tokens after each vision block: mean, and a band from the 5th to the 95th percentile over
    pictures where it is known; None if no row has the mean. A row's `series` is the number of its colour.
    """
    lines: dict[str, list[float]] = {}
    series: list[int] = []
    bands: dict[str, tuple[list[float], list[float]]] = {}
    for row, told in zip(rows_of(report), figures(report), strict=True):
        known = _counts(row, "per_block")
        low, high = _counts(row, "per_block_p5"), _counts(row, "per_block_p95")
        if known:
            series += [row.get("series", len(lines))] if told.label not in lines else []
            lines[told.label] = known
            if len(low) == len(high) == len(known) and low != high:
                bands[told.label] = low, high
    if not lines:
        return None
    figure, axes = new_figure()
    for index, (name, known) in zip(series, lines.items(), strict=True):
        if name in bands:
            axes.fill_between(
                range(1, len(known) + 1), *bands[name], color=colour(index), alpha=0.16, linewidth=0, zorder=1
            )
        axes.plot(
            range(1, len(known) + 1),
            known,
            color=colour(index),
            marker=marker(index),
            linestyle=_LINES[index % len(_LINES)],
            linewidth=1.8,
            ms=5,
            label=_literal(name),
        )
    blocks = max(map(len, lines.values()))
    axes.set_xlim(0.5, blocks + 0.5)
    axes.set_xticks(range(1, blocks + 1, max(1, blocks // 12)))
    highest = max(map(max, [*lines.values(), *(high for _, high in bands.values())]))
    axes.set_ylim(0, 1.08 * highest or 1.0)
    axes.set_xlabel("block of the image tower", color=TEXT)
    axes.set_ylabel(f"tokens (mean{'; band: p5 to p95' if bands else ''})", color=TEXT)
    columns = max(1, min(3, 42 // max(map(len, lines))))  # what the plot is wide enough for
    figure.legend(loc="outside upper center", ncols=columns, frameon=False, labelcolor=TEXT)
    return page_svg(figure, _tokens_words(lines))


def _counts(row: Row, key: str) -> list[float]:
    """A number for each block; none at all where one is missing: a gap would shift the blocks after it."""
    counts = [number(value) for value in (row.get("tokens") or {}).get(key) or ()]
    known = [count for count in counts if count is not None]
    return known if len(known) == len(counts) else []


def _tokens_words(lines: Mapping[str, Sequence[float]]) -> str:
    told = "; ".join(f"{name}: {', '.join(f'{count:.0f}' for count in counts)}" for name, counts in lines.items())
    return f"Mean tokens after each block of the image tower. {told}."


def _literal(text: str) -> str:
    """``text`` with its dollar signs kept from being read as formulas."""
    return text.replace("$", r"\$")


def colour(index: int) -> str:
    """A stand-in for the page's colour of a row or line."""
    return f"#0301{index % SERIES:02x}"


def marker(index: int) -> str:
    """A mark of its own for a row or line."""
    return _MARKERS[index % len(_MARKERS)]


def new_figure() -> tuple[Figure, Axes]:
    """A small plot that takes its ground from the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=TEXT)
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)
    return figure, axes


def page_svg(figure: Figure, words: str) -> str:
    """The figure as an SVG element in the page's colours, with `words` for who cannot see it."""
    return inline_svg(svg_of(figure, words), words, _STAND_INS)


def svg_of(figure: Figure, salt: str) -> str:
    """The figure as an SVG element: text as text, no ids but those it refers to, the same every time.

    Args:
        figure: drawn with matplotlib.
        salt: keeps ids stable, and apart between figures of one page.
    """
    import matplotlib

    buffer = io.StringIO()
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": salt}
    with matplotlib.rc_context(options):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The same in every figure, or for pictures that are alike: two of them would make the page invalid.
    svg = re.sub(r'<(g|image)([^>]*?) id="[^"]*"', r"<\1\2", svg)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", svg)


def inline_svg(svg: str, words: str, colours: Mapping[str, str]) -> str:
    """An SVG element for a page: as wide as its place, with ``words`` for who cannot see it.

    Args:
        svg: of `svg_of`.
        words: what it shows.
        colours: stand-ins it was drawn with -> what the page has for them.
    """
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for stand_in, colour in colours.items():
        svg = svg.replace(stand_in, colour)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)
