"""The page of `madtp bench`: time beside GFLOPs, in the look of all reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from madtp.files import atomic_write, write_json
from madtp.report.html import card, column, document, head, made, plots, scroll_table, table_row
from madtp.report.plot import FAINT, TEXT, colour, marker, new_figure, page_svg, tokens_plot
from madtp.report.table import amount, percent, speed, times

Row = Mapping[str, Any]
NOISE = (
    "These are tokens of noise. What pruning costs in quality, what pictures keep by what is in them, and the hardest "
    "examples are in the reports of madtp evaluate and madtp compare."
)


def bench_page(result: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        result: what `madtp bench --json` prints.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows: Sequence[Row] = result["rows"]
    sizes = " and ".join(map(str, result["batch_size"]))
    title = f"Time of {result['model']}: {result['task']}, batch size {sizes}"
    about = [f"{result['parameters'] / 1e6:.1f} million parameters", f"{result['text_tokens']} text tokens"]
    drawn = [
        (_plot(rows), "Speed-up over dense against reduction; dashed: if time went with GFLOPs."),
        (_tokens(rows), "Tokens left after each block of the image tower, mean over the batch."),
    ]
    return document(
        title,
        [
            head(title, about, map(_card, rows)),
            _table(rows),
            plots("What it gains, and what is left", drawn),
            f"<p class='soft'>{NOISE}</p>\n",
            made(result, keys=("semantic_tokens", "parameters", "text_tokens", "pairs", "beams")),
        ],
    )


def write_bench(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `report.json` and `report.html`. Raises InputError where the folder cannot be written."""
    write_json(folder / "report.json", result)
    atomic_write(folder / "report.html", bench_page(result))


def _name(row: Row) -> str:
    asked = row["reduction_asked"]
    return f"{_work(row)}, {'its own temperature' if asked is None else format(asked, 'g')}"


def _work(row: Row) -> str:
    return f"{row['work']} x{row['batch']}"


def _card(row: Row) -> str:
    said = f"{percent(row['reduction'], 0)} fewer GFLOPs", f"{percent(row['efficiency'], 0)} of what they promise"
    asked = row["reduction_asked"]
    name = _name(row) if asked is None else f"{_work(row)}, reduction {asked:g}"
    return card(name, speed(row["speedup"]), said)


def _table(rows: Sequence[Row]) -> str:
    columns = [("GFLOPs", "dense"), ("GFLOPs", "pruned"), ("reduction", "measured"), ("time", "ms dense")]
    columns += [("time", "ms pruned"), ("speed-up", "over dense"), ("ideal", "by GFLOPs"), ("reached", "of ideal")]
    columns += [("peak MB", "dense"), ("peak MB", "pruned")]
    stock = any("stock_ms" in row for row in rows)
    columns += [("time", "ms stock class"), ("our dense", "over stock")] if stock else []
    body = []
    for row in rows:
        cells = [amount(row["gflops"]["dense"]), amount(row["gflops"]["mean"]), percent(row["reduction"])]
        cells += [amount(row["dense_ms"]), amount(row["pruned_ms"]), times(row["speedup"]), times(row["ideal"])]
        cells += [percent(row["efficiency"], 0), amount(row["peak_mb_dense"]), amount(row["peak_mb_pruned"])]
        cells += [amount(row.get("stock_ms")), times(row.get("dense_over_stock"))] if stock else []
        body.append(table_row(_name(row), cells))
    caption = (
        "A row: what was timed, examples a batch, reduction asked for. Per example, memory a batch; dense (SDPA) and "
        "pruned in turn, medians. Pictures are noise, words random."
    )
    return f"<h2>Results</h2>\n{scroll_table(caption, ''.join(column(*of) for of in columns), body)}"


def _tokens(rows: Sequence[Row]) -> str | None:
    """Tokens a block, a line a batch size and budget."""
    return tokens_plot(
        {
            "rows": [
                {"label": _name(row).removeprefix("towers "), "tokens": {"per_block": row["tokens_per_block"]}}
                for row in rows
                if row["work"] == "towers"
            ]
        }
    )


def _plot(rows: Sequence[Row]) -> str:
    figure, axes = new_figure()
    most = min(0.95, max([0.5, *(row["reduction"] for row in rows)]) + 0.05)
    way = [most * i / 40 for i in range(41)]
    axes.plot(way, [1 / (1 - x) for x in way], color=FAINT, linestyle="--", linewidth=1.2)
    for index, work in enumerate(dict.fromkeys(_work(row) for row in rows)):
        some = sorted((row["reduction"], row["speedup"]) for row in rows if _work(row) == work)
        axes.plot(
            *zip((0.0, 1.0), *some, strict=True),
            color=colour(index + 1),
            marker=marker(index + 1),
            linewidth=1.6,
            label=work,
        )
    axes.set_xlim(0, most)
    axes.set_ylim(0)
    axes.set_xlabel("reduction of the GFLOPs", color=TEXT)
    axes.set_ylabel("speed-up over dense", color=TEXT)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=TEXT)
    told = "; ".join(f"{_name(row)}: {row['speedup']:.2f} at {row['reduction']:.2f}" for row in rows)
    return page_svg(figure, f"Speed-up over dense against reduction. {told}.")
