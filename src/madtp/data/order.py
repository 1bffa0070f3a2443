"""The order in which a stream gives its samples: numbers alone, so where a broken-off epoch stood is found unread."""

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One process's part of an epoch, whose steps its loaders make in turn; numbers alone.

    All samples stand in a row, shard behind shard in a drawn order. The row is cut into as many pieces as there are
    loaders in all: every sample is in one, and no process has more steps than another.

    Args:
        images: in the data.
        batch_size: images a step and process; as by `order_of_epoch` the last step may have fewer, or some more.
        place: rank, and number of processes.
        steps: of the epoch.
        lanes: loaders of this process; step i is made by loader i modulo their number.
        seed, epoch: of the draws.
        done: steps that are over.
    """

    images: int
    batch_size: int
    place: tuple[int, int]
    steps: int
    lanes: int
    seed: int
    epoch: int
    done: int = 0

    def size(self, step: int) -> int:
        """Samples that this process has of a step."""
        rank, processes = self.place
        return self.batch_size if step + 1 < self.steps else (self._last + processes - 1 - rank) // processes

    @property
    def _last(self) -> int:
        return self.images - (self.steps - 1) * self.batch_size * self.place[1]

    def piece(self, lane: int) -> tuple[int, int]:
        """Where a loader's piece of the row begins, and how many samples it has."""
        rank, processes = self.place
        start = rank * (self.steps - 1) * self.batch_size
        start += rank * (self._last // processes) + min(rank, self._last % processes)
        counts = [self._count(number) for number in range(lane + 1)]
        return start + sum(counts[:-1]), counts[-1]

    def _count(self, lane: int) -> int:
        own = range(lane, self.steps, self.lanes)
        return self.batch_size * (len(own) - 1) + self.size(own[-1]) if own else 0


class Shuffle(Iterator[int]):
    """0 to `count - 1`, each drawn from a buffer of `size` that is filled in order.

    Attributes:
        buffer: what is in it.
        entered: how many have been put into it.
    """

    def __init__(self, count: int, size: int, draw: random.Random) -> None:
        self.count, self.size, self.draw = count, size, draw
        self.buffer: list[int] = []
        self.entered = 0

    def __next__(self) -> int:
        while self.entered < self.count and len(self.buffer) < self.size:
            self.buffer.append(self.entered)
            self.entered += 1
        if not self.buffer:
            raise StopIteration
        i = self.draw.randrange(len(self.buffer))
        self.buffer[i], self.buffer[-1] = self.buffer[-1], self.buffer[i]
        return self.buffer.pop()
