"""What the page shows of an answer, as pieces of HTML; drawn as the reports draw it."""

from html import escape

from madtp.cost.curve import Curve
from madtp.page.explore import Answer
from madtp.report.html import data_url
from madtp.report.seen import Step, Tower
from madtp.report.table import amount, percent
from madtp.report.view import patch_overlay

LEGEND = (
    "Clear patches inside the orange line are kept as themselves. Hatched ones were merged; the darker, "
    "the less weight they carry in the merged token."
)
SIDE = 320  # pixels of a picture


def problem(text: str) -> str:
    """A message that a screen reader says at once; nothing for no text."""
    return f"<p class='problem' role='alert'>{escape(text)}</p>" if text else ""


def numbers(answer: Answer, curve: Curve) -> str:
    """The answer and what it cost."""
    more = "fewer" if answer.reduction >= 0 else "more"
    saved = "dense" if answer.temperature is None else f"{percent(abs(answer.reduction))} {more} than dense"
    rows = [
        ("GFLOPs", f"{amount(answer.gflops)} <small>{saved}</small>"),
        ("time", f"{amount(answer.milliseconds)} ms <small>median of {answer.runs}</small>"),
        ("kept", _kept(answer)),
    ]
    if answer.confidence is not None:
        rows.insert(0, ("confidence", percent(answer.confidence)))
    told = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    words = escape(answer.words) or "(nothing)"
    return (
        f"<div class='answer' aria-live='polite'><p class='words'>{words}</p><dl>{told}</dl>"
        f"<p class='note'>{escape(_budget(answer, curve))}</p></div>"
    )


def _kept(answer: Answer) -> str:
    pictures = [tower for tower in answer.towers if tower.image is not None]
    told = " and ".join(tower.steps[-1].weights() for tower in pictures)
    return f"{told} <small>patches, after the last block</small>"


def _budget(answer: Answer, curve: Curve) -> str:
    if answer.temperature is None:
        return "Budget 0: the dense model, nothing is pruned."
    at = f"temperature {answer.temperature:.3g}"
    if answer.expected > answer.asked + 1e-9:
        return f"Asked {answer.asked:.0%}; the least this model can save is {answer.expected:.0%} ({at})."
    if answer.expected < answer.asked - 1e-9:
        return f"Asked {answer.asked:.0%}; the most this model can save is {answer.expected:.0%} ({at})."
    return f"Asked {answer.asked:.0%} on average, by the measured curve ({at}); on this example {answer.reduction:.1%}."


def pictures(answer: Answer, block: int) -> str:
    """What is left after a block, counted from 1: the pictures, then the words."""
    shown = []
    for tower in answer.towers:
        step = tower.steps[min(block, len(tower.steps)) - 1]
        number = min(block, len(tower.steps))
        shown.append(_words(tower, step, number) if tower.image is None else _picture(tower, step, number))
    return f"<div class='kept'>{''.join(shown)}</div>"


def _picture(tower: Tower, step: Step, number: int) -> str:
    assert tower.image is not None
    name = f"{escape(tower.name.capitalize())} after block {number}: {step.weights()} patches kept"
    overlay = data_url(patch_overlay(tower.image, step.share, size=SIDE))
    return f"<figure><img src='{overlay}' alt='{name}'><figcaption>{name}</figcaption></figure>"


def _words(tower: Tower, step: Step, number: int) -> str:
    cells = "".join(
        f"<li class='own'>{escape(word)}</li>"
        if kept
        else f"<li class='merged'>{escape(word)} <small>merged, {share:.0%}</small></li>"
        for word, kept, share in zip(tower.words, step.kept, step.share, strict=True)
    )
    name = f"{escape(tower.name.capitalize())} after block {number}: {step.weights()} words kept"
    return f"<figure><ul class='text'>{cells}</ul><figcaption>{name}</figcaption></figure>"
