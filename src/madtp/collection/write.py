"""Last stage: a chunk's answers to a file, and what was wrong beside. Needs no torch: its workers start at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp.collection.job import ERRORS, PARTS, input_errors
from madtp.collection.read import Chunk
from madtp.files import atomic_path


@dataclass
class Answered:
    """What the model says of a chunk: `table`, a pyarrow table with a row an answer."""

    chunk: Chunk
    table: Any


def write(out: Path, answered: Answered) -> dict[str, Any]:
    """Write a chunk's part, after what was wrong in it: where the part is, all of it is there.

    Returns:
        `part` ("" = the input could not be read), `rows` and `errors` written.
    """
    chunk = answered.chunk
    if chunk.errors:
        name = out / ERRORS / f"{chunk.part}.parquet" if chunk.part else input_errors(out, chunk.input)
        write_table(errors_table(chunk.errors), name)
    if chunk.part:
        write_table(answered.table, out / PARTS / f"{chunk.part}.parquet")
    return {"part": chunk.part, "rows": answered.table.num_rows if chunk.part else 0, "errors": len(chunk.errors)}


def errors_table(errors: list[tuple[str, str]]) -> Any:
    """`(id, reason)` as a table."""
    import pyarrow as pa

    texts = ([e[i].encode("utf-8", "backslashreplace").decode() for e in errors] for i in (0, 1))
    return pa.table(
        dict(zip(("id", "reason"), texts, strict=True)), pa.schema([("id", pa.string()), ("reason", pa.string())])
    )


def write_table(table: Any, path: Path) -> None:
    """A table as a parquet file, whole or not at all. Raises InputError where the disk is full."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def gather_errors(out: Path) -> int:
    """Join what was wrong in all parts, of this run and those before, into `errors.parquet`; how many there are."""
    import pyarrow.parquet as pq

    schema, total = errors_table([]).schema, 0
    with atomic_path(out / "errors.parquet") as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for file in sorted((out / ERRORS).rglob("*.parquet")):
            table = pq.read_table(file, schema=schema)
            writer.write_table(table)
            total += table.num_rows
    return total
