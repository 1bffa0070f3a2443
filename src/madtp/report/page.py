"""The HTML page of a report: one file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from madtp.metric import exact_match
from madtp.report.html import block_figure, data_url, document, scroll_table, settings_table, shrunk, table_row
from madtp.report.plot import quality_plot, tokens_plot
from madtp.report.table import (
    Figures,
    Report,
    amount,
    by_objects,
    figures,
    headline,
    metric_names,
    objects_verdict,
    percent,
    points,
    rows_of,
    score,
    times,
)
from madtp.report.view import is_kept

if TYPE_CHECKING:
    from madtp.report.report import Example, ExampleRow


def html_page(report: Report, examples: Sequence[Example] = ()) -> str:
    """The whole page.

    Raises:
        ImportError: matplotlib is not installed.
    """
    title = _title(report)
    sections = [
        _head(report, title),
        _table(report),
        _plots(report),
        _objects(report),
        _examples(examples),
        _settings(report),
    ]
    return document(title, sections)


def _title(report: Report) -> str:
    """``vqa on scenes (test split)``, as far as it is known."""
    forms = {"task": "{}", "data": "on {}", "split": "({} split)"}
    return " ".join(form.format(report[key]) for key, form in forms.items() if report.get(key)) or "Report"


def _head(report: Report, title: str) -> str:
    count = f"{report['n']} {report.get('texts') or 'instances'}" if report.get("n") else ""
    about = ", ".join(escape(str(part)) for part in (report.get("model"), count) if part)
    cards = "".join(_card(row) for row in figures(report) if not row.dense)
    return (
        f"<header>\n<h1>{escape(title)}</h1>\n<p class='soft'>{about}</p>\n"
        + (f"<ul class='cards'>\n{cards}</ul>\n" if cards else "")
        + "</header>\n<main>\n"
    )


def _card(row: Figures) -> str:
    first, *others = headline(row) or ["not measured"]
    rest = "".join(f"<span>{escape(part)}</span>" for part in others)
    return (
        f"<li class='card'><span class='soft'>{escape(row.label)}</span><strong>{escape(first)}</strong>{rest}</li>\n"
    )


def _table(report: Report) -> str:
    names = metric_names(report)
    columns = [(name.replace("_", " "), "") for name in names[:1]]
    columns += [("change", "points")] if names else []
    columns += [(name.replace("_", " "), "") for name in names[1:]]
    columns += [("GFLOPs", "mean"), ("GFLOPs", "p50"), ("GFLOPs", "p95"), ("reduction", "measured")]
    columns += [("tokens kept", ""), ("time", "ms/image"), ("speed-up", "over dense")]
    head = "".join(map(_column, columns))
    body = []
    for row in figures(report):
        qualities = [score(name, value) for name, value in row.metrics.items()]
        cells = [*qualities[:1], *([points(row.drop)] if names else []), *qualities[1:]]
        cells += [amount(row.gflops), amount(row.p50), amount(row.p95), percent(row.reduction), percent(row.kept)]
        cells += [amount(row.milliseconds), times(row.speedup)]
        body.append(table_row(row.label, cells))
    caption = "GFLOPs are multiply-accumulates / 10⁹ an instance, measured. The row's name is the reduction asked for."
    return f"<h2>Results</h2>\n{scroll_table(caption, head, body)}"


def _column(column: tuple[str, str]) -> str:
    name, unit = map(escape, column)
    return f'<th scope="col">{name}<small>{unit}</small></th>'


def _plots(report: Report) -> str:
    quality, tokens = quality_plot(report), tokens_plot(report)
    plots = [(quality, "Quality against measured cost."), (tokens, "Tokens left after each block of the image tower.")]
    drawn = "".join(f"<figure>{svg}<figcaption>{words}</figcaption></figure>\n" for svg, words in plots if svg)
    return f"<h2>Cost and quality</h2>\n<div class='plots'>\n{drawn}</div>\n" if drawn else ""


def _objects(report: Report) -> str:
    counts, rows = by_objects(report)
    if not rows:
        return ""
    said = "".join(f"<p>{escape(row.label.capitalize())}: {escape(objects_verdict(of))}.</p>\n" for row, of in rows)
    head = "".join(f'<th scope="col">{count}</th>' for count in counts)
    body = [table_row(row.label, [percent(of.get(count)) for count in counts]) for row, of in rows]
    table = scroll_table("Share of image tokens kept, by number of objects in the picture.", head, body)
    return f"<h2>Do pictures with more objects keep more tokens?</h2>\n{said}{table}"


def _examples(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    legend = (
        "Each strip shows the picture after every block of the image tower. Clear patches inside the orange line are "
        "kept as themselves. Hatched patches were merged into one token; the darker, the less weight they carry in it "
        "(within one picture)."
    )
    shown = "".join(map(_example, examples))
    return f"<h2>What survives</h2>\n<p class='soft'>{legend}</p>\n{shown}"


def _example(example: Example) -> str:
    alt = escape(f"Picture for: {example.question}" if example.question else "Picture")
    rows = "".join(_example_row(example, row) for row in example.rows)
    truth = f"<p>True answer: <b>{escape(example.answer)}</b></p>\n" if example.answer else ""
    whole = f"<img class='whole' src='{data_url(shrunk(example.image))}' alt='{alt}'>"
    return (
        f"<article class='example'>\n<div>{whole}</div>\n"
        f"<div><h3>{escape(example.question)}</h3>\n{truth}{rows}</div>\n"
        "</article>\n"
    )


def _example_row(example: Example, row: ExampleRow) -> str:
    name = "dense" if row.name == "dense" else f"reduction {row.name}"
    right = exact_match(row.prediction, example.answer)
    mark = "<span class='right'>✓ right</span>" if right else "<span class='wrong'>✗ wrong</span>"
    mark = mark if example.judged and example.answer else ""
    head = f"<p><b>{escape(name)}</b>: {escape(row.prediction)} {mark}</p>\n"
    if not row.blocks:
        strip = ""
    elif all(bool(is_kept(share).all()) for share in row.blocks):
        strip = f"<p class='soft'>All {row.blocks[0].size} patches are kept in every block.</p>\n"
    else:
        blocks = "".join(block_figure(example.image, number, share) for number, share in enumerate(row.blocks, 1))
        strip = f"<div class='blocks'>\n{blocks}</div>\n"
    return f"<div class='row'>{head}{strip}</div>\n"


_SETTINGS = ("task", "data", "split", "n", "model", "seed", "batch_size", "dtype", "device", "hardware", "versions")


def _settings(report: Report) -> str:
    keys = [*_SETTINGS, "commit"]
    known = [(key.replace("_", " "), report[key]) for key in keys if report.get(key) is not None]
    temperatures = {
        f"reduction {row.get('name') or '?'}": row["temperature"]
        for row in rows_of(report)
        if row.get("temperature") is not None
    }
    known += [("temperature", temperatures)] if temperatures else []
    return f"<h2>How it was measured</h2>\n{settings_table(known)}</main>\n"
