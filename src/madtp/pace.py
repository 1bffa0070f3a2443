"""How far a piece of work is: told in passing by what does it, shown by whoever watches, and else for nothing."""

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Watch = Callable[[float, float], None]
"""`watch(done, more)`: so much is done, and so much more than was known of is to be done; entries, or bytes."""

_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)
EVERY = 1000  # items between two signs
SECONDS = 0.2  # between two looks at what is written


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """`watch` is told of all work in the block; of several the innermost."""
    before = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(before)


def tell(done: float = 0, more: float = 0) -> None:
    """So much is done, so much more is to be done."""
    if (watch := _WATCH.get()) is not None:
        watch(done, more)


def paced(items: Iterable[T], most: int) -> Iterator[T]:
    """The items one by one, each a piece of the work; there are at most so many."""
    tell(0, most)
    left = most
    for number, item in enumerate(items, start=1):
        yield item
        if number % EVERY == 0:
            tell(new := min(EVERY, left))
            left -= new
    tell(left)


class PacedFile(io.FileIO):
    """A file opened for reading whose bytes are pieces of the work, in whatever order they are read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._left = path.stat().st_size
        tell(0, self._left)

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        """As `io.FileIO`."""
        count = super().readinto(buffer)
        new = min(self._left, count or 0)  # some are read twice
        self._left -= new
        tell(new)
        return count


@contextmanager
def growing(folder: Path, size: int, told: int = 0) -> Iterator[None]:
    """Files that appear in `folder` are pieces of the work: `size` bytes in all, of which `told` were told of."""
    if (watch := _WATCH.get()) is None:
        yield
        return
    watch(0, size - told)
    over, done = threading.Event(), 0

    def look() -> None:
        nonlocal done
        while not over.wait(SECONDS):
            try:
                now = min(size, sum(file.stat().st_size for file in folder.iterdir()))
            except OSError:  # it comes and goes with what is being written
                continue
            watch(max(0, now - done), 0)
            done = max(now, done)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        watch(size - done, 0)
