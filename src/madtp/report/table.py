"""The one table of a report: a row each for dense and for every reduction, as cells, Markdown or a terminal table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Report = Mapping[str, Any]
Row = Mapping[str, Any]

MISSING = "–"
MAIN = ("accuracy", "cider", "r_mean")  # the metric that a task is judged by
NO_SHARE = ("cider",)  # may be above 1: written as hundredths without a percent sign, as the field does
SHORT_COLUMNS = ("accuracy", "GFLOPs", "reduction", "tokens kept", "ms/image", "speed-up")


@dataclass(frozen=True)
class Figures:
    """What one row of a report says, in numbers; None where it was not measured.

    Attributes:
        name: `dense` or the reduction asked for.
        metrics: the task's metrics, 0..1, higher = better, the main one first.
        drop: main metric less the dense model's, in points (hundredths); negative = worse than dense.
        gflops, p50, p95: measured GFLOPs an instance (multiply-accumulates / 1e9): mean and percentiles.
        gflops_dense: of the same instances without pruning.
        reduction: 1 - GFLOPs / dense GFLOPs, measured.
        kept: share of tokens kept, 0..1, mean over blocks and instances.
        milliseconds: time an image.
        speedup: dense time / this time; over 1 = faster than dense.
        title: what to call the row; "" = by its name.
    """

    name: str
    metrics: Mapping[str, float | None]
    drop: float | None
    gflops: float | None
    p50: float | None
    p95: float | None
    reduction: float | None
    kept: float | None
    milliseconds: float | None
    speedup: float | None
    gflops_dense: float | None = None
    title: str = ""

    @property
    def dense(self) -> bool:
        return self.name == "dense"

    @property
    def label(self) -> str:
        return self.title or (self.name if self.dense else f"reduction {self.name}")

    @property
    def time(self) -> float | None:
        """Time as a share of the dense model's in the same minutes; of a row by itself milliseconds would drift."""
        return 1 / self.speedup if self.speedup else None

    @property
    def quality(self) -> float | None:
        """The main metric."""
        return next(iter(self.metrics.values()), None)


def number(value: Any) -> float | None:
    """A finite float, or None for whatever is none: None, NaN, infinity, text."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def rows_of(report: Report) -> Sequence[Row]:
    """The rows of a report, dense first, the others in their order."""
    return sorted(report.get("rows") or (), key=lambda row: row.get("name") != "dense")


def left_out(skipped: Mapping[str, int]) -> str:
    """In words what was left out as faulty, from its number by split; nothing where there is none."""
    return (
        f"left out as faulty: {', '.join(f'{count} of {split}' for split, count in skipped.items())}" if skipped else ""
    )


def metric_names(report: Report) -> list[str]:
    """Every metric that any row has; the main one (of `MAIN`) first."""
    measured = (item for row in rows_of(report) for item in (row.get("metrics") or {}).items())
    names = dict.fromkeys(name for name, value in measured if number(value) is not None)
    return sorted(names, key=lambda name: name not in MAIN)


def figures(report: Report) -> list[Figures]:
    """The numbers of every row; whatever a row lacks is None."""
    names = metric_names(report)
    rows: list[Figures] = []
    for row in rows_of(report):
        cost, kept = row.get("gflops") or {}, row.get("tokens") or {}
        metrics = {name: number((row.get("metrics") or {}).get(name)) for name in names}
        quality = next(iter(metrics.values()), None)
        dense = rows[0].quality if rows and rows[0].dense else None
        rows.append(
            Figures(
                name=str(row.get("name") or "?"),
                metrics=metrics,
                drop=None if quality is None or dense is None else 100 * (quality - dense),
                gflops=number(cost.get("mean")),
                p50=number(cost.get("p50")),
                p95=number(cost.get("p95")),
                reduction=number(cost.get("reduction")),
                kept=number(kept.get("kept_fraction")),
                milliseconds=number(row.get("ms_per_image")),
                speedup=number(row.get("speedup")),
                gflops_dense=number(cost.get("dense")),
                title=str(row.get("label") or ""),
            )
        )
    return rows


def percent(share: float | None, digits: int = 1) -> str:
    """``0.5`` -> ``50.0%``."""
    return MISSING if share is None else f"{100 * share:.{digits}f}%"


def score(name: str, value: float | None, digits: int = 1) -> str:
    """A metric for a reader: ``57.0%``, or ``133.3`` where it is no share."""
    said = percent(value, digits)
    return said.removesuffix("%") if name in NO_SHARE else said


def amount(value: float | None) -> str:
    """Three significant digits or more, never an exponent: ``132.54`` -> ``133``, ``0.01234`` -> ``0.0123``."""
    if value is None:
        return MISSING
    digits = 2 if value == 0 else 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(digits, 0), 6)}f}"


def points(drop: float | None) -> str:
    """``-0.26`` -> ``−0.3``, with a sign, and no sign on what rounds to nothing."""
    if drop is None:
        return MISSING
    return "0.0" if abs(drop) < 0.05 else f"{drop:+.1f}".replace("-", "−")


def times(speedup: float | None) -> str:
    return MISSING if speedup is None else f"{speedup:.2f}×"


def speed(speedup: float) -> str:
    """``2.13`` -> ``2.1× faster``, ``0.5`` -> ``2.0× slower``."""
    ratio, word = (speedup, "faster") if speedup >= 1 else (1 / speedup, "slower")
    return "as fast as dense" if ratio < 1.05 else f"{ratio:.1f}× {word}"


def _short_cells(row: Figures) -> list[str]:
    return [
        score(next(iter(row.metrics), ""), row.quality),
        amount(row.gflops),
        percent(row.reduction),
        percent(row.kept),
        amount(row.milliseconds),
        times(row.speedup),
    ]


def _short_columns(report: Report) -> list[str]:
    main = (metric_names(report) or [MAIN[0]])[0]
    return [main, *SHORT_COLUMNS[1:]]


def markdown_table(report: Report) -> str:
    """The final table in Markdown: rows dense and each reduction; ends with a newline."""
    lines = [["", *_short_columns(report)], ["---", *["---:"] * len(SHORT_COLUMNS)]]
    lines += [[row.name, *_short_cells(row)] for row in figures(report)]
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def rich_table(report: Report) -> Table:
    """The final table for a terminal: rows dense and each reduction."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in _short_columns(report):
        table.add_column(column, justify="right")
    for row in figures(report):
        table.add_row(*map(Text, [row.name, *_short_cells(row)]))  # Text: a name is never read as markup
    return table


def headline(row: Figures) -> list[str]:
    """What a pruned row gained and lost, in words: ``["2.1× faster", "50% fewer GFLOPs", "−0.3 points"]``."""
    said: list[str] = []
    if row.speedup is not None and row.speedup > 0:
        said.append(speed(row.speedup))
    if row.reduction is not None:
        said.append(f"{abs(100 * row.reduction):.0f}% {'fewer' if row.reduction >= 0 else 'more'} GFLOPs")
    if row.drop is not None:
        said.append(f"{points(row.drop)} points" if abs(row.drop) >= 0.05 else "no change in points")
    return said


def by_group(report: Report, key: str) -> tuple[list[int], list[tuple[Figures, dict[int, float]]]]:
    """Share of tokens kept by group of pictures, for the pruned rows that have it.

    Args:
        report: the report.
        key: of a row's `tokens`: `by_objects`, or `by_detail`.

    Returns:
        the groups that occur, in order, and per row the mean kept share of each.
    """
    found: list[tuple[Figures, dict[int, float]]] = []
    for row, told in zip(rows_of(report), figures(report), strict=True):
        groups = (row.get("tokens") or {}).get(key) or {}
        shares = {
            int(count): share
            for count, raw in groups.items()
            if str(count).isdecimal() and (share := number(raw)) is not None
        }
        if shares and not told.dense:
            found.append((told, dict(sorted(shares.items()))))
    return sorted({count for _, shares in found for count in shares}), found


def complexity_verdict(shares: Mapping[int, float], what: str = "objects") -> str:
    """Says plainly whether pictures with more objects (or detail) keep more tokens.

    A relation is claimed only where the rank correlation over the groups is 0.6 or more in size and the outermost
    groups differ by a point or more in that direction.

    Args:
        shares: number of objects (or quarter by detail) -> mean share of tokens kept, 0..1.
        what: "objects" or "detail".
    """
    if len(shares) < 3:
        return f"too few groups to say whether more {what} keeps more tokens".replace("objects keeps", "objects keep")
    (first, low), *_, (last, high) = sorted(shares.items())
    correlation = _rank_correlation(list(shares), list(shares.values()))
    ends = (f"{first}", f"{last}") if what == "objects" else ("the least", "the most")
    told = f"({percent(low)} with {ends[0]}, {percent(high)} with {ends[1]}, rank correlation {correlation:+.2f})"
    told = told.replace("-", "−")
    if correlation >= 0.6 and high - low >= 0.01:
        return f"pictures with more {what} keep more tokens {told}"
    if correlation <= -0.6 and low - high >= 0.01:
        return f"pictures with more {what} keep fewer tokens {told}"
    subject = "the number of objects" if what == "objects" else "detail"
    return f"{subject} makes no clear difference {told}"


def _rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-a: agreeing less disagreeing pairs over all pairs, -1..1; ties count for neither."""
    signs = [_sign(x[i] - x[j]) * _sign(y[i] - y[j]) for i in range(len(x)) for j in range(i)]
    return sum(signs) / len(signs)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
