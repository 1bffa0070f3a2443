"""A few pictures for a report: what was asked, what each model said, and which patches it kept."""

from dataclasses import dataclass
from typing import Any

MOST = 8


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


def chosen(data: Any, most: int = MOST) -> list[int]:
    """A few samples: one for each number of objects, as far as there are; the first where none is known."""
    first: dict[Any, int] = {}
    for i, sample in enumerate(data.samples):
        first.setdefault(i if sample.objects is None else sample.objects, i)
        if len(first) >= 64:
            break
    return [first[n] for n in sorted(first)][:most]


def pictures_of(network: Any, task: Any, data: Any, most: int = MOST) -> list[Seen]:
    """What the model makes of the first text of each chosen sample."""
    from madtp.evaluate import evaluating, to_device
    from madtp.view import shares

    dataset = task.dataset(data)
    found = []
    with evaluating(network):
        for pixels, sample, texts in (dataset[i] for i in chosen(data, most)):
            batch = to_device(task.collate([(pixels, sample, texts[:1])]), network.device)
            predictions, encoded = task.predict(network, batch, data.answers, provenance=True)
            blocks = encoded.trace.tower("vision")
            weights = [[shares(block, i)[1] for block in blocks] for i in range(len(pixels))]
            answer, truth = task.words_for(predictions[0]) if predictions else ("", "")
            found.append(Seen(answer, truth, weights))
    return found


def examples_of(task: Any, data: Any, pictures: dict[str, list[Seen]], most: int = MOST) -> list[Any]:
    """The report's examples; a sample of two pictures gives two.

    Args:
        task: what the texts are.
        data: the split.
        pictures: row of the report -> `pictures_of` its model.
        most: as it was given to `pictures_of`.
    """
    from madtp.report import Example, ExampleRow
    from madtp.task.base import distinct
    from madtp.task.picture import seen

    examples = []
    for i, index in enumerate(chosen(data, most)):
        sample = data[index]
        images = distinct(sample.images)
        text = getattr(sample.texts[0], "text", sample.texts[0]) if sample.texts else ""
        for k, image in enumerate(images):
            side = f" ({('left', 'right')[k]} picture)" if len(images) > 1 else ""
            rows = tuple(ExampleRow(name, some[i].answer, tuple(some[i].shares[k])) for name, some in pictures.items())
            truth = next(iter(pictures.values()))[i].truth
            part = seen(task.processor, image.open())
            examples.append(Example(part, f"{text}{side}", truth, rows, judged=task.judged))
    return examples
