"""What is wrong with people's data: stopped at, or left out, counted and named in ``errors.jsonl``."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from madtp.errors import InputError
from madtp.files import append_line

logger = logging.getLogger(__name__)

ERRORS = "errors.jsonl"
POLICIES = ("stop", "skip")
SHOWN = 5  # faults of a split that are told of on the spot


class Faults:
    """The faults of a run's data, and what is to be done about them.

    Args:
        policy: "stop": the first fault ends the run. "skip": the entry or sample is left out.
        most: share of a split's entries, and of its samples, that may be left out before the run stops all the same.

    Raises:
        InputError: another policy, or a share out of [0, 1].
    """

    def __init__(self, policy: str = "stop", most: float = 0.01) -> None:
        if policy not in POLICIES:
            raise InputError(f"unknown policy {policy!r}", "--on-error", f"use {' or '.join(POLICIES)}")
        if not 0 <= most <= 1:
            raise InputError(f"{most:g} is no share", "--max-skipped", "use a number from 0 to 1")
        self.skip, self.most = policy == "skip", most
        self.entries: Counter[str] = Counter()  # read, by split, faulty ones included
        self._seen: set[tuple[str, str, str]] = set()
        self._file: Path | None = None
        self._waiting: list[dict[str, Any]] = []
        self._news: list[dict[str, Any]] = []
        self._writes = True
        self._told: set[str] = set()

    def count(self, split: str, kind: str) -> int:
        """How many of a split were left out: of kind "entry" (annotations) or "sample" (pictures)."""
        return sum(key[:2] == (split, kind) for key in self._seen)

    def counts(self) -> dict[str, int]:
        """Entries and samples that were left out, by split."""
        return dict(sorted(Counter(split for split, _, _ in self._seen).items()))

    def note(self, split: str, kind: str, name: str, said: str) -> None:
        """Count and write down something that is left out; the same thing twice counts once."""
        key = (split, kind, name)
        if key in self._seen:
            return
        self._seen.add(key)
        count = self.count(split, kind)
        if count <= SHOWN:
            logger.warning("left out: %s%s", said, " (others are told of in errors.jsonl alone)" * (count == SHOWN))
        line = {"kind": kind, "split": split, "id": name, "error": said}
        self._news.append(line)
        self.write(line)

    @property
    def has_news(self) -> bool:
        """Whether something was left out since `news` was last taken."""
        return bool(self._news)

    def news(self) -> list[dict[str, Any]]:
        """Take what was left out since, as lines of ``errors.jsonl``: for the other processes of a run to `learn`."""
        news, self._news = self._news, []
        return news

    def learn(self, lines: list[dict[str, Any]]) -> None:
        """Count and write down what another process left out; what is known already counts once."""
        for line in lines:
            key = (line["split"], line["kind"], line["id"])
            if key not in self._seen:
                self._seen.add(key)
                self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        """Add a line to ``errors.jsonl``, or keep it until there is one; one that is there already is not added."""
        if self._file is None:
            self._waiting.append(line)
            return
        text = json.dumps(line, ensure_ascii=False)
        if text in self._told:
            return
        self._told.add(text)
        if self._writes:
            append_line(self._file, line)

    def attach(self, folder: str | Path, writes: bool = True) -> None:
        """From now on lines go to the file in this folder; those that a run before its resumption wrote count too.

        Args:
            folder: of the run.
            writes: False in all but the first of several processes, which learns what the others left out.
        """
        self._writes = writes
        self._file = Path(folder) / ERRORS
        known = list(lines_of(folder))
        self._seen |= {(line["split"], line["kind"], line["id"]) for line in known if line["kind"] in KINDS}
        self._told |= {json.dumps(line, ensure_ascii=False) for line in known}
        waiting, self._waiting = self._waiting, []
        for line in waiting:
            self.write(line)

    def check(self, split: str, kind: str, of: int) -> None:
        """Raise InputError where more was left out than may be, of `of` in all."""
        count = self.count(split, kind)
        if count > self.most * of:
            words = {"entry": "entries", "sample": "samples"}[kind]
            last = self._waiting[-1]["error"] if self._waiting else ""
            said = f"{count} of {of} {words} of {split} are faulty{', the last: ' if last else ''}{last}"
            raise InputError(said, "--on-error skip", f"more than --max-skipped {self.most:g} allows; see {self.place}")

    @property
    def place(self) -> str:
        """Where the faults are named."""
        return str(self._file) if self._file else "the warnings"


KINDS = ("entry", "sample")
_NOW: ContextVar[tuple[Faults, str] | None] = ContextVar("faults", default=None)


def lines_of(folder: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of a folder's file of faults that are whole; one cut short by a kill is not."""
    path = Path(folder) / ERRORS
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and {"kind", "split", "id"} <= entry.keys():
                yield entry


@contextmanager
def reading(faults: Faults | None, split: str) -> Iterator[None]:
    """For the block, annotations of this split are read as `faults` says; None = the first fault stops.

    Raises:
        InputError: more entries were left out than may be.
    """
    token = _NOW.set(None if faults is None else (faults, split))
    try:
        yield
    finally:
        _NOW.reset(token)
    if faults is not None:
        faults.check(split, "entry", faults.entries[split])


def read_so_far(count: int) -> None:
    """Tell how many entries there were in a file, faulty ones included."""
    if (now := _NOW.get()) is not None:
        now[0].entries[now[1]] += count


def pass_over(error: InputError, name: str) -> None:
    """Leave an entry of annotations out where the user asked for that. Raises `error` where not."""
    now = _NOW.get()
    if now is None or not now[0].skip:
        raise error
    now[0].note(now[1], "entry", name, str(error))


def may_skip() -> bool:
    """Whether faulty entries are left out."""
    now = _NOW.get()
    return now is not None and now[0].skip
