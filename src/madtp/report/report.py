"""Writing a report: `report.json` (the numbers) and `report.html` (the same for a reader, with pictures)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from madtp.files import atomic_write
from madtp.report.page import html_page
from madtp.report.plot import check_plots
from madtp.report.view import Share

SCHEMA = 1


@dataclass(frozen=True)
class ExampleRow:
    """What one model did with an example.

    Attributes:
        name: the row's name in the report: `dense` or the reduction.
        prediction: the model's answer.
        blocks: per vision block ``[n_patches]``, row by row, in 0..1: 1 = kept as itself, less = merged into another
            token in which it carries this weight.
        title: what to call the row; "" = by its name.
    """

    name: str
    prediction: str
    blocks: tuple[Share, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Example:
    """One picture of the page, with its text, its true answer and what each row made of it.

    `judged`: an answer is right only where it equals the true one; False = it cannot be said so simply (captions).
    """

    image: Image.Image
    question: str
    answer: str
    rows: tuple[ExampleRow, ...] = ()
    judged: bool = True


def write_report(
    folder: str | Path, report: Mapping[str, Any], examples: Sequence[Example] = (), hardest: Sequence[Example] = ()
) -> None:
    """Write ``folder/report.json``, then ``folder/report.html``, each whole or not at all.

    Args:
        folder: made if it is not there.
        report: the numbers; ``schema`` is added where it is missing. Numbers that are not finite are written as null.
        examples: pictures for the page.
        hardest: those that were answered worst, for the page.

    Raises:
        InputError: the folder cannot be written, or matplotlib is missing; in the second case report.json is written.
    """
    folder = Path(folder)
    plain = _plain({"schema": SCHEMA, **report})
    atomic_write(folder / "report.json", json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    check_plots()
    atomic_write(folder / "report.html", html_page(plain, examples, hardest))


def _plain(value: Any) -> Any:
    """``value`` in JSON's own types: numbers of NumPy and torch unwrapped, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(of) for of in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
