"""A few pictures for a report: what was asked, what each model said, and which patches it kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST = 8
TIMED, PAIRS = 32, 3  # pictures that a report times the towers on, in one batch, and how often
Place = tuple[int, int]
"""Number of a sample in its data, and of a text in the sample."""


@dataclass(frozen=True)
class Seen:
    """What a model made of one sample.

    Attributes:
        answer, truth: in words; "" = there is none.
        shares: of each picture, the share of every patch after each block, `[blocks][n_patches]`.
    """

    answer: str
    truth: str
    shares: list[list[Any]]


def chosen(data: Any, most: int = MOST) -> list[Place]:
    """A few samples: one for each number of objects, as far as there are; the first where none is known."""
    first: dict[Any, int] = {}
    for i, sample in enumerate(data.samples):
        first.setdefault(i if sample.objects is None else sample.objects, i)
        if len(first) >= 64:
            break
    return [(first[n], 0) for n in sorted(first)][:most]


def hardest(task: Any, data: Any, evaluations: Sequence[Any], most: int = MOST) -> list[Place]:
    """The texts with the lowest marks over some evaluations of the same split, the worst first; one of a sample.

    Where an answer is right or wrong, only those that were wrong once; nothing where no true answer is known.
    """
    from madtp.evaluate import places_of

    places = places_of(evaluations[0].predictions, data)
    return lowest(task, places, [task.marks(evaluation.scored) for evaluation in evaluations], most)


def lowest(task: Any, places: Sequence[Place], marks: Sequence[Sequence[float | None]], most: int) -> list[Place]:
    """As `hardest`, of the marks (`Task.marks`) that several models got for the same places."""
    found: dict[int, tuple[float, Place]] = {}
    for place, *told in zip(places, *marks, strict=True):
        known = [mark for mark in told if mark is not None]
        if len(known) < len(told) or (not task.mark_name and min(known) >= 1):
            continue
        found[place[0]] = min(found.get(place[0], (sum(known), place)), (sum(known), place))
    return [place for _, place in sorted(found.values())[:most]]


def pictures_of(network: Any, task: Any, data: Any, places: Sequence[Place]) -> list[Seen]:
    """What the model makes of each of these texts, at its temperature."""
    from madtp.evaluate import evaluating, to_device
    from madtp.view import shares

    dataset = task.dataset(data)
    found = []
    with evaluating(network):
        for number, text in places:
            pixels, sample, texts = dataset[number]
            batch = to_device(task.collate([(pixels, sample, texts[text : text + 1])]), network.device)
            predictions, encoded = task.predict(network, batch, data.answers, provenance=True)
            blocks = encoded.trace.tower("vision")
            weights = [[shares(block, i)[1] for block in blocks] for i in range(len(pixels))]
            answer, truth = task.words_for(predictions[0]) if predictions else ("", "")
            found.append(Seen(answer, truth, weights))
    return found


def examples_of(
    task: Any, data: Any, places: Sequence[Place], pictures: Mapping[str, list[Seen]], titled: bool = False
) -> list[Any]:
    """The report's examples; a sample of two pictures gives two.

    Args:
        task: what the texts are.
        data: the split.
        places: of the texts.
        pictures: row of the report -> `pictures_of` its model.
        titled: the rows' names are shown as they are; else they are `dense` or reductions.
    """
    from madtp.report import Example, ExampleRow
    from madtp.task.base import distinct
    from madtp.task.picture import seen

    examples = []
    for i, (index, text) in enumerate(places):
        sample = data[index]
        images = distinct(sample.images)
        asked = sample.texts[text] if text < len(sample.texts) and task.name != "caption" else ""
        for k, image in enumerate(images):
            side = f" ({('left', 'right')[k]} picture)" if len(images) > 1 else ""
            rows = tuple(
                ExampleRow(name, some[i].answer, tuple(some[i].shares[k]), name if titled else "")
                for name, some in pictures.items()
            )
            truth = next(iter(pictures.values()))[i].truth
            part = seen(task.processor, image.open())
            examples.append(Example(part, f"{getattr(asked, 'text', asked)}{side}", truth, rows, judged=task.judged))
    return examples
