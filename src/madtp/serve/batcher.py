"""Micro-batching: whatever waits when the model is free runs together, of requests of any size."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Run = Callable[[Any, list[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Unit:
    key: Hashable
    value: Any
    size: int
    result: "asyncio.Future[Any]"


class Batcher:
    """Runs units of work in batches, one batch at a time, in a thread of its own.

    There is no waiting for a batch to fill: a lone unit runs at once, and while it runs others gather. Units of one key
    (what is done, at which budget) run together, the key of the longest waiting first. Batches are ragged, so it is of
    no matter how different they are.

    Args:
        run: key and units -> a result a unit, in order. Called in the thread.
        most: sizes of a batch's units add up to this, or it is a single unit.
        told: told the number of units of each batch.
    """

    def __init__(self, run: Run, most: int, told: Callable[[int], None] = lambda count: None) -> None:
        self.run, self.most, self.told = run, most, told
        self._waiting: deque[_Unit] = deque()
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="madtp-model")
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to work; within a running event loop."""
        self._loop = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """End; what waits is cancelled, what runs runs out."""
        self._stopping = True
        for unit in self._waiting:
            unit.result.cancel()
        self._some.set()
        if self._loop is not None:
            await self._loop
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def waiting(self) -> int:
        """Units that no batch has taken yet."""
        return len(self._waiting)

    async def __call__(self, key: Hashable, values: Sequence[Any], sizes: Sequence[int] | None = None) -> list[Any]:
        """Results of these units, which may run in several batches; a caller that is cancelled takes its own away.

        Raises:
            Exception: what `run` raises for one of them alone.
        """
        loop = asyncio.get_running_loop()
        counts = [1] * len(values) if sizes is None else sizes
        units = [_Unit(key, v, n, loop.create_future()) for v, n in zip(values, counts, strict=True)]
        self._waiting.extend(units)
        self._some.set()
        try:
            return list(await asyncio.gather(*(unit.result for unit in units)))
        finally:
            for unit in units:
                unit.result.cancel()

    def _take(self) -> list[_Unit]:
        """The next batch; units that nobody waits for any more are dropped."""
        batch: list[_Unit] = []
        left: deque[_Unit] = deque()
        size = 0
        for unit in self._waiting:
            if unit.result.done():
                continue
            if batch and (unit.key != batch[0].key or size + unit.size > self.most):
                left.append(unit)
                continue
            batch.append(unit)
            size += unit.size
        self._waiting = left
        return batch

    async def _work(self) -> None:
        while not self._stopping:
            await self._some.wait()
            batch = self._take()
            if not batch:
                self._some.clear()
                continue
            self.told(len(batch))
            await self._run(batch)

    async def _run(self, batch: list[_Unit]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self.run, batch[0].key, [u.value for u in batch])
        except Exception as error:
            if len(batch) > 1:  # whose fault it is shows alone, and is nobody else's
                for unit in batch:
                    if not unit.result.done():
                        await self._run([unit])
            elif not batch[0].result.done():
                batch[0].result.set_exception(error)
            return
        for unit, result in zip(batch, results, strict=True):
            if not unit.result.done():
                unit.result.set_result(result)
