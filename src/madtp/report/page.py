"""The HTML page of a report: one file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from madtp.metric import exact_match
from madtp.report.html import (
    block_figure,
    card,
    column,
    data_url,
    document,
    head,
    made,
    plots,
    scroll_table,
    shrunk,
    table_row,
)
from madtp.report.plot import quality_plot, tokens_plot
from madtp.report.table import (
    Figures,
    Report,
    amount,
    by_group,
    complexity_verdict,
    figures,
    headline,
    left_out,
    metric_names,
    percent,
    points,
    rows_of,
    score,
    times,
)
from madtp.report.training_plot import training_plots
from madtp.report.view import is_kept

if TYPE_CHECKING:
    from madtp.report.report import Example, ExampleRow

STRIPS = (
    "Each strip shows the picture after every block of the image tower. Clear patches inside the orange line are "
    "kept as themselves. Hatched patches were merged; the darker, the less weight they carry in the merged token "
    "(within one picture)."
)


def html_page(report: Report, examples: Sequence[Example] = (), hardest: Sequence[Example] = ()) -> str:
    """The whole page.

    Args:
        report: the numbers.
        examples: some pictures.
        hardest: those that were answered worst.

    Raises:
        ImportError: matplotlib is not installed.
    """
    title = title_of(report)
    sections = [
        _head(report, title),
        _table(report),
        quality_plots(report),
        plots("Training", training_plots(report.get("log") or ())),
        complexity(report),
        shown_examples("What survives", STRIPS, examples),
        shown_examples("The hardest examples", "" if examples else STRIPS, hardest),
        _made(report),
    ]
    return document(title, sections)


def title_of(report: Report) -> str:
    """``vqa on scenes (test split)``, as far as it is known."""
    forms = {"task": "{}", "data": "on {}", "split": "({} split)"}
    return " ".join(form.format(report[key]) for key, form in forms.items() if report.get(key)) or "Report"


def _head(report: Report, title: str) -> str:
    count = f"{report['n']} {report.get('texts') or 'instances'}" if report.get("n") else ""
    skipped = left_out(next((of["skipped"] for of in (report, *rows_of(report)) if of.get("skipped")), {}))
    about = [str(part) for part in (report.get("model"), count, skipped) if part]
    rows = figures(report)
    pruned = [row for row in rows if not row.dense]
    return head(title, about, map(_card, pruned or rows))


def _card(row: Figures) -> str:
    quality = [f"{name.replace('_', ' ')} {score(name, row.quality)}" for name in list(row.metrics)[:1]]
    if row.dense:
        cost = [] if row.gflops is None else [f"{amount(row.gflops)} GFLOPs"]
        said = [*quality, *cost, *([] if row.milliseconds is None else [f"{amount(row.milliseconds)} ms an image"])]
    else:
        said = [*headline(row), *quality]
    first, *others = said or ["not measured"]
    return card(row.label, first, others)


def _table(report: Report) -> str:
    names, rows = metric_names(report), figures(report)
    against = any(row.drop is not None and not row.dense for row in rows)  # there is a dense row to compare with
    columns = [(name.replace("_", " "), "") for name in names[:1]]
    columns += [("change", "points")] if against else []
    columns += [(name.replace("_", " "), "") for name in names[1:]]
    columns += [("GFLOPs", "mean"), ("GFLOPs", "p50"), ("GFLOPs", "p95"), ("reduction", "measured")]
    columns += [("tokens kept", ""), ("time", "ms/image"), ("speed-up", "over dense")]
    body = []
    for row in rows:
        qualities = [score(name, value) for name, value in row.metrics.items()]
        cells = [*qualities[:1], *([points(row.drop)] if against else []), *qualities[1:]]
        cells += [amount(row.gflops), amount(row.p50), amount(row.p95), percent(row.reduction), percent(row.kept)]
        cells += [amount(row.milliseconds), times(row.speedup)]
        body.append(table_row(row.label, cells))
    caption = "GFLOPs are multiply-accumulates / 10⁹ an instance, measured. The row's name is the reduction asked for."
    return f"<h2>Results</h2>\n{scroll_table(caption, ''.join(column(*of) for of in columns), body)}"


def quality_plots(report: Report) -> str:
    """Quality against GFLOPs and against time, and the tokens that each block leaves."""
    drawn = [
        (quality_plot(report), "Quality against measured cost."),
        (quality_plot(report, "time"), "Quality against time, each row's measured in turn with dense."),
        (tokens_plot(report), "Tokens left after each block of the image tower."),
    ]
    return plots("Cost and quality", drawn)


def complexity(report: Report, verdicts: bool = True) -> str:
    """Tokens kept by how much there is in a picture: objects, where the data knows them, and detail.

    Args:
        report: the report.
        verdicts: say of every row in words whether richer pictures keep more.
    """
    objects = "Share of image tokens kept, by number of objects in the picture."
    parts = [
        _groups(report, "by_objects", "objects", objects, verdicts),
        _groups(
            report,
            "by_detail",
            "detail",
            "Share of image tokens kept, by quarter of the pictures: from those with the least detail (mean difference "
            "of neighbouring pixels) to those with the most.",
            verdicts,
        ),
    ]
    told = "".join(parts)
    return f"<h2>Do richer pictures keep more tokens?</h2>\n{told}" if told else ""


_QUARTERS = {1: "least", 2: "second", 3: "third", 4: "most"}


def _groups(report: Report, key: str, what: str, caption: str, verdicts: bool) -> str:
    counts, rows = by_group(report, key)
    if not rows:
        return ""
    said = "".join(f"<p>{escape(_upper(row.label))}: {escape(complexity_verdict(of, what))}.</p>\n" for row, of in rows)
    said = said if verdicts else ""
    names = [str(count) if what == "objects" else _QUARTERS.get(count, str(count)) for count in counts]
    body = [table_row(row.label, [percent(of.get(count)) for count in counts]) for row, of in rows]
    return said + scroll_table(caption, "".join(column(name) for name in names), body)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def shown_examples(heading: str, legend: str, examples: Sequence[Example]) -> str:
    """Pictures with what each model says and keeps, under a heading and words on how to read them."""
    shown = "".join(map(_example, examples))
    words = f"<p class='soft'>{escape(legend)}</p>\n" if legend else ""
    return f"<h2>{heading}</h2>\n{words}{shown}" if shown else ""


def _example(example: Example) -> str:
    alt = escape(f"Picture for: {example.question}" if example.question else "Picture")
    rows = "".join(_example_row(example, row) for row in example.rows)
    truth = f"<p>True answer: <b>{escape(example.answer)}</b></p>\n" if example.answer else ""
    whole = f"<img class='whole' src='{data_url(shrunk(example.image))}' alt='{alt}'>"
    return (
        f"<article class='example'>\n<div>{whole}</div>\n"
        f"<div>{f'<h3>{escape(example.question)}</h3>' if example.question else ''}\n{truth}{rows}</div>\n"
        "</article>\n"
    )


def _example_row(example: Example, row: ExampleRow) -> str:
    name = row.title or ("dense" if row.name == "dense" else f"reduction {row.name}")
    right = exact_match(row.prediction, example.answer)
    mark = "<span class='right'>✓ right</span>" if right else "<span class='wrong'>✗ wrong</span>"
    mark = mark if example.judged and example.answer else ""
    line = f"<p><b>{escape(name)}</b>: {escape(row.prediction)} {mark}</p>\n"
    if not row.blocks:
        strip = ""
    elif all(bool(is_kept(share).all()) for share in row.blocks):
        strip = f"<p class='soft'>All {row.blocks[0].size} patches are kept in every block.</p>\n"
    else:
        blocks = "".join(block_figure(example.image, number, share) for number, share in enumerate(row.blocks, 1))
        strip = f"<div class='blocks'>\n{blocks}</div>\n"
    return f"<div class='row'>{line}{strip}</div>\n"


def _made(report: Report) -> str:
    temperatures = {
        f"reduction {row.get('name') or '?'}": row["temperature"]
        for row in rows_of(report)
        if row.get("temperature") is not None
    }
    more = [("temperature", temperatures)] if temperatures else []
    return made(report, more, ["timed", "config", "source"])
