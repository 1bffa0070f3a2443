"""Samples that cannot be read, handed on beside those that can: what is to be done about them is decided outside.

A loader's workers are other processes, so a fault travels in the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from madtp.data.faults import Faults
from madtp.data.order import Part
from madtp.data.stream import Stream, bare
from madtp.errors import InputError
from madtp.task.gather import largest, together, world

FAULTY = "faulty"


class Faulty(NamedTuple):
    """A sample that is no use.

    Attributes:
        name: its id.
        said: what is wrong with it.
    """

    name: str
    said: str


class Tolerant(Dataset[Any]):
    """A data set whose faulty samples come as `Faulty`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except InputError as error:
            return Faulty(self.dataset.data[index].image_id, str(error))


class InSteps(Dataset[Any]):
    """An epoch of a stream: item i is this process's part of step i, as a list. Steps are asked for in order.

    Args:
        items: of the samples, by their number.
        source: of the samples.
        part: of the epoch.
    """

    def __init__(self, items: Any, source: Stream, part: Part) -> None:
        self.items, self.source, self.part = items, source, part
        self._next = -1  # a worker is asked for the steps of one loader alone
        self._read: Iterator[tuple[int, Any]] = iter(())

    def __len__(self) -> int:
        return self.part.steps

    def __getitem__(self, step: int) -> list[Any]:
        if step != self._next:
            self._read = self.source.read(self.part, step)
        self._next = step + self.part.lanes
        return [self._item(number, sample) for number, sample in islice(self._read, self.part.size(step))]

    def _item(self, number: int, sample: Any) -> Any:
        self.source.hand = {number: sample}
        item = self.items[number]
        return item if isinstance(item, Faulty) else (item[0], bare(item[1]), item[2])


def collate(of_task: Callable[[Sequence[Any]], dict[str, Any]], items: Sequence[Any]) -> dict[str, Any]:
    """The batch of the good ones, empty where there are none; the faulty ones under `FAULTY`."""
    good = [item for item in items if not isinstance(item, Faulty)]
    batch = of_task(good) if good else {}
    return {**batch, FAULTY: [item for item in items if isinstance(item, Faulty)]}


def stream(
    dataset: Any, task: Any, faults: Faults | None, part: Part | None = None, **options: Any
) -> Iterator[dict[str, Any]]:
    """Batches of a `TaskDataset` as torch's loader makes them with `options`; empty where no sample could be read.

    Args:
        dataset: of the task.
        task: collates.
        faults: what to do about samples that cannot be read; None = the first stops.
        part: of a dataset over a `Stream`: which of an epoch's samples.

    Raises:
        InputError: a sample that cannot be read, or more of them than may be left out.
    """
    skip = faults is not None and faults.skip
    whole: Any = Tolerant(dataset) if skip else dataset
    data = dataset.data
    if part is not None:
        whole, steps = InSteps(whole, data, part), range(part.done, part.steps)
        options |= {"sampler": steps, "batch_size": None}
    for batch in DataLoader(whole, collate_fn=partial(collate, task.collate) if skip else task.collate, **options):
        for fault in batch.pop(FAULTY, ()):
            assert faults is not None
            faults.note(data.split, "sample", fault.name, fault.said)
            faults.check(data.split, "sample", len(data))
        yield batch


def learn(faults: Faults | None, split: str, of: int) -> None:
    """Have every process know what any of them left out. All must call it, at the same place.

    Args:
        faults: this process's; alike in all.
        split: whose samples are judged.
        of: how many it has.

    Raises:
        InputError: together they left out more of the split's samples than may be.
    """
    if faults is None or not faults.skip or world()[1] == 1:
        return
    for lines in together([faults.news()]):
        faults.learn(lines)
    faults.check(split, "sample", of)


def everywhere(batch: dict[str, Any], faults: Faults, split: str, of: int, device: torch.device) -> bool:
    """Whether every process could read something of its part of a batch; what any left out, all know then.

    Raises:
        InputError: as `learn`.
    """
    if not faults.skip or world()[1] == 1:
        return bool(batch)
    empty, news = largest([not batch, faults.has_news], device)
    if news:
        learn(faults, split, of)
    return not empty
