"""Parts that every page of ours is made of: one file, no script, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from PIL import Image

from madtp.report.style import CSS
from madtp.report.view import Share, is_kept, patch_overlay

# Belt and braces for "nothing fetched": a browser refuses what this line does not allow.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_WHOLE_SIDE = 384  # pixels: an example's picture is shown no wider than half of this


def document(title: str, sections: Iterable[str]) -> str:
    """The whole page, its style in it; empty sections are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>madtp: {escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "".join(section for section in sections if section)
        + "</body>\n</html>\n"
    )


def head(title: str, about: Iterable[str], cards: Iterable[str] = ()) -> str:
    """What a page begins with: its title, a line about it, and its headline numbers (see `card`)."""
    shown = "".join(cards)
    return (
        f"<header>\n<h1>{escape(title)}</h1>\n<p class='soft'>{escape(', '.join(filter(None, about)))}</p>\n"
        + (f"<ul class='cards'>\n{shown}</ul>\n" if shown else "")
        + "</header>\n<main>\n"
    )


def card(label: str, first: str, others: Iterable[str] = ()) -> str:
    """One headline number, with what belongs to it."""
    rest = "".join(f"<span>{escape(part)}</span>" for part in others)
    return f"<li class='card'><span class='soft'>{escape(label)}</span><strong>{escape(first)}</strong>{rest}</li>\n"


def column(name: str, unit: str = "") -> str:
    """The head of a table's column."""
    return f'<th scope="col">{escape(name)}<small>{escape(unit)}</small></th>'


def plots(heading: str, drawn: Iterable[tuple[str | None, str]]) -> str:
    """SVG elements side by side, each with its caption; nothing where there is none."""
    shown = "".join(f"<figure>{svg}<figcaption>{escape(words)}</figcaption></figure>\n" for svg, words in drawn if svg)
    return f"<h2>{escape(heading)}</h2>\n<div class='plots'>\n{shown}</div>\n" if shown else ""


_SETTINGS = (
    "task", "data", "split", "n", "model", "method", "seed", "batch_size", "dtype", "device", "threads", "hardware",
    "versions",
)  # fmt: skip


def made(report: Mapping[str, Any], more: Iterable[tuple[str, Any]] = (), keys: Iterable[str] = ()) -> str:
    """What a page ends with: settings, hardware, versions and commit.

    Args:
        report: the numbers.
        more: further names and what they are.
        keys: of the report, beside those that every report may have.
    """
    every = [*_SETTINGS[:7], *keys, *_SETTINGS[7:], "commit"]
    known = [(key.replace("_", " "), report[key]) for key in every if report.get(key) is not None]
    return f"<h2>How it was measured</h2>\n{settings_table([*known, *more])}</main>\n"


def table_row(name: str, cells: Iterable[str]) -> str:
    """A row of a table, its first cell a head."""
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{values}</tr>\n'


def scroll_table(caption: str, head: str, body: Iterable[str]) -> str:
    """A table under its caption."""
    # A table wider than a phone scrolls in its own box; tabindex lets the keyboard reach that box.
    # The caption stands outside it, or it would be as wide as the table.
    return (
        f"<p class='soft'>{escape(caption)}</p>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>\n'
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody></table></div>\n"
    )


def block_figure(image: Image.Image, number: int, share: Share, note: str = "") -> str:
    """A picture after a block, counted from 1, with a note under it."""
    kept = f"{int(is_kept(share).sum())} of {share.size}"
    overlay = data_url(patch_overlay(image, share))
    alt = f"After block {number}: {kept} patches kept as themselves"
    caption = f"<figcaption>block {number}<br>{kept}{f'<br>{escape(note)}' if note else ''}</figcaption>"
    return f"<figure class='block'><img src='{overlay}' alt='{alt}'>{caption}</figure>\n"


def shrunk(image: Image.Image) -> Image.Image:
    """Small enough for a page."""
    image = image.convert("RGB")
    scale = _WHOLE_SIDE / max(image.size)
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.HAMMING)


def data_url(image: Image.Image) -> str:
    """PNG or JPEG, whichever is smaller: drawings are smaller as the first, photographs as the second."""
    encoded: list[tuple[str, bytes]] = []
    options: list[tuple[str, dict[str, Any]]] = [("png", {"optimize": True}), ("jpeg", {"quality": 88})]
    for form, option in options:
        buffer = io.BytesIO()
        image.save(buffer, form, **option)
        encoded.append((form, buffer.getvalue()))
    form, data = min(encoded, key=lambda one: len(one[1]))
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


def settings_table(known: Iterable[tuple[str, Any]]) -> str:
    """Names and what they are; nothing where there is nothing."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{_words(value)}</td></tr>\n' for name, value in known)
    return f"<div class='scroll'><table class='settings'><tbody>\n{body}</tbody></table></div>\n" if body else ""


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = (f"{escape(str(key).replace('_', ' '))}: {_words(of)}" for key, of in value.items() if of is not None)
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else escape(str(value))
