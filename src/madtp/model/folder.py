"""Model folders that appear whole or not at all, and take no other's place unasked."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from madtp.errors import InputError
from madtp.model.save import disk_says


def check_destination(source: Path, destination: Path, overwrite: bool) -> None:
    """Whether a model folder may be written there.

    Args:
        source: what it is made of, which must not go with an old folder.
        destination: folder to write.
        overwrite: a model folder that is there may be replaced.

    Raises:
        InputError: it may not.
    """
    if destination.exists() and not destination.is_dir():
        raise InputError("is a file, not a folder", destination, "choose another folder")
    if not destination.is_dir() or not any(destination.iterdir()):
        return
    if not overwrite:
        raise InputError("is not empty", destination, "choose another folder or add --overwrite")
    if not (destination / "config.json").is_file():
        raise InputError("holds something that is no model", destination, "choose another folder")
    if source.resolve().is_relative_to(destination.resolve()):
        raise InputError("holds what is to be converted", destination, "choose another folder")


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """A temporary folder beside `destination` to write to; it takes its place when the block ends without error.

    Raises:
        InputError: the disk is full or the folder cannot be written; what was there is left as it was.
    """
    part = destination.absolute().parent / f".{destination.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        part.mkdir(parents=True)
        yield part
        _put(part, destination)
    except Exception as error:
        if (said := disk_says(error)) is None:
            raise
        raise InputError(f"cannot write: {said}", destination, "free the disk or choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put(part: Path, destination: Path) -> None:
    """Rename `part` to `destination`; what was there goes only once the new folder stands."""
    old = part.with_suffix(".old")
    if destination.is_dir():
        os.replace(destination, old)
    try:
        os.replace(part, destination)
    except OSError:
        if old.is_dir():
            os.replace(old, destination)
        raise
    shutil.rmtree(old, ignore_errors=True)
