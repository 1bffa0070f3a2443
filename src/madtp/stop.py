"""Asking a run to stop: SIGTERM (a preempted machine) and Ctrl-C let it write its checkpoint first."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130


class Stopped(BaseException):
    """A run was asked to stop and did. No `Exception`: whoever handles a broken file must not take it for one.

    Args:
        signal_name: "SIGTERM" or "SIGINT".
        said: what was saved and how to go on, for a reader.
    """

    def __init__(self, signal_name: str, said: str = "") -> None:
        self.signal_name = signal_name
        super().__init__(f"stopped by {signal_name}{': ' if said else ''}{said}")

    @property
    def code(self) -> int:
        """Exit code: 0 after SIGTERM, which is no fault of anybody's."""
        return 0 if self.signal_name == "SIGTERM" else INTERRUPTED


class Stop:
    """Whether a run was asked to stop. Without `listening` nobody asks.

    Args:
        agree: in a run of several processes: number of the signal that this one was sent, or 0 -> the same of all of
            them, where any was sent one. None = there is one process.
    """

    def __init__(self, agree: Callable[[int], int] | None = None) -> None:
        self.agree = agree
        self.asked: str | None = None
        self._free, self._said = False, ""

    def _hear(self, number: int, frame: Any) -> None:
        if self.asked is not None:
            if number == signal.SIGINT:
                os.write(2, b"\nmadtp: interrupted again, ended at once\n")
                os._exit(INTERRUPTED)
            return
        self.asked = signal.Signals(number).name
        said = f"\nmadtp: {self.asked}: stopping after this step, its checkpoint first; Ctrl-C now ends it at once\n"
        os.write(2, said.encode())  # no logging: the signal may have come amid a line of the log
        if self._free:
            raise Stopped(self.asked, self._said)

    def wanted(self) -> str | None:
        """The signal that asked this run to stop. Of several processes all must ask this at the same places."""
        asked = self.asked
        if self.agree is None:
            return asked
        number = self.agree(signal.Signals[asked] if asked else 0)
        return signal.Signals(number).name if number else None

    @contextmanager
    def at_once(self, said: str = "go on with --resume") -> Iterator[None]:
        """For work that leaves the run's state as it is: a wish to stop, an earlier one too, ends the block.

        One of several processes must not leave the others waiting: there only an earlier wish ends it.

        Raises:
            Stopped: wherever the block is.
        """
        self._free, self._said = self.agree is None, said
        try:
            if (wanted := self.wanted()) is not None:
                raise Stopped(wanted, said)
            yield
        finally:
            self._free = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """For the block, signals are wishes; the second Ctrl-C ends the process at once. Only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def deaf(worker: int) -> None:
    """A loader's worker leaves signals to the process it works for, which ends it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
