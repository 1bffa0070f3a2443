"""A user's own pictures and texts, batch by batch: what `madtp.pipeline` and `madtp serve` both run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from madtp.data.images import ImageSource
from madtp.errors import InputError
from madtp.evaluate import evaluating, to_device
from madtp.model.ragged import Ragged
from madtp.task.base import Item, Task, cost


@dataclass(frozen=True)
class Answer:
    """One answer, and what it took.

    Attributes:
        text: in words, as `madtp predict` says it.
        scores: name -> probability, where the answer is one of a few ("true", "false").
        gflops, dense: as run, and of the dense model on the same input.
    """

    text: str
    scores: dict[str, float] = field(default_factory=dict)
    gflops: float = 0.0
    dense: float = 0.0

    @property
    def reduction(self) -> float:
        """Measured: 1 - GFLOPs / dense GFLOPs."""
        return 1 - self.gflops / self.dense if self.dense else 0.0


@dataclass(frozen=True)
class Seen:
    """A picture after the image tower, for retrieval.

    Attributes:
        feature: `[d]` of length 1.
        tokens: what the matching head looks at, one instance, on the CPU.
    """

    feature: Tensor
    tokens: Ragged


def answer(model: Any, task: Task, items: Sequence[Item], choices: Sequence[str] = ()) -> list[list[Answer]]:
    """Answers to each item's texts, or one caption an item; an answer does not depend on the other items.

    Args:
        model: on its device, at the temperature to run at.
        task: of the model.
        items: from `Task.example`.
        choices: vqa with ``inference="rank"``: the answers to choose from.

    Raises:
        InputError: a picture or text is wrong.
    """
    batch = to_device(task.collate(items), model.device)
    with evaluating(model):
        predictions, encoded = task.predict(model, batch, choices)
        run, full = cost(model, encoded.trace)
        scores: list[dict[str, float]] = [{} for _ in predictions]
        if task.name == "reasoning":
            shares = model.classify(encoded).float().softmax(-1).tolist()
            scores = [{"true": true, "false": false} for false, true in shares]
    costs = zip(run.total.tolist(), full.total.tolist(), strict=True)
    made = iter([Answer(p.answer, s, *c) for p, s, c in zip(predictions, scores, costs, strict=True)])
    return [[next(made) for _ in range(max(1, len(texts)))] for _, _, texts in items]


def see(model: Any, pixels: Sequence[Tensor]) -> list[Seen]:
    """Pictures `[3, height, width]` through the image tower of a model for retrieval."""
    with evaluating(model):
        side = model.see(torch.stack(list(pixels)).to(model.device))
        each = zip(side.feature.cpu(), side.tokens.split(), strict=True)
        return [Seen(feature, tokens) for feature, tokens in each]


def read(model: Any, task: Any, texts: Sequence[str]) -> list[Tensor]:
    """Features `[d]` of length 1 of texts, by the text tower of a model for retrieval."""
    ids, mask = task.tokens(texts)
    with evaluating(model):
        return list(model.read(ids.to(model.device), mask.to(model.device)).feature.cpu())


def match(model: Any, task: Any, pairs: Sequence[tuple[Seen, str]]) -> list[float]:
    """Probability that each text describes its picture, by BLIP's matching head."""
    pictures = list({id(seen): seen for seen, _ in pairs}.values())
    place = {id(seen): i for i, seen in enumerate(pictures)}
    ragged = Ragged.join([seen.tokens for seen in pictures], model.device)
    index = torch.tensor([place[id(seen)] for seen, _ in pairs])
    ids, mask = task.texts.looking(text for _, text in pairs)
    with evaluating(model):
        logits, _ = model.match(ragged, index, ids.to(model.device), mask.to(model.device))
        found: list[float] = logits.float().softmax(-1)[:, 1].tolist()
    return found


def likeness(model: Any, features: Tensor, texts: Tensor) -> Tensor:
    """CLIP's probabilities `[b, q]` that a picture is the one of each of these texts, one of which it is.

    Args:
        model: with the scale that its cosines are multiplied by.
        features: `[b, d]` of pictures, `texts`: `[q, d]` of texts.
    """
    scale = model.logit_scale.detach().exp().cpu()
    return (features @ texts.T * scale).float().softmax(-1)


def check_texts(texts: Sequence[str], where: str) -> list[str]:
    """The texts, if each is one. Raises InputError: it is empty, or holds half a character."""
    from madtp.data.sample import is_text

    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{text!r} is no text", where)
        if not text.strip():
            raise InputError("is empty", where, "give some words")
        if not is_text(text):
            raise InputError("holds half a character", where, "give UTF-8")
    return list(texts)


def pixels_of(task: Task, images: Sequence[ImageSource]) -> list[Tensor]:
    """Each picture as the image tower takes it. Raises InputError where it cannot be had."""
    return [task.pixels(image) for image in images]
