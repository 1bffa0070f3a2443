"""What the pipelines share: which inputs they take, batches, and the shape of what they give back."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from madtp.answer import check_texts
from madtp.data.images import ImageFile, ImageHeld, ImageSource
from madtp.errors import InputError
from madtp.task.base import Task

T = TypeVar("T")
R = TypeVar("R")
Picture = str | Path | Image.Image | ImageSource


def picture(image: Picture) -> ImageSource:
    """A picture to be opened: a path, a ``file://`` URL, a PIL image, or a source of ours as it is.

    Raises:
        InputError: it is none of these; a URL of another machine.
    """
    if isinstance(image, Image.Image):
        return ImageHeld(image)
    if not isinstance(image, str | os.PathLike):  # a path has an `open`, too
        if isinstance(image, ImageSource):
            return image
        raise InputError(f"is a {type(image).__name__}, not a picture", "image", "give a path, a file URL or PIL's")
    text = os.fspath(image)
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return ImageFile(url2pathname(parts.path))
    if "://" in text:
        raise InputError("is not a file of this machine", text, "download it first")
    return ImageFile(text)


class Pipeline:
    """One model at work on a user's pictures and texts. See its subclasses for the calls.

    Args:
        model: of the task; `model.temperature` sets its budget, None = dense.
        task: with the model's processor.
        batch_size: pictures a batch; answers do not depend on it.
    """

    def __init__(self, model: Any, task: Task, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise InputError(f"{batch_size} pictures are none", "batch_size", "use 1 or more")
        self.model, self.task, self.batch_size = model.eval(), task, batch_size

    @property
    def processor(self) -> Any:
        """Of the model."""
        return self.task.processor

    def batched(self, units: Iterable[T], run: Callable[[list[T]], list[R]], size: int | None) -> Iterator[R]:
        """What `run` makes of each unit, by batches of `size` (None = the pipeline's own), as they are asked for."""
        size = self.batch_size if size is None else size
        if size < 1:
            raise InputError(f"{size} pictures are none", "batch_size", "use 1 or more")
        batch: list[T] = []
        for unit in units:
            batch.append(unit)
            if len(batch) == size:
                yield from run(batch)
                batch = []
        if batch:
            yield from run(batch)

    def _pixels(self, images: Iterable[Picture]) -> Iterator[Tensor]:
        return (self.task.pixels(picture(image)) for image in images)


def shaped(given: Any, run: Callable[[Iterable[Any]], Iterator[Any]]) -> Any:
    """One result for one input, a list for a list, an iterator for a data set or what else can be iterated over."""
    if isinstance(given, list | tuple):
        return list(run(given))
    if isinstance(given, str | os.PathLike | Image.Image | dict | ImageSource):
        return next(run([given]))
    if isinstance(given, Dataset):
        return run(given[i] for i in range(len(given)))  # type: ignore[arg-type]
    return run(given) if isinstance(given, Iterable) else next(run([given]))


def pairs_of(first: Any, second: Any, one: str, other: str) -> Any:
    """Pictures and texts as the dictionaries that `asked` reads; one of either goes with every one of the other."""
    if second is None:
        return first
    if isinstance(second, str):
        many = isinstance(first, list | tuple)
        return [{one: image, other: second} for image in first] if many else {one: first, other: second}
    if isinstance(first, list | tuple):
        raise InputError(f"{one} and {other} are both lists", other, f'give [{{"{one}": ..., "{other}": ...}}, ...]')
    return [{one: first, other: text} for text in second]


def asked(given: Any, one: str, other: str) -> tuple[Any, str]:
    """The pictures and the text of a dictionary. Raises InputError where one is missing, or the text is empty."""
    if not isinstance(given, dict) or given.get(one) is None:
        raise InputError(f"is no {one} with its {other}", one, f'give {{"{one}": ..., "{other}": ...}}')
    (text,) = check_texts([given.get(other) or ""], other)
    return given[one], text


def joined(pairs: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, list[str]]]:
    """Texts in a row about the very same picture, together."""
    last: tuple[Any, list[str]] | None = None
    for image, text in pairs:
        if last is not None and image is last[0]:
            last[1].append(text)
            continue
        if last is not None:
            yield last
        last = (image, [text])
    if last is not None:
        yield last


def best_first(scores: Iterable[tuple[str, float]], name: str) -> list[dict[str, Any]]:
    """The best first; of equals, the first."""
    return [{"score": score, name: key} for key, score in sorted(scores, key=lambda pair: -pair[1])]
