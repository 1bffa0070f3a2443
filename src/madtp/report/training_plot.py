"""How a training went: loss, quality on validation, and the reduction it was steered to; from its log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from madtp.report.plot import FAINT, TEXT, colour, new_figure, page_svg
from madtp.report.table import MAIN, number

Entry = Mapping[str, Any]


def training_plots(log: Sequence[Entry]) -> list[tuple[str | None, str]]:
    """SVG and caption of each plot that the lines of a `log.jsonl` have enough for."""
    steps = [(line["step"], line) for line in log if "loss" in line]
    tested = [(line["step"], line) for line in log if line.get("val")]
    loss = _pairs(steps, "loss")
    met = [_pairs(steps, "reduction"), _pairs(tested, "reduction")]
    quality = list(_qualities(tested))
    return [
        (_lines([("loss", loss)], "loss") if len(loss) > 1 else None, "Loss of the training steps."),
        (
            _lines(quality, "on validation (%)") if any(len(line) > 1 for _, line in quality) else None,
            "Quality on validation, a line a budget.",
        ),
        (
            _lines([("step", met[0]), ("validation", met[1])], "reduction") if len(met[0]) > 1 else None,
            "Reduction measured in the training steps, and on validation.",
        ),
    ]


def _pairs(lines: Sequence[tuple[int, Entry]], key: str) -> list[tuple[float, float]]:
    return [(step, value) for step, line in lines if (value := number(line.get(key))) is not None]


def _qualities(tested: Sequence[tuple[int, Entry]]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """The main metric of validations, the first of every step, the second of every step and so on."""
    rounds: dict[int, list[Entry]] = {}
    for step, line in tested:
        rounds.setdefault(step, []).append(line)
    for place in range(max(map(len, rounds.values()), default=0)):
        points = []
        for step, lines in rounds.items():
            values = lines[place]["val"] if place < len(lines) else {}
            name = next((name for name in MAIN if name in values), next(iter(values), None))
            if (value := number(values.get(name))) is not None:
                points.append((float(step), 100 * value))
        if points:
            asked = number(rounds[max(rounds)][-1 if place >= len(rounds[max(rounds)]) else place].get("reduction"))
            yield f"{name} at {asked or 0:.2f}", points


def _lines(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], label: str) -> str:
    figure, axes = new_figure()
    shown = [(name, points) for name, points in lines if points]
    for index, (name, points) in enumerate(shown):
        few = len(points) < 40
        axes.plot(
            *zip(*points, strict=True),
            color=colour(index),
            marker="osD^vP"[index % 6] if few else None,
            ms=4,
            linewidth=1.4,
            label=name.replace("_", " "),
        )
    axes.set_xlabel("step", color=TEXT)
    axes.set_ylabel(label, color=TEXT)
    axes.margins(x=0.03, y=0.12)
    axes.spines["left"].set_color(FAINT)
    if len(shown) > 1:
        figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=TEXT)
    last = "; ".join(f"{name}: {points[-1][1]:.4g} at step {points[-1][0]:.0f}" for name, points in shown)
    return page_svg(figure, f"{label} over the steps of the training. Last, {last}.")
