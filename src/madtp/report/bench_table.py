"""What `madtp bench` shows in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from madtp.report.table import amount

COLUMNS = ("work", "GFLOPs", "reduction", "ms", "speed-up", "of ideal", "peak MB")


def bench_table(result: Mapping[str, Any]) -> RenderableType:
    """The table, and under it the stock classes' times and how it was measured.

    Args:
        result: what `madtp bench --json` prints.
    """
    table = Table(title=f"{result['model']}, per example, memory a batch: dense → pruned")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if i else "left")
    for row in result["rows"]:
        gflops = row["gflops"]
        table.add_row(
            row["work"] if result["batch_size"] == [1] else f"{row['work']} x{row['batch']}",
            f"{amount(gflops['dense'])} → {amount(gflops['mean'])}",
            f"{row['reduction']:.3f}",
            f"{amount(row['dense_ms'])} → {amount(row['pruned_ms'])}",
            f"{row['speedup']:.2f}x",
            f"{100 * row['efficiency']:.0f}%",
            f"{row['peak_mb_dense']:.0f} → {row['peak_mb_pruned']:.0f}",
        )
    hardware, versions = result["hardware"], result["versions"]
    made = (
        f"{hardware['gpu'] if result['device'] == 'cuda' else hardware['cpu']}, {result['threads']} threads, "
        f"{result['dtype']}, torch {versions['torch']}, median of {result['pairs']} pairs, commit {result['commit']}"
    )
    stock = [
        f"{row['work']}: transformers' own class takes {amount(row['stock_ms'])} ms, "
        f"our dense form is {row['dense_over_stock']:.2f}x as fast"
        for row in result["rows"]
        if "stock_ms" in row
    ]
    return Group(table, *stock, made)
