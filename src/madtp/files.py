"""Writing files so that a crash, a kill or a full disk never leaves half of one."""

import errno
import json
import logging
import math
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from madtp.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not told apart there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"

# What a training run writes, the model folder among it.
RUN_FILES = (
    "checkpoint.pt", "checkpoint-*.pt", "errors.jsonl", "log.jsonl", "run.json", "report.json", "report.html",
    "madtp-shards.json", "config.json", "generation_config.json",
    "*.safetensors", "*.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "vocab.txt",
    "added_tokens.json", "processor_config.json", "preprocessor_config.json",
)  # fmt: skip


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it takes the place of ``path`` when the block ends without error.

    Raises:
        InputError: the disk is full or the folder cannot be written; ``path`` is left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are private, ours get the permissions of any other file of the user's.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        ours = error.filename is None or Path(error.filename) in {temporary, path, *path.parents}
        if error.errno is None or not ours:  # the block's own failure, e.g. an encoder's, or of a file it reads
            raise
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        fix = "free the disk or choose another --out" if full else "choose another --out"
        raise InputError(f"cannot write: {error.strerror}", path, fix) from error
    finally:
        # Quiet, for it must not hide the error that led here: where a parent is a file, even looking fails.
        with suppress(OSError):
            temporary.unlink()


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk too, where the file system lets us."""
    with suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """For the block, `folder`, which is there, is this process's own; the lock ends with the process, however it ends.

    Raises:
        InputError: another process writes there.
    """
    file = Path(folder) / LOCK
    while True:
        try:
            number = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", folder, "choose another --out") from error
        try:
            if fcntl is not None:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(number, 200).decode(errors="replace").strip()
            os.close(number)
            fix = "wait for it or choose another --out"
            raise InputError(f"another run writes there ({who or 'unnamed'})", folder, fix) from None
        except OSError as error:  # a file system without locks
            logger.warning("%s: cannot be locked (%s): start no second run there", folder, error.strerror)
        with suppress(OSError):
            if os.fstat(number).st_ino == os.stat(file).st_ino:
                break
        os.close(number)  # of a run that ended in between and took its file along
    try:
        with suppress(OSError):  # on a full disk the lock is none the worse for not saying whose it is
            os.ftruncate(number, 0)
            os.write(number, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(number)


def check_writable(path: str | Path) -> None:
    """Raise InputError where a file could not be written, before the work that makes it."""
    path = Path(path)
    if path.is_dir():
        raise InputError("is a folder", path, "name a file in it")
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", path, "choose another place") from error


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` whole or not at all. Raises InputError as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, obj: Any) -> None:
    """Write ``obj`` as indented JSON, atomically."""
    atomic_write(path, json.dumps(obj, indent=2, ensure_ascii=False) + "\n")


def append_line(path: str | Path, entry: Mapping[str, Any]) -> None:
    """Add `entry` as a JSON line to a file; numbers that are not finite as null; behind half a line of a kill anew.

    Raises:
        InputError: the disk is full or the file cannot be written.
    """
    plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in entry.items()}
    line = json.dumps(plain, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
    try:
        with open(path, "ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                line = b"\n" + line
            file.write(line)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", path, "free the disk") from error


def check_folder(path: str | Path, overwrite: bool = False) -> None:
    """Refuse what `claim_folder` would refuse, making nothing.

    Raises:
        InputError: ``path`` is a file, or holds something and ``overwrite`` is False.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_dir():
            raise InputError("is a file, not a folder", path, "choose another --out")
        if path.is_dir() and any(file.name != LOCK for file in path.iterdir()) and not overwrite:
            raise InputError("holds another run", path, "choose another --out or add --overwrite")
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", path, "choose another --out") from error


@contextmanager
def claimed(path: str | Path, overwrite: bool, proof: str) -> Iterator[None]:
    """``path`` as the output folder of a run for the block; the files of a run before go only once the new one stands.

    They wait in a hidden folder inside. If the block fails before it has written the file ``proof``, they come back and
    those of the block go. Files that are none of a run's (`RUN_FILES`) are never touched.

    Raises:
        InputError: as `claim_folder`, or another process writes there.
    """
    new = not Path(path).exists()
    path = claim_folder(path, overwrite)
    try:
        with locked(path):
            check_folder(path, overwrite)  # another run may have been there since
            with _aside(path, proof):
                yield
    except BaseException:
        with suppress(OSError):  # where it is empty, and was not there before
            if new:
                path.rmdir()
        raise


@contextmanager
def _aside(path: Path, proof: str) -> Iterator[None]:
    """The files of a run before wait in a hidden folder; they come back if the block fails without its `proof`."""
    old = path / f".{secrets.token_hex(4)}.old"
    _move(path, old)
    try:
        yield
    except BaseException:
        if not (path / proof).exists():
            for file in _run_files(path):
                file.unlink()
            _move(old, path)
        raise
    finally:
        if (path / proof).exists():
            shutil.rmtree(old, ignore_errors=True)


def _run_files(folder: Path) -> list[Path]:
    return [file for pattern in RUN_FILES for file in folder.glob(pattern) if file.is_file()]


def _move(source: Path, target: Path) -> None:
    """The files of a run from one folder to another; an emptied source that is hidden goes."""
    files = _run_files(source) if source.is_dir() else []
    if files:
        target.mkdir(exist_ok=True)
    for file in files:
        os.replace(file, target / file.name)
    if source.name.endswith(".old") and source.is_dir():
        source.rmdir()


def claim_folder(path: str | Path, overwrite: bool = False) -> Path:
    """Make ``path`` an output folder of ours, before the work that fills it.

    Raises:
        InputError: it is a file, it cannot be made or written, or it holds something and ``overwrite`` is False.
    """
    path = Path(path)
    check_folder(path, overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", path, "choose another --out") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError("cannot be written", path, "choose another --out")
    return path
