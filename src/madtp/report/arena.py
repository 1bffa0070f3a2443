"""The table of a comparison: a row each for a method at a budget, over its seeds; for a terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from madtp.report.table import MISSING, NO_SHARE, amount, metric_names, number, percent, score, times

if TYPE_CHECKING:
    from rich.table import Table

# Means over seeds: name in the table -> where a row has it.
_MEANS = {
    "gflops": ("gflops", "mean"),
    "reduction": ("gflops", "reduction"),
    "kept_fraction": ("tokens", "kept_fraction"),
    "ms_per_image": ("ms_per_image",),
    "speedup": ("speedup",),
    "train_seconds": ("train_seconds",),
}
COLUMNS = (
    "method", "trained", "reduction_asked", "seeds", "seeds_asked", "metric", "quality", "spread", *_MEANS, "short",
    "failed",
)  # fmt: skip
SHORT = 0.01  # of a reduction: what a row may save less than asked for and still be compared


def arena_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each method, budget and way (trained or not), in the order of their first rows.

    `quality` is the mean of the task's main metric, `spread` its sample standard deviation (None of one seed), `seeds`
    how many rows have it, of `seeds_asked`; `short`: it saves less than was asked for, by more than `SHORT`; `failed`
    is what a row says that could not be made.
    """
    metric = next(iter(metric_names({"rows": list(rows)})), None)
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["trained"], row["reduction_asked"]), []).append(row)
    table = []
    for (method, trained, asked), some in groups.items():
        known = [value for row in some if (value := number((row.get("metrics") or {}).get(metric))) is not None]
        line = {
            "method": method,
            "trained": trained,
            "reduction_asked": asked,
            "seeds": len(known),
            "seeds_asked": len(some),
            "metric": metric,
            "quality": mean(known) if known else None,
            "spread": stdev(known) if len(known) > 1 else None,
        }
        for name, path in _MEANS.items():
            values = [value for row in some if (value := _at(row, path)) is not None]
            line[name] = mean(values) if values else None
        line["short"] = line["reduction"] is not None and line["reduction"] < asked - SHORT
        table.append({**line, "failed": next((row["failed"] for row in some if "failed" in row), None)})
    return table


def _at(row: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = row
    for key in path:
        value = (value or {}).get(key)
    return number(value)


def arena_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """The table with all its digits; nothing stands where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def arena_rich(table: Sequence[Mapping[str, Any]]) -> Table:
    """The table for a terminal; of 80 columns the names of methods may take two lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    metric = str(next((line["metric"] for line in table), None) or "quality")
    said = "* saves less than asked for" if any(line["short"] for line in table) else None
    shown = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, caption=said)
    shown.add_column("method", overflow="fold")
    shown.add_column("budget", no_wrap=True)
    main = metric if metric in NO_SHARE else f"{metric} %"
    for name in (main, "GFLOPs", "saved", "tokens", "ms", "speed", "train s"):
        shown.add_column(name, justify="right", no_wrap=True)
    before = None
    for line in table:
        if before not in (None, (line["trained"], line["reduction_asked"])):
            shown.add_section()
        before = (line["trained"], line["reduction_asked"])
        quality = score(metric, line["quality"], 2).removesuffix("%")
        if line["spread"] is not None:
            quality += f" ± {score(metric, line['spread'], 2).removesuffix('%')}"
        if 0 < line["seeds"] < line["seeds_asked"]:
            quality += f" ({line['seeds']} of {line['seeds_asked']})"
        cells = [
            line["method"],
            f"{line['reduction_asked']:g}" + (" trained" if line["trained"] else ""),
            "not met" if line["failed"] and line["quality"] is None else quality,
            amount(line["gflops"]),
            MISSING if line["reduction"] is None else f"{line['reduction']:.3f}" + "*" * line["short"],
            percent(line["kept_fraction"]),
            amount(line["ms_per_image"]),
            times(line["speedup"]),
            MISSING if line["train_seconds"] is None else f"{line['train_seconds']:.0f}",
        ]
        shown.add_row(*map(Text, cells))
    return shown
