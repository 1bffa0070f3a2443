"""What the loops need to know about a task: how to batch it, its loss, its answers and its metrics."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from madtp.cost.flops import Flops, count, count_dense
from madtp.data.images import ImageFile, ImageSource
from madtp.data.sample import Data, Sample
from madtp.data.stream import Stream
from madtp.errors import InputError
from madtp.metric import exact_match
from madtp.model.shape import shape_of
from madtp.prune import Trace
from madtp.task.distill import Teacher

Batch = dict[str, Any]
Item = tuple[Tensor, Any, list[Any]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer, with what it is about.

    Attributes:
        id: of the question, statement or caption; of the picture where only that is given.
        text: the question, statement or caption; "" for captioning.
        answer: what the model says.
        truth: what the data says (task's own form).
        image_id: of the sample.
        objects: in the picture(s), where that is known.
        kind: of the text, where the data names kinds.
        side: what `Task.finish` needs (retrieval: features of picture and text, the picture's tokens).
    """

    id: str
    text: str
    answer: str
    truth: Any
    image_id: str
    objects: int | None
    kind: str = ""
    side: tuple[Any, ...] = field(default=(), repr=False, compare=False)


CACHED = 1 << 28  # 1 GiB
Rankings = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Scored:
    """Predictions of a whole split, judged.

    Attributes:
        predictions: in the data's order.
        metrics: name -> score, higher = better; empty where nothing is known to be true.
        scoring: how they were judged, where there is more than one way.
        captions_found, pictures_found: retrieval: ids of the best captions for each picture's id and of the best
            pictures for each caption's, best first.
    """

    predictions: list[Prediction]
    metrics: dict[str, float] = field(default_factory=dict)
    scoring: dict[str, Any] = field(default_factory=dict)
    captions_found: Rankings = field(default_factory=dict, repr=False)
    pictures_found: Rankings = field(default_factory=dict, repr=False)


class TaskDataset(Dataset[Item]):
    """Pixels and texts of a sample; with `per_image`, a random few texts, drawn anew every epoch.

    Args:
        data: the split.
        task: prepares pictures, and weighs texts in the draw.
        per_image: most texts of a sample in one epoch; None = all, in order.
        seed: of the draw.
        shift: most pixels by which a training image is moved, edges repeated.
        cache: keep prepared pixels in memory (of small images, `CACHED` numbers at most).
    """

    def __init__(
        self,
        data: Data[Any] | Stream,
        task: "Task",
        per_image: int | None = None,
        seed: int = 0,
        shift: int = 0,
        cache: bool = True,
    ) -> None:
        self.data, self.task, self.per_image, self.seed, self.shift = data, task, per_image, seed, shift
        self.epoch = 0
        self._pixels: dict[int, Tensor] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.data)

    def pixels(self, index: int) -> Tensor:
        """`[k, 3, height, width]` the sample's k different pictures as the image tower takes them."""
        if self._pixels is not None and index in self._pixels:
            return self._pixels[index]
        pixels = torch.stack([self.task.pixels(image) for image in distinct(self.data[index].images)])
        room = CACHED // pixels.numel() - len(self._pixels or ())
        if self._pixels is not None and pixels[0].numel() <= 1 << 17 and room > 0:
            self._pixels[index] = pixels
        return pixels

    def __getitem__(self, index: int) -> Item:
        sample = self.data[index]
        pixels, texts = self.pixels(index), list(sample.texts)
        # Drawn from (seed, epoch, index), not from a running generator: a resumed run draws the same.
        draw = np.random.default_rng((self.seed, self.epoch, index))
        if self.per_image is not None and len(texts) > self.per_image:
            weight = np.array([self.task.weight(text) for text in texts])
            some = draw.choice(len(texts), self.per_image, replace=False, p=weight / weight.sum())
            texts = [texts[i] for i in sorted(some)]
        if self.shift:
            moves = draw.integers(-self.shift, self.shift + 1, (len(pixels), 2))
            pixels = torch.stack([_shifted(p, int(dy), int(dx)) for p, (dy, dx) in zip(pixels, moves, strict=True)])
        return pixels, sample, texts


class Task(ABC):
    """A task. A subclass is small: what a batch holds, the loss, the answer, the metric.

    Args:
        processor: image processor and tokenizer of the model.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[str]
    text_name: ClassVar[str]  # what the texts are called, in the plural
    options: ClassVar[frozenset[str]] = frozenset()  # settings of its own that a user may give
    judged: ClassVar[bool] = True  # an answer is right where it equals the true one
    mark_name: ClassVar[str] = ""  # what `marks` are, where not 1 = right and 0 = wrong

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer

    def dataset(self, data: Data[Any] | Stream, *, training: bool = False, **options: Any) -> TaskDataset:
        """The split as a torch data set; `options` as `TaskDataset` takes them, used in training only."""
        return TaskDataset(data, self, **(options if training else {"cache": False}))  # read once

    def pixels(self, image: ImageSource) -> Tensor:
        """`[3, height, width]` a picture as the image tower takes it."""
        pixels: Tensor = self.processor.image_processor(image.open(), return_tensors="pt")["pixel_values"][0]
        return pixels

    def weight(self, text: Any) -> float:
        """How often a text is drawn, relative to the sample's others."""
        return 1.0

    @staticmethod
    @abstractmethod
    def words_of(data: Data[Any]) -> Iterator[str]:
        """Every text whose words a fresh vocabulary must hold."""

    @abstractmethod
    def collate(self, items: Sequence[Item]) -> Batch:
        """Pictures once each, their texts in order. Holds `pixel_values`, `image_index`, `samples` and `texts`."""

    @abstractmethod
    def inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the towers take (`model.encode`)."""

    def trace(self, model: Any, batch: Batch) -> Trace:
        """What the towers do with a batch."""
        trace: Trace = model.encode(**self.inputs(batch)).trace
        return trace

    @abstractmethod
    def loss(
        self, model: Any, batch: Batch, helper: Any = None, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, float], Trace]:
        """Training loss of a batch, numbers to log, and the trace.

        Args:
            model: to be trained.
            batch: from `collate`.
            helper: as `helper` made it.
            teacher: how far the model is from it is part of the loss.
        """

    def expect(self, trace: Trace, batch: Batch) -> Trace:
        """Fill in the work of a decoder as if it gave the first reference answer; in place."""
        return trace

    @abstractmethod
    def predict(
        self, model: Any, batch: Batch, answers: Sequence[str] = (), provenance: bool = False
    ) -> tuple[list[Prediction], Any]:
        """Answer a batch's texts. Returns the predictions and what the towers gave (with its trace)."""

    def quick(self) -> Self:
        """The task without what takes long to score and is not worth it to tell the best epoch."""
        return self

    @abstractmethod
    def finish(self, model: Any, predictions: list[Prediction]) -> Scored:
        """After the last batch: the final predictions and their scores."""

    @abstractmethod
    def words_for(self, prediction: Prediction) -> tuple[str, str]:
        """The answer and the true one in words; "" = there is none."""

    def marks(self, scored: Scored) -> list[float | None]:
        """How good each prediction is by itself, higher = better; None where the true answer is not known."""
        said = [self.words_for(prediction) for prediction in scored.predictions]
        return [float(exact_match(answer, truth)) if truth else None for answer, truth in said]

    @abstractmethod
    def write(self, path: Path, scored: Scored) -> None:
        """Write what `finish` gave in the format of the benchmark's server. Raises InputError."""

    @abstractmethod
    def example(self, images: Sequence[str | ImageSource], *texts: str) -> Item:
        """Pictures of the user's, files or held, and texts about them, as the data set would give them."""

    def tagging_loss(self, model: Any, batch: Batch) -> Tensor:
        """Loss of the first epochs, in which an image tower from scratch learns to say what is there.

        Raises:
            InputError: the task's texts do not say what is in a picture.
        """
        raise InputError(
            f"the texts of {self.name} do not say what is in a picture",
            "--tag-epochs",
            "use --start instead",
        )

    def helper(self, model: Any, seed: int, ramp: int) -> nn.Module | None:
        """What training needs beside the model and is not saved with it (queues, momentum towers); None = nothing.

        Args:
            model: to be trained.
            seed: of its draws.
            ramp: steps of an epoch, over which it may ease in.
        """
        return None

    def settings(self) -> dict[str, Any]:
        """Settings that a resumed run must have the same."""
        return {}

    def _read_pictures(self, images: Sequence[str | ImageSource], most: int) -> tuple[Tensor, list[ImageSource]]:
        if not 1 <= len(images) <= most:
            fix = "give one" if most == 1 else f"give 1 to {most}"
            raise InputError(f"{len(images)} images for one {self.name} example", "--image", fix)
        files = [ImageFile(image) if isinstance(image, str | Path) else image for image in images]
        return torch.stack([self.pixels(file) for file in files]), files


def distinct(images: Iterable[ImageSource]) -> list[ImageSource]:
    """Each picture once, in order; the same object is the same picture."""
    return list({id(image): image for image in images}.values())


def picture_index(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """`[texts]` number of the first picture of each text's sample in the batch, and of its last."""
    first, last, start = [], [], 0
    for pixels, _, texts in items:
        first += [start] * len(texts)
        start += len(pixels)
        last += [start - 1] * len(texts)
    return torch.tensor(first, dtype=torch.long), torch.tensor(last, dtype=torch.long)


def owners(items: Sequence[Item]) -> list[Sample]:
    """The sample of each text of a batch."""
    return [sample for _, sample, texts in items for _ in texts]


def cost(model: Any, trace: Trace) -> tuple[Flops, Flops]:
    """GFLOPs per text of what a trace records, and of the dense model on the same inputs."""
    shape = shape_of(model)
    return count(shape, trace), count_dense(shape, trace)


def _shifted(pixels: Tensor, down: int, right: int) -> Tensor:
    rows = (torch.arange(pixels.shape[1]) - down).clamp(0, pixels.shape[1] - 1)
    columns = (torch.arange(pixels.shape[2]) - right).clamp(0, pixels.shape[2] - 1)
    return pixels[:, rows][:, :, columns]
