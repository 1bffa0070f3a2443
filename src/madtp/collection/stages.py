"""The stages behind reading: decode the pictures of a chunk, let the model answer."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from madtp.collection.job import Job
from madtp.collection.read import Chunk, Item
from madtp.collection.write import Answered
from madtp.data.images import decode as open_picture
from madtp.data.sample import CaptionSample, Question, VqaSample
from madtp.errors import InputError
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
        from madtp.model.precision import ready
        from madtp.model.shape import kind_of
        from madtp.task.registry import make_task, task_name

        if job.threads is not None:
            torch.set_num_threads(job.threads)
        self.job = job
        model: Any = load(job.model)
        self.kind = kind_of(model)
        self.model: Any = ready(model, job.device, job.dtype)
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
            for row in self._answer(items[some], self.pixels(decoded.pixels[some])):
                for name, value in zip(schema.names, row, strict=True):
                    columns[name].append(value)
        return Answered(decoded.chunk, pa.table(columns, schema=schema))

    def pixels(self, bytes_: Tensor) -> Tensor:
        """`[n, 3, height, width]` decoded pictures, in bytes, as the model takes them, where it is."""
        floats = (bytes_.to(self.model.device).float() * self.scale - self.mean) / self.std
        return floats.to(self.model.dtype)

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
            ids, mask = self.task.tokens(self.job.choices)  # type: ignore[attr-defined]
            self._choices = self.model.read(ids.to(self.model.device), mask.to(self.model.device)).feature.float()
        return self._choices
