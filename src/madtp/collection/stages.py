"""The stages behind reading: decode the pictures of a chunk, let the model answer, write its part."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from madtp.collection.job import ERRORS, PARTS, Job, input_errors
from madtp.collection.read import Chunk, Item
from madtp.data.images import decode as open_picture
from madtp.data.sample import CaptionSample, Question, VqaSample
from madtp.errors import InputError
from madtp.files import atomic_path
from madtp.task.base import Task


@dataclass
class Decoded:
    """A chunk whose pictures can be opened.

    Attributes:
        chunk: the items that were opened, and what is wrong with the others; their files' bytes are gone.
        pixels: `[n, 3, height, width]` uint8, of the size that the model takes: a quarter of what it would be in float.
    """

    chunk: Chunk
    pixels: Tensor


@dataclass
class Answered:
    """What the model says of a chunk: `table`, a pyarrow table with a row an answer."""

    chunk: Chunk
    table: Any


@lru_cache(maxsize=2)
def _processor(model: str) -> Any:
    from madtp.model.load import load_processor

    return load_processor(model)


def decode(job: Job, chunk: Chunk) -> Decoded:
    """Open and resize the pictures of a chunk; those that are broken go to its errors."""
    prepare = _processor(job.model).image_processor
    opened: list[Item] = []
    pixels: list[Tensor] = []
    for item in chunk.items:
        try:
            image = open_picture(io.BytesIO(item.data), None)
            small = prepare(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
        except InputError as error:
            chunk.errors.append((item.id, str(error)))
            continue
        except ValueError as error:  # a picture of no height beside the model's
            chunk.errors.append((item.id, f"cannot be brought to the model's size ({error})"))
            continue
        opened.append(Item(item.id, b"", item.texts))
        pixels.append(small)
    chunk.items = opened
    return Decoded(chunk, torch.stack(pixels) if pixels else torch.empty(0, 3, 1, 1, dtype=torch.uint8))


class Predict:
    """The model at work: `predict(decoded) -> Answered`. It is loaded once.

    Raises:
        InputError: no such model.
    """

    def __init__(self, job: Job) -> None:
        from madtp.model.load import load
        from madtp.model.shape import kind_of
        from madtp.task.registry import make_task, task_name

        if job.threads is not None:
            torch.set_num_threads(job.threads)
        self.job = job
        model: Any = load(job.model)
        self.kind = kind_of(model)
        self.model: Any = model.to(job.device, getattr(torch, job.dtype)).eval()
        if job.temperature is not None:
            self.model.temperature = job.temperature or None
        self.processor = _processor(job.model)
        options: dict[str, Any] = {"prompt": job.prompt, "beams": job.beams}
        if job.task == "rank" and self.kind == "vqa":
            options["inference"] = "rank"
        self.task: Task = make_task(task_name(model), self.processor, **options)
        how = self.processor.image_processor
        self.scale = float(how.rescale_factor)
        self.mean, self.std = (
            torch.tensor(x, device=job.device)[:, None, None] for x in (how.image_mean, how.image_std)
        )
        self._choices: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, decoded: Decoded) -> Answered:
        """Batch after batch in the order of the chunk: nothing is sorted, and nothing padded that the model prunes."""
        import pyarrow as pa

        schema = self.schema()
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        items = decoded.chunk.items
        for start in range(0, len(items), self.job.batch_size):
            some = slice(start, start + self.job.batch_size)
            pixels = (decoded.pixels[some].to(self.model.device).float() * self.scale - self.mean) / self.std
            for row in self._answer(items[some], pixels.to(self.model.dtype)):
                for name, value in zip(schema.names, row, strict=True):
                    columns[name].append(value)
        return Answered(decoded.chunk, pa.table(columns, schema=schema))

    def schema(self) -> Any:
        """Columns of a part."""
        import pyarrow as pa

        text = pa.string()
        if self.job.task == "caption":
            return pa.schema([("id", text), ("caption", text)])
        if self.job.task == "embed":
            return pa.schema([("id", text), ("embedding", pa.list_(pa.float32(), self.model.feature_width))])
        if self.kind == "vqa":
            return pa.schema([("id", text), ("image", text), ("question", text), ("answer", text)])
        return pa.schema([("id", text), ("answer", text), ("similarity", pa.float32())])

    def _answer(self, items: list[Item], pixels: Tensor) -> Iterator[tuple[Any, ...]]:
        if self.kind in ("retrieval", "clip"):
            features = self.model.see(pixels).feature.float()
            if self.job.task == "embed":
                yield from zip([item.id for item in items], features.cpu().numpy(), strict=True)
                return
            best = (features @ self._texts().T).max(1)
            answers = [self.job.choices[i] for i in best.indices.tolist()]
            yield from zip([item.id for item in items], answers, best.values.tolist(), strict=True)
            return
        source: Any = None  # the pictures are open already
        samples: list[Any] = []
        for item in items:
            if self.kind == "caption":
                samples.append(CaptionSample(item.id, source, ()))
                continue
            texts = item.texts if self.job.text is None else (self.job.text,)
            names = [item.id] if len(texts) == 1 else [f"{item.id}#{k}" for k in range(len(texts))]
            questions = tuple(Question(text, (), (), name) for text, name in zip(texts, names, strict=True))
            samples.append(VqaSample(item.id, source, questions))
        batch = self.task.collate([(pixels[i : i + 1], s, list(s.texts)) for i, s in enumerate(samples)])
        batch = {key: x.to(self.model.device) if isinstance(x, Tensor) else x for key, x in batch.items()}
        for p in self.task.predict(self.model, batch, self.job.choices)[0]:
            yield (p.id, p.answer) if self.kind == "caption" else (p.id, p.image_id, p.text, p.answer)

    def _texts(self) -> Tensor:
        """`[n, d]` features of the choices."""
        if self._choices is None:
            ids, mask = self.task._tokens(self.job.choices)  # type: ignore[attr-defined]
            self._choices = self.model.read(ids.to(self.model.device), mask.to(self.model.device)).feature.float()
        return self._choices


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
