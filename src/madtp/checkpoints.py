"""Checkpoint files of a run: whole or not there, with a checksum, the last few kept, a damaged one passed over."""

import errno
import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from madtp.errors import InputError
from madtp.files import atomic_path

logger = logging.getLogger(__name__)

STATE = "checkpoint.pt"
"""The newest. The one before it is ``checkpoint-1.pt``, then ``checkpoint-2.pt`` and so on."""

_MARK = b"madtp-sha256:"
_TAIL = len(_MARK) + 64 + 1


class _Hashed:
    """A file to write to that knows the SHA-256 of all it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.sha.update(data)
        try:
            return self.file.write(data)
        except OSError as error:  # torch tells of it in words of its own
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def older(folder: Path) -> list[Path]:
    """The checkpoints before the newest, newest first."""
    numbers = {path: path.stem.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*.pt")}
    return sorted((path for path, number in numbers.items() if number.isdigit()), key=lambda path: int(numbers[path]))


def is_there(folder: Path) -> bool:
    """Whether a run in this folder can be resumed."""
    return (folder / STATE).is_file() or bool(older(folder))


def forget(folder: Path) -> None:
    """Remove all checkpoints of a folder."""
    for path in (folder / STATE, *older(folder)):
        path.unlink(missing_ok=True)


def write(folder: Path, state: Any, keep: int) -> None:
    """Make `state` the newest checkpoint of a folder; `keep` are kept in all.

    At every instant the folder holds a whole one, whenever the process is killed. A line behind the archive holds the
    SHA-256 of all before it; `torch.load` reads the file as it is.

    Raises:
        InputError: the disk is full or the folder cannot be written; the checkpoints before stay.
    """
    path = folder / STATE
    with atomic_path(path) as temporary:
        hashed = None
        try:
            with open(temporary, "wb") as file:
                hashed = _Hashed(file)
                torch.save(state, hashed)  # type: ignore[arg-type]  # it needs no more than `write`
                file.write(_MARK + hashed.sha.hexdigest().encode() + b"\n")
        except (RuntimeError, OSError) as error:
            cause = error if isinstance(error, OSError) else None if hashed is None else hashed.error
            if cause is None:
                raise
            full = cause.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
            said = "the disk is full" if full else cause.strerror
            raise InputError(
                f"cannot write the checkpoint: {said}", path, "free the disk, then go on (--resume)"
            ) from error
        _make_room(folder, keep)


def _make_room(folder: Path, keep: int) -> None:
    """Give every checkpoint the number behind its own; the newest keeps its name too until the next takes it."""
    before = older(folder)
    for path in before[max(0, keep - 2) :]:
        path.unlink(missing_ok=True)
    for number, path in reversed(list(enumerate(before[: max(0, keep - 2)], start=2))):
        os.replace(path, folder / f"checkpoint-{number}.pt")
    newest = folder / STATE
    if keep > 1 and newest.is_file():
        first = folder / "checkpoint-1.pt"
        try:
            os.link(newest, first)
        except OSError:  # a file system without links: for an instant there is none of the newest's name
            os.replace(newest, first)


def read(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a folder that is whole; one that is damaged is told of in a warning and passed over.

    Raises:
        InputError: there is none, or none that is whole.
    """
    for part in folder.glob(f".{STATE}.*.part"):  # of a run that was killed while it wrote
        with suppress(OSError):
            part.unlink()
    newest, faults = folder / STATE, list[InputError]()
    for path in [newest, *older(folder)]:
        if not path.is_file():
            continue
        try:
            state = _read(path)
        except InputError as error:
            faults.append(error)
            continue
        for fault in faults:
            logger.warning("%s", fault)
        if faults:
            logger.warning("going on from the checkpoint before: %s, step %s", path, state["step"])
        return state
    if faults:
        raise faults[0]
    raise InputError("nothing to resume: no checkpoint", newest, "start without --resume")


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint. One without a checksum, of an earlier version, is taken as it is where it can be read."""
    damaged = InputError("damaged, cut short or not a checkpoint", path, "remove it, or start again with --overwrite")
    try:
        if not _sum_is_right(path):
            raise damaged
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path, "see to the disk") from error
    except InputError:
        raise
    except Exception as error:
        raise damaged from error
    if not isinstance(state, dict) or not {"config", "step", "optimizer", "gradients"} <= state.keys():
        raise InputError("not a checkpoint of this program", path, "remove it, or start again with --overwrite")
    return state


def _sum_is_right(path: Path) -> bool:
    with open(path, "rb") as file:
        left = file.seek(0, os.SEEK_END) - _TAIL
        if left < 0:
            return True  # for torch to judge
        file.seek(left)
        tail = file.read()
        if not tail.startswith(_MARK):
            return True
        sha = hashlib.sha256()
        file.seek(0)
        while left and (block := file.read(min(left, 1 << 20))):
            sha.update(block)
            left -= len(block)
        return tail[len(_MARK) : -1] == sha.hexdigest().encode()
