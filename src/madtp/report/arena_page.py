"""The page of a comparison: every method at the same budgets, in the look of all reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from madtp.report.arena import SHORT
from madtp.report.arena_plot import AXES, WAYS, arena_figures
from madtp.report.html import card, column, document, head, made, plots, scroll_table, table_row
from madtp.report.page import STRIPS, complexity, shown_examples, title_of
from madtp.report.plot import tokens_plot
from madtp.report.table import MISSING, amount, left_out, percent, points, score, speed, times

if TYPE_CHECKING:
    from madtp.report.report import Example

Line = Mapping[str, Any]
DENSE = "dense"


def arena_page(result: Mapping[str, Any], hardest: Sequence[Example] = ()) -> str:
    """The whole page.

    Args:
        result: what `madtp compare --json` prints.
        hardest: examples that were answered worst, with what each method makes of them.

    Raises:
        ImportError: matplotlib is not installed.
    """
    table: list[Line] = result["table"]
    about = [
        str(result.get("model") or ""),
        f"{result['n']} texts",
        _seeds(table),
        left_out(result.get("skipped") or {}),
    ]
    drawn = [figure for against in AXES for figure in arena_figures(table, against)]
    keys = ("limit", "epochs", "lr", "texts", "alpha", "straight_through", "semantic_tokens", "first_block", "tune")
    title = f"Methods compared: {title_of(result)}"
    return document(
        title,
        [
            head(title, about, _cards(table)),
            _table(table),
            plots("Cost and quality", drawn),
            _tokens(result["rows"]),
            shown_examples("The hardest examples", f"{_of_hardest(result['rows'])} {STRIPS}", hardest),
            made(result, keys=(*keys, "val_images", "prompt", "beams", "pairs")),
        ],
    )


def _seeds(table: Sequence[Line]) -> str:
    most = max((line["seeds"] for line in table), default=0)
    return f"means over up to {most} seeds" if most > 1 else "one seed"


def _dense(table: Sequence[Line], trained: bool) -> Line | None:
    return next((line for line in table if line["method"] == DENSE and line["trained"] == trained), None)


def _settings_of(table: Sequence[Line]) -> list[tuple[bool, float]]:
    """Way and budget of the pruned lines, each once, in their order."""
    return list(dict.fromkeys((line["trained"], line["reduction_asked"]) for line in table if line["method"] != DENSE))


def _cards(table: Sequence[Line]) -> list[str]:
    """The best method of each budget and way that meets it, against the dense model of that way."""
    cards = []
    for trained, asked in _settings_of(table):
        some = [line for line in table if (line["trained"], line["reduction_asked"]) == (trained, asked)]
        known = [line for line in some if line["quality"] is not None and not line["short"]]
        if not known:
            continue
        best = max(known, key=lambda line: line["quality"])
        said = [f"{best['metric']} {score(best['metric'], best['quality'])}"]
        if (drop := _drop(best, _dense(table, trained))) is not None:
            said.append(f"{points(drop)} points against dense")
        if best["speedup"] is not None:
            said.append(speed(best["speedup"]))
        cards.append(card(f"best at a reduction of {asked:g}, {WAYS[trained]}", best["method"], said))
    return cards


def _drop(line: Line, dense: Line | None) -> float | None:
    if dense is None or line["quality"] is None or dense["quality"] is None:
        return None
    return 100 * (line["quality"] - dense["quality"])


def _table(table: Sequence[Line]) -> str:
    metric = next((line["metric"] for line in table if line["metric"]), "quality")
    trained = any(line["trained"] for line in table)  # else there is nothing to say of it
    columns = [
        ("budget", "asked for"),
        *([("", "way")] if trained else []),
        (metric.replace("_", " "), "mean ± spread"),
    ]
    columns += [("change", "points"), ("GFLOPs", "mean"), ("reduction", "measured"), ("tokens kept", "")]
    columns += [("time", "ms/image"), ("speed-up", "over dense"), *([("training", "seconds")] if trained else [])]
    columns += [("seeds", "")]
    body = [table_row(line["method"], _cells(metric, line, _dense(table, line["trained"]), trained)) for line in table]
    caption = (
        "Every method at the same measured GFLOPs: multiply-accumulates / 10⁹ an instance. The speed-up is over dense "
        "in the same minutes; milliseconds drift with the machine."
    )
    if any(line["short"] for line in table):
        caption += f" * saves less than was asked for, by more than {SHORT:g}, and is not compared."
    return f"<h2>Results</h2>\n{scroll_table(caption, ''.join(column(*of) for of in columns), body)}"


def _cells(metric: str, line: Line, dense: Line | None, trained: bool) -> list[str]:
    quality = score(metric, line["quality"], 2)
    if line["spread"] is not None:
        quality += f" ± {score(metric, line['spread'], 2).removesuffix('%')}"
    seconds = line["train_seconds"]
    return [
        f"{line['reduction_asked']:g}",
        *(["trained" if line["trained"] else "as it is"] if trained else []),
        "not met" if line["failed"] and line["quality"] is None else quality,
        MISSING if line is dense else points(_drop(line, dense)),
        amount(line["gflops"]),
        percent(line["reduction"]) + "*" * line["short"],
        percent(line["kept_fraction"]),
        amount(line["ms_per_image"]),
        times(line["speedup"]),
        *([MISSING if seconds is None else f"{seconds:.0f}"] if trained else []),
        f"{line['seeds']}" if line["seeds"] == line["seeds_asked"] else f"{line['seeds']} of {line['seeds_asked']}",
    ]


def looked_at(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows whose tokens are shown: of the first seed, trained where there are any."""
    trained = any(row["trained"] for row in rows)
    return [row for row in rows if row["seed"] == 0 and row["trained"] == trained and "failed" not in row]


def pictured(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of `looked_at`, those that are shown on examples: dense, and every method at the largest budget."""
    some = looked_at(rows)
    most = max((row["reduction_asked"] for row in some), default=0)
    return [row for row in some if row["method"] == DENSE or row["reduction_asked"] == most]


def _of_hardest(rows: Sequence[Mapping[str, Any]]) -> str:
    some = pictured(rows)
    most, way = max((row["reduction_asked"] for row in some), default=0), WAYS[any(row["trained"] for row in some)]
    return f"Those with the lowest marks in all, over what is shown: every method at a reduction of {most:g}, {way}."


def _tokens(rows: Sequence[Mapping[str, Any]]) -> str:
    """Tokens a block, a plot a budget, and by what there is in a picture."""
    told = []
    drawn: list[tuple[str | None, str]] = []
    first, methods = looked_at(rows), list(dict.fromkeys(row["method"] for row in rows))
    trained = any(row["trained"] for row in first)
    for asked in dict.fromkeys(row["reduction_asked"] for row in first if row["method"] != DENSE):
        some = [
            {**row, "name": row["method"], "label": row["method"], "series": methods.index(row["method"])}
            for row in first
            if row["reduction_asked"] == asked
        ]
        words = f"Tokens left after each block of the image tower at a reduction of {asked:g}, {WAYS[trained]}, seed 0."
        drawn.append((tokens_plot({"rows": some}), words))
        told += [{**row, "name": f"{row['method']} {asked:g}", "label": f"{row['method']}, {asked:g}"} for row in some]
    return plots("Tokens", drawn) + complexity({"rows": told}, verdicts=False)
