"""First stage: an input to chunks of pictures, as they are stored, with their texts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

from madtp.collection.inputs import Input
from madtp.collection.job import Job, part_name
from madtp.data.shards import Place, index, is_image, read_at, texts_of
from madtp.data.table import IMAGE
from madtp.errors import InputError

BYTES = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
ID = ("id", "image_id", "key", "__key__")


@dataclass(frozen=True)
class Item:
    """A picture: its id in the collection, its file's bytes, its questions where the job takes them from there."""

    id: str
    data: bytes
    texts: tuple[str, ...] = ()


@dataclass
class Chunk:
    """What becomes one part.

    Attributes:
        input: its name.
        part: its name; "" where the whole input cannot be read.
        items: pictures.
        errors: `(id, reason)` of what is wrong.
    """

    input: str
    part: str
    items: list[Item] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


Get = Callable[[], Item]
"""Fetches a picture with what belongs to it. Raises InputError or OSError."""


def read(job: Job, source: Input) -> Iterator[Chunk]:
    """The chunks of an input whose parts are missing, in order; one without a part's name if it cannot be read.

    The same job and input give the same chunks, always: a cluster may have to do it again.
    """
    try:
        if source.kind == "tar":
            places = index(source.path)
            with source.path.open("rb") as file:
                yield from _cut(job, source, [_member(job, source, file, *one) for one in places.items()])
        elif source.kind == "files":
            yield from _cut(job, source, [_file(job, source, name) for name in source.members])
        else:
            yield from _parquet(job, source)
    except (InputError, OSError) as error:
        yield Chunk(source.name, "", errors=[(source.name, str(error))])


def _cut(job: Job, source: Input, gets: Sequence[tuple[str, Get]]) -> Iterator[Chunk]:
    of = max(1, -(-len(gets) // job.part_size))
    for number in range(of):
        if number not in source.done:
            start = number * job.part_size
            yield _chunk(source.name, number, of, gets[start : start + job.part_size])


def _chunk(name: str, number: int, of: int, some: Sequence[tuple[str, Get]]) -> Chunk:
    chunk = Chunk(name, part_name(name, number, of))
    for key, get in some:
        try:
            chunk.items.append(get())
        except InputError as error:
            chunk.errors.append((key, str(error)))
        except OSError as error:
            chunk.errors.append((key, f"cannot be read: {error.strerror}"))
    return chunk


def _asked(job: Job, texts: Sequence[str]) -> tuple[str, ...]:
    if job.asks and not texts:
        raise InputError("has no question; give it one, or ask one of all by --text")
    return tuple(texts) if job.asks else ()


def _file(job: Job, source: Input, name: str) -> tuple[str, Get]:
    return name, lambda: Item(name, (source.path / name).read_bytes(), _asked(job, ()))


def _member(job: Job, source: Input, file: BinaryIO, key: str, members: dict[str, Place]) -> tuple[str, Get]:
    name = f"{source.name}/{key.removeprefix('./')}"

    def get() -> Item:
        image = min(filter(is_image, members), key=lambda ending: ending.count("."), default=None)
        if image is None:
            raise InputError(f"no picture is there, only {', '.join(sorted(members))}")
        texts = [q.text for q in texts_of("vqa", source.path, key, members, name)] if job.asks else []
        return Item(name, read_at(file, members[image]), _asked(job, texts))

    return name, get


def _parquet(job: Job, source: Input) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source.path) as file:
            rows, names = file.metadata.num_rows, file.schema_arrow.names
            columns = {kind: next((n for n in some if n in names), None) for kind, some in _COLUMNS.items()}
            if columns["bytes"] is None and columns["path"] is None:
                raise InputError(f"has columns {', '.join(names)}", source.path, f"name one {BYTES[0]} or {IMAGE[1]}")
            wanted = [name for name in columns.values() if name]
            of = max(1, -(-rows // job.part_size))
            first = next((number for number in range(of) if number not in source.done), of)
            groups, start = [], 0
            for group in range(file.metadata.num_row_groups):  # those behind what is there already
                end = start + file.metadata.row_group(group).num_rows
                if end > first * job.part_size:
                    groups.append(group)
                start = end
            offset = rows - sum(file.metadata.row_group(group).num_rows for group in groups)
            each = (
                row
                for batch in file.iter_batches(batch_size=64, row_groups=groups, columns=wanted)
                for row in batch.to_pylist()
            )
            for _ in islice(each, first * job.part_size - offset):
                pass
            for number in range(first, of):
                some = list(enumerate(islice(each, job.part_size), number * job.part_size))
                if number not in source.done:
                    gets = [_row(job, source, columns, place, row) for place, row in some]
                    yield _chunk(source.name, number, of, gets)
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"is no whole parquet file ({said})", source.path) from error


_COLUMNS = {"bytes": BYTES, "path": IMAGE[1:], "id": ID, "question": ("question",), "questions": ("questions",)}


def _row(job: Job, source: Input, columns: dict[str, Any], place: int, row: dict[str, Any]) -> tuple[str, Get]:
    own = row.get(columns["id"])
    name = f"{source.name}/{place}" if own is None else str(own)

    def get() -> Item:
        value = row.get(columns["bytes"])
        if isinstance(value, dict):  # as the library datasets stores pictures
            value = value.get("bytes") or value.get("path")
        value = row.get(columns["path"]) if value is None else value
        if isinstance(value, str):
            value = (source.path.parent / value).read_bytes()
        if not isinstance(value, bytes):
            raise InputError("no picture is there")
        several = row.get(columns["questions"]) or [row.get(columns["question"])]
        return Item(name, value, _asked(job, [q for q in several if isinstance(q, str) and q.strip()]))

    return name, get
