"""The page of one example, dense and pruned, and the page of the examples that pruning cost most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from madtp.prune import METHODS
from madtp.report.draw_claims import claims_in_words, claims_of
from madtp.report.draw_kept import LEGEND, WORDS_LEGEND, answers, heaviest
from madtp.report.html import block_figure, data_url, document, scroll_table, settings_table, shrunk
from madtp.report.seen import Step, Tower, View
from madtp.report.sheet import Drawing

_WHAT = {
    "reasoning": "Statement",
    "vqa": "Question",
    "retrieval": "Caption",
    "caption": "Picture to be captioned",
}
_KNOBS = {"prune_share": "share pruned a block", "distance": "cosine distance merged"}  # others go by their name


def view_page(view: View, drawings: Sequence[Drawing], settings: Mapping[str, Any]) -> str:
    """The page of one example.

    Args:
        view: the example.
        drawings: of it; those called scores... and claims are shown.
        settings: versions and hardware.
    """
    by_name = {drawing.name: drawing for drawing in drawings}
    title = view.text or _WHAT[view.task]
    scores = "".join(_drawing(drawing) for name, drawing in by_name.items() if name.startswith("scores"))
    sections = [
        f"<header>\n<p class='soft'>{escape(_about(view))}</p>\n<h1>{escape(title)}</h1>\n{_answers(view)}"
        f"{_found(view)}</header>\n<main>\n",
        f"<h2>What survives</h2>\n<p class='soft legend'>{LEGEND}</p>\n",
        "".join(_picture(tower) for tower in view.pictures),
        _texts(view),
        _claims(view, by_name),
        f"<h2>By which scores</h2>\n{scores}" if scores else "",
        _made(view, settings),
    ]
    return document(title, sections)


def _about(view: View) -> str:
    return f"{_WHAT[view.task]}, dense and pruned by {view.method}, {view.model}"


def _answers(view: View) -> str:
    cards = []
    for name, answer, cost, mark in answers(view):
        kind = mark if mark in {"right", "wrong"} else "soft"
        sign = {"right": "✓ ", "wrong": "✗ "}.get(mark, "")
        marked = f"<span class='{kind}'>{sign}{escape(mark)}</span>" if mark else ""
        cards.append(
            f"<li class='card'><span class='soft'>{escape(name)}</span><strong>{escape(answer)}</strong>{marked}"
            f"<span>{escape(cost)}</span></li>\n"
        )
    knob = METHODS[view.method].knob
    temperature = f"{_KNOBS.get(knob, knob)} {view.temperature:.4g}"
    cards.append(
        f"<li class='card'><span class='soft'>measured</span><strong>{100 * view.reduction:.0f}% fewer GFLOPs</strong>"
        f"<span class='soft'>{escape(temperature)}: {escape(view.how)}</span></li>\n"
    )
    what = {"retrieval": "Right picture", "caption": "One of the true captions"}.get(view.task, "True answer")
    truth = f"<p>{what}: <b>{escape(view.truth)}</b></p>\n" if view.truth else ""
    return f"<ul class='cards'>\n{''.join(cards)}</ul>\n{truth}"


def _found(view: View) -> str:
    if not view.found:
        return ""
    figures = "".join(
        f"<figure><img class='whole' src='{data_url(shrunk(image))}' alt='{escape(what)}'>"
        f"<figcaption>{escape(what)}</figcaption></figure>\n"
        for what, image in view.found
    )
    return f"<div class='found'>\n{figures}</div>\n"


def _picture(tower: Tower) -> str:
    image = tower.image
    assert image is not None
    blocks = "".join(
        block_figure(image, number, step.share, heaviest(step)) for number, step in enumerate(tower.steps, 1)
    )
    whole = f"<img class='whole' src='{data_url(shrunk(image))}' alt='The {escape(tower.name)}, not pruned'>"
    return (
        f"<article class='example'>\n<div>{whole}<p class='soft'>{len(tower.steps[0].kept)} patches</p></div>\n"
        f"<div><h3>{escape(tower.name.capitalize())}</h3>\n"
        f"<div class='blocks large'>\n{blocks}</div></div>\n</article>\n"
    )


def _texts(view: View) -> str:
    if not view.texts:
        return ""
    tables = []
    for tower in view.texts:
        head = "".join(f'<th scope="col">{escape(word)}</th>' for word in tower.words)
        body = [_words_row(number, step) for number, step in enumerate(tower.steps, 1)]
        table = scroll_table(f"{tower.name.capitalize()}: what each block leaves of it", head, body)
        tables.append(table.replace("<table>", "<table class='words'>", 1))
    return f"<h2>Words</h2>\n<p class='soft legend'>{WORDS_LEGEND}</p>\n{''.join(tables)}"


def _words_row(number: int, step: Step) -> str:
    cells = "".join(
        "<td class='kept'>kept</td>" if kept else f"<td class='merged'>{100 * share:.0f}%</td>"
        for kept, share in zip(step.kept, step.share, strict=True)
    )
    return f'<tr><th scope="row">block {number}: {step.weights()}</th>{cells}</tr>\n'


def _claims(view: View, by_name: Mapping[str, Drawing]) -> str:
    if "claims" not in by_name:
        return ""
    items = "".join(f"<li>{escape(line)}</li>\n" for line in claims_in_words(claims_of(view)))
    return (
        "<h2>What the semantic tokens claim</h2>\n<p class='soft legend'>Semantic tokens are vectors that picture and "
        f"text share. Those that claim most of this example:</p>\n<ul>\n{items}</ul>\n{_drawing(by_name['claims'])}"
    )


def _drawing(drawing: Drawing) -> str:
    return f"<figure class='wide' tabindex='0'>{drawing.inline}</figure>\n"


def _made(view: View, settings: Mapping[str, Any]) -> str:
    known: list[tuple[str, Any]] = [
        ("model", view.model),
        ("task", view.task),
        ("method", view.method),
        ("temperature", view.temperature),
        ("from", view.how),
        ("dense model", view.reference or "the same weights, without pruning"),
        ("GFLOPs dense", view.gflops_dense),
        ("GFLOPs pruned", view.gflops),
        ("reduction", view.reduction),
    ]
    known += [(name, of) for name, of in settings.items() if of is not None]
    note = (
        "<p class='soft legend'>GFLOPs are multiply-accumulates / 10⁹, counted from what ran; dense is the same inputs "
        "and the same decoding without pruning.</p>\n"
    )
    return f"<h2>How it was made</h2>\n{note}{settings_table(known)}</main>\n"


def worst_page(title: str, words: Sequence[str], views: Sequence[tuple[str, View]], settings: Mapping[str, Any]) -> str:
    """The page of several examples, each with a link to its own.

    Args:
        title: of the page.
        words: paragraphs on top.
        views: link and example, the worst first.
        settings: of the run, versions and hardware.
    """
    told = "".join(f"<p>{escape(line)}</p>\n" for line in words)
    examples = "".join(_one(number, link, view) for number, (link, view) in enumerate(views, 1))
    known = [(name, of) for name, of in settings.items() if of is not None]
    return document(
        title,
        [
            f"<header>\n<h1>{escape(title)}</h1>\n{told}</header>\n<main>\n",
            f"<p class='soft legend'>{LEGEND}</p>\n" if views else "",
            examples,
            f"<h2>How it was made</h2>\n{settings_table(known)}</main>\n",
        ],
    )


def _one(number: int, link: str, view: View) -> str:
    pictures = "".join(_picture(tower) for tower in view.pictures)
    title = view.text or view.truth or _WHAT[view.task]
    return (
        f"<section>\n<h2>{number}. {escape(title)}</h2>\n{_answers(view)}{_found(view)}"
        f"<p><a href='{escape(link)}'>Scores, words and semantic tokens of this example</a></p>\n{pictures}</section>\n"
    )
