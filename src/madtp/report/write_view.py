"""Writing what there is to see of one example: pictures as PNG and SVG, and one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from madtp.files import atomic_write
from madtp.report.draw_claims import draw_claims
from madtp.report.draw_kept import draw_kept
from madtp.report.draw_scores import draw_scores
from madtp.report.seen import View
from madtp.report.view_page import view_page


def write_view(folder: str | Path, view: View, settings: Mapping[str, Any]) -> list[str]:
    """Write `view.html`, and `kept`, `scores...` and `claims` each as `.png` and `.svg`; returns the files' names.

    Raises:
        InputError: the folder cannot be written.
        ImportError: matplotlib is not installed; see `check_plots`.
    """
    folder = Path(folder)
    claims = draw_claims(view)
    drawings = [draw_kept(view), *draw_scores(view), *([claims] if claims else [])]
    written = []
    for drawing in drawings:
        for ending, content in (("png", drawing.png), ("svg", drawing.svg)):
            atomic_write(folder / f"{drawing.name}.{ending}", content)
            written.append(f"{drawing.name}.{ending}")
    atomic_write(folder / "view.html", view_page(view, drawings, settings))
    return ["view.html", *written]
