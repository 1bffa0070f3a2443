"""What a collection consists of: tars, parquet files, or a folder's pictures in groups. Nothing is opened here."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from madtp.data.shards import is_pattern, shard_files
from madtp.data.table import pictures
from madtp.errors import InputError


@dataclass(frozen=True)
class Input:
    """A piece of a collection that one worker reads from end to end.

    Attributes:
        name: names its parts; unique, whatever the place of the collection.
        kind: "tar", "parquet" or "files".
        path: the file; for "files" the folder.
        size: tells if it has changed: bytes; for "files" a number made of their names.
        names: files: their names, with a zero byte between: a string each would take four times the memory.
        done: numbers of its parts that are there.
    """

    name: str
    kind: str
    path: Path
    size: int
    names: str = ""
    done: frozenset[int] = frozenset()

    @property
    def members(self) -> list[str]:
        """files: their names."""
        return self.names.split("\0") if self.names else []


def find_inputs(data: str, part_size: int) -> list[Input]:
    """The inputs of a folder of tars, parquet files or pictures (the first of these it has), of a file, or a pattern.

    Args:
        data: path, or a pattern of tars like ``shard-{000..010}.tar`` or ``*.tar``.
        part_size: pictures a group where they lie in a folder.

    Raises:
        InputError: there is nothing of the kind.
    """
    path = Path(data)
    if not path.exists() and not is_pattern(data):
        raise InputError("no such folder or file", data, "give tars, parquet files or a folder of pictures")
    if path.is_dir():
        for ending in (".tar", ".parquet"):
            if found := sorted(file for file in path.rglob(f"*{ending}") if not _hidden(file, path)):
                return [_file(file, path) for file in found]
        groups = list(_groups(path, part_size))
        if not groups:
            raise InputError("holds no tars, parquet files or pictures", data)
        return groups
    if path.suffix == ".parquet":
        return [_file(path, path.parent)]
    if path.suffix != ".tar" and not is_pattern(data):
        raise InputError("is neither a tar nor a parquet file", data, "give such, or a folder")
    files = shard_files(path)
    if not files or (absent := [file for file in files if not file.is_file()]):
        raise InputError(f"no such tar: {absent[0].name}" if files else "fits no file", data)
    homes = {file.parent for file in files}
    home = next(iter(homes)) if len(homes) == 1 else Path(*_common(files))
    return [_file(file, home) for file in files]


def _common(files: list[Path]) -> tuple[str, ...]:
    parts = [file.parent.parts for file in files]
    return tuple(a for a, *rest in zip(*parts, strict=False) if all(b == a for b in rest))


def _hidden(file: Path, home: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(home).parts)


def _file(path: Path, home: Path) -> Input:
    name = path.relative_to(home).with_suffix("").as_posix()
    return Input(name, path.suffix[1:], path, path.stat().st_size)


def _groups(folder: Path, size: int) -> Iterator[Input]:
    names, number = pictures(folder), 0
    while some := tuple(islice(names, size)):
        joined = "\0".join(some)
        digest = hashlib.sha256(joined.encode("utf-8", "surrogateescape")).digest()
        yield Input(f"files-{number:06d}", "files", folder, int.from_bytes(digest[:6], "big"), joined)
        number += 1
