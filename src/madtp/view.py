"""Looking at single examples: what each block pruned by which scores, and which examples pruning costs an answer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from madtp.data.faults import Faults
from madtp.data.images import ImageSource
from madtp.data.sample import Data
from madtp.evaluate import Advance, Evaluation, evaluate, evaluating, places_of, to_device
from madtp.prune import BlockTrace, Trace, recording
from madtp.report.seen import RIGHT, Step, Tower, View
from madtp.task.base import Item, Prediction, Task, cost, distinct
from madtp.task.picture import seen
from madtp.task.words import pieces

SIDES = ("left picture", "right picture")
TEXTS = {"text": "text", "match": "text, looking at the picture (match)"}
_MERGED = 1 - 1e-4  # most that a merged token is drawn with, whatever its weight


def shares(block: BlockTrace, instance: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one instance's original tokens after a block: `[p]` which are kept, and the weight each carries.

    A weight is 1 where its token is kept; merge weights, which need not lie in 0..1, are cut to it.
    """
    assert block.provenance is not None, "the trace was made without provenance"
    kept = block.provenance.kept(instance).cpu().numpy()
    share = block.provenance.of(instance)[1].float().cpu().numpy().clip(0, _MERGED)
    return kept, np.where(kept, 1.0, share)


def steps_of(blocks: Sequence[BlockTrace], instance: int) -> tuple[Step, ...]:
    """One instance's way through a tower, its original tokens followed by their provenance.

    Args:
        blocks: of one tower, with provenance; with records or without.
        instance: which.
    """
    steps: list[Step] = []
    entered, alone = None, None
    for block in blocks:
        assert block.provenance is not None
        kept, share = shares(block, instance)
        if entered is None or alone is None:  # before the first block every token is itself
            entered, alone = np.arange(len(kept)), np.ones(len(kept), dtype=bool)
        if block.record is None:
            steps.append(Step(entered, alone, kept, share))
        else:
            own = block.record.of(instance)
            steps.append(
                Step(
                    entered,
                    alone,
                    kept,
                    share,
                    {name: score.numpy() for name, score in own.scores.items()},
                    own.kept.numpy(),
                    None if block.threshold is None else float(block.threshold[instance]),
                    None if own.affinity is None else own.affinity.argmax(-1).numpy(),
                )
            )
        head = 1 if block.record is None else block.record.head
        entered, alone = block.provenance.of(instance)[0].cpu().numpy() - head, kept
    return tuple(steps)


def towers_of(task: Task, trace: Trace, item: Item, ids: Tensor | None) -> tuple[Tower, ...]:
    """The towers' passes over one item with at most one text.

    Args:
        task: knows which part of a picture is seen.
        trace: with provenance, of a batch of the item alone.
        item: from the task's data set.
        ids: `[l]` ids of the text without padding; None = there is no text tower.
    """
    images = distinct(item[1].images)
    names = SIDES if len(images) > 1 else ("picture",)
    vision = trace.tower("vision")
    towers = [Tower(name, steps_of(vision, i), seen(task.processor, images[i].open())) for i, name in enumerate(names)]
    for tower, name in TEXTS.items():
        if ids is not None and (blocks := trace.tower(tower)) and int(blocks[0].tokens_in[0]):
            steps = steps_of(blocks, 0)
            # what stands behind the content, like CLIP's end token, and before it is protected
            head = 1 if blocks[0].record is None else blocks[0].record.head
            words = pieces(task.tokenizer, ids)[head : head + len(steps[0].kept)]
            towers.append(Tower(name, steps, words=words))
    return tuple(towers)


def look(
    model: Any,
    task: Task,
    item: Item,
    *,
    answers: Sequence[str] = (),
    name: str = "",
    how: str = "",
    said: tuple[str, str, str] | None = None,
    marks: tuple[float, float] | None = None,
    found: Sequence[tuple[str, ImageSource]] = (),
    reference: tuple[str, Any] | None = None,
) -> View:
    """One example through the model, as it prunes and dense.

    Args:
        model: with a temperature; its settings come back as they were.
        task: how to batch and to answer.
        item: one sample with its pixels and one text, or none in captioning.
        answers: closed list, for rank inference.
        name: of the model.
        how: where its temperature is from.
        said: the answers dense and pruned and the true one, where the example alone does not tell them; else the
            answers are those given here, and no true one is known.
        marks: how good the two are (`Task.marks`).
        found: further pictures to show.
        reference: name and dense model of the same task to compare with; None = the model itself, without pruning.
    """
    pruning = model.pruning
    assert pruning.temperature is not None, "a dense model prunes nothing"
    batch = to_device(task.collate([item]), model.device)
    with evaluating(model), recording():
        predictions, encoded = task.predict(model, batch, answers, provenance=True)
    run, full = cost(model, encoded.trace)
    other = model if reference is None else reference[1]
    with dense_run(other), evaluating(other):
        dense, _ = task.predict(other, batch, answers)
    if said is None:
        said = task.words_for(dense[0])[0], task.words_for(predictions[0])[0], ""
    ids = None
    if encoded.trace.tower("text"):
        ids = batch["input_ids"][0][batch["attention_mask"][0].bool()].cpu()
    return View(
        task=task.name,
        model=name,
        method=pruning.method,
        text=predictions[0].text,
        dense=said[0],
        pruned=said[1],
        truth=said[2],
        marks=marks,
        mark_name=task.mark_name,
        gflops_dense=float(full.total),
        gflops=float(run.total),
        temperature=pruning.temperature,
        how=how,
        towers=towers_of(task, encoded.trace, item, ids),
        reference=reference[0] if reference else "",
        found=tuple((what, image.open()) for what, image in found),
    )


@contextmanager
def dense_run(model: Any) -> Iterator[None]:
    """The model without pruning; its settings come back as they were."""
    pruning = model.pruning
    try:
        model.temperature = None
        yield
    finally:
        model.pruning = pruning


@dataclass(frozen=True)
class Lost:
    """An example that pruning made worse.

    Attributes:
        sample: number of its sample in the data.
        text: number of its text in the sample.
        dense, pruned: what each model said.
        marks: how good each answer is (`Task.marks`), dense and pruned.
    """

    sample: int
    text: int
    dense: Prediction
    pruned: Prediction
    marks: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """A model on a split, dense and pruned.

    Attributes:
        dense, pruned: the evaluations.
        lost: the examples that pruning made worse, the worst first: right dense and wrong pruned; of a task without
            right and wrong, those with a lower mark.
        gained: how many it made better, by the same measure.
    """

    dense: Evaluation
    pruned: Evaluation
    lost: tuple[Lost, ...]
    gained: int


def compare(
    model: Any,
    task: Task,
    data: Data[Any],
    *,
    reference: tuple[str, Any] | None = None,
    batch_size: int = 32,
    advance: Advance | None = None,
    faults: Faults | None = None,
) -> Comparison:
    """Evaluate a split as the model prunes and dense, and find where the two differ.

    Args:
        model: with a temperature; its settings come back as they were.
        task, data, batch_size, advance, faults: as for `evaluate`; there are two rounds, and what could not be read in
            one of them is left out.
        reference: as for `look`.

    Raises:
        InputError: there is nothing to answer.
    """
    other = model if reference is None else reference[1]
    pruned = evaluate(model, task, data, batch_size=batch_size, advance=advance, faults=faults)
    with dense_run(other):
        dense = evaluate(other, task, data, batch_size=batch_size, advance=advance, faults=faults)
    before, after = (
        dict(zip(places_of(of.predictions, data), zip(of.predictions, task.marks(of.scored), strict=True), strict=True))
        for of in (dense, pruned)
    )
    lost, gained = [], 0
    for place in filter(after.__contains__, before):  # what could be read in both rounds
        (one, good), (other, bad) = before[place], after[place]
        if good is None or bad is None:
            continue
        if worse(task, good, bad):
            lost.append(Lost(*place, one, other, (good, bad)))
        gained += worse(task, bad, good)
    lost.sort(key=lambda example: example.marks[1] - example.marks[0])  # stable: else in the data's order
    return Comparison(dense, pruned, tuple(lost), gained)


def worse(task: Task, before: float, after: float) -> bool:
    """Whether an answer went from right to wrong; of a task without right and wrong, whether its mark fell."""
    return after < before if task.mark_name else before >= RIGHT > after
