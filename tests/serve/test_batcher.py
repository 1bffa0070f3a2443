"""The batcher: one batch at a time, of whatever waits; faults and departures touch nobody else."""

import asyncio
import threading
from typing import Any

import pytest

from madtp.serve.batcher import Batcher


class Slow:
    """Doubles numbers, once it is let; remembers its batches."""

    def __init__(self) -> None:
        self.go, self.batches = threading.Event(), []
        self.busy = threading.Lock()

    def __call__(self, key: Any, units: list[int]) -> list[int]:
        assert self.busy.acquire(blocking=False), "one batch at a time"
        try:
            self.batches.append((key, list(units)))
            assert self.go.wait(30)
            if -1 in units:
                raise ValueError("bad unit")
            return [2 * unit for unit in units]
        finally:
            self.busy.release()


def run(test: Any, most: int = 5) -> Slow:
    slow = Slow()

    async def main() -> None:
        batcher = Batcher(slow, most)
        batcher.start()
        await test(batcher, slow)
        await asyncio.wait_for(batcher.stop(), 30)

    asyncio.run(asyncio.wait_for(main(), 60))
    return slow


async def first_is_running(slow: Slow) -> None:
    while not slow.batches:
        await asyncio.sleep(0.001)


def test_what_waits_runs_together_in_order_by_key_and_size() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        calls = [asyncio.create_task(batcher("a", [0]))]
        await first_is_running(slow)
        asked = [("a", [1, 2, 3], None), ("b", [4], None), ("a", [5, 6], [1, 9]), ("b", [7], None), ("a", [], None)]
        calls += [asyncio.create_task(batcher(*each)) for each in asked]
        await asyncio.sleep(0)
        assert batcher.waiting == 7
        slow.go.set()
        assert await asyncio.gather(*calls) == [[0], [2, 4, 6], [8], [10, 12], [14], []]

    assert run(test).batches == [("a", [0]), ("a", [1, 2, 3, 5]), ("b", [4, 7]), ("a", [6])]


def test_a_fault_is_its_own() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        calls = [asyncio.create_task(batcher("a", [0]))]
        await first_is_running(slow)
        calls += [asyncio.create_task(batcher("a", [unit])) for unit in (1, -1, 2)]
        await asyncio.sleep(0)
        slow.go.set()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(one) for one in done] == ["[0]", "[2]", "bad unit", "[4]"]
        assert await batcher("a", [3]) == [6], "it goes on"

    run(test)


def test_who_goes_away_takes_the_work_along() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        stays = asyncio.create_task(batcher("a", [0]))
        await first_is_running(slow)
        goes = asyncio.create_task(batcher("a", [1, 2]))
        other = asyncio.create_task(batcher("a", [3]))
        await asyncio.sleep(0)
        goes.cancel()
        slow.go.set()
        assert await asyncio.gather(stays, other) == [[0], [6]]
        with pytest.raises(asyncio.CancelledError):
            await goes

    assert run(test).batches == [("a", [0]), ("a", [3])]


def test_stopping_cancels_what_waits_and_runs_out_what_runs() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        first = asyncio.create_task(batcher("a", [0]))
        await first_is_running(slow)
        second = asyncio.create_task(batcher("a", [1]))
        await asyncio.sleep(0)
        slow.go.set()
        await batcher.stop()
        await asyncio.wait({first, second})
        assert second.cancelled() and first.result() == [0]

    run(test)
