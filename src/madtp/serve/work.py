"""From a request's pictures and texts to answers: decoded in threads, run in batches with those of others."""

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from madtp.answer import Answer, Seen, check_texts
from madtp.data.images import decode
from madtp.errors import InputError
from madtp.serve.batcher import Batcher
from madtp.serve.engine import Budget, Engine
from madtp.serve.limits import Limits

T = TypeVar("T")


class TooLarge(InputError):
    """A picture or a request is over a limit."""


@dataclass(frozen=True)
class Upload:
    """A picture as it came.

    Attributes:
        data: the file's bytes.
        name: for messages.
        max_pixels: above which it is refused before it is decoded.
    """

    data: bytes
    name: str
    max_pixels: int

    def open(self) -> Image.Image:
        """The picture. Raises InputError where it cannot be had, TooLarge where it has too many pixels."""
        try:
            return decode(io.BytesIO(self.data), self.name, self.max_pixels)
        except InputError as error:
            raise (TooLarge(error) if "is over the limit" in str(error) else error) from None


class Worker:
    """An engine with its batcher and the threads that decode pictures.

    Args:
        engine: the model.
        limits: of pictures and texts.
        most: texts or pictures of a batch.
        told: told the units of every batch.
    """

    def __init__(self, engine: Engine, limits: Limits, most: int, told: Callable[[int], None]) -> None:
        self.engine, self.limits = engine, limits
        self.batcher = Batcher(engine.run, most, told)
        self._decoders = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="madtp-decode")

    async def stop(self) -> None:
        """End the threads; within the running event loop."""
        await self.batcher.stop()
        self._decoders.shutdown(cancel_futures=True)

    async def _thread(self, run: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, run, *arguments)

    def uploads(self, files: Sequence[tuple[bytes, str]]) -> list[Upload]:
        """Pictures of a request. Raises TooLarge where there are too many."""
        if len(files) > self.limits.images:
            raise TooLarge(f"{len(files)} pictures", "image", f"at most {self.limits.images} in a request")
        return [Upload(data, f"image {i} ({name[:80]})", self.limits.pixels) for i, (data, name) in enumerate(files, 1)]

    def texts(self, texts: Sequence[str], where: str) -> list[str]:
        """Texts of a request. Raises TooLarge where there are too many or one is too long, InputError for none."""
        if len(texts) > self.limits.texts:
            raise TooLarge(f"{len(texts)} texts", where, f"at most {self.limits.texts} in a request")
        for text in texts:
            if len(text) > self.limits.text:
                raise TooLarge(f"{len(text)} characters", where, f"at most {self.limits.text}")
        return check_texts(texts, where)

    async def answers(
        self, budget: Budget, asked: Sequence[tuple[Sequence[Upload], Sequence[str]]], choices: Sequence[str] = ()
    ) -> list[Answer]:
        """Answers to each group of pictures and its texts; a caption where there is no text."""
        example = self.engine.task.example
        made = [self._thread(lambda g=group: example(g[0], *g[1])) for group in asked]
        items = await _all(made)
        sizes = [max(1, len(texts)) for _, texts in asked]
        found = await self.batcher(("answer", budget, tuple(choices)), items, sizes)
        return [answer for some in found for answer in some]

    async def seen(self, budget: Budget, images: Sequence[Upload]) -> list[Seen]:
        """Pictures through the image tower, for retrieval."""
        pixels: list[Tensor] = await _all([self._thread(self.engine.task.pixels, image) for image in images])
        return await self.batcher(("see", budget), pixels)

    async def read(self, budget: Budget, texts: Sequence[str]) -> list[Tensor]:
        """Features of texts, for retrieval."""
        return await self.batcher(("read", budget), list(texts))

    async def scores(self, budget: Budget, images: Sequence[Upload], texts: Sequence[str]) -> list[list[float]]:
        """A list a picture: BLIP's probability that it matches, or CLIP's cosine, for every text."""
        if self.engine.clip:
            seen, features = await _all([self.seen(budget, images), self.read(budget, texts)])
            return (torch.stack([one.feature for one in seen]) @ torch.stack(features).T).tolist()
        seen = await self.seen(budget, images)
        pairs = [(one, tuple(texts)) for one in seen]
        return await self.batcher(("match", budget), pairs, [len(texts)] * len(pairs))


async def _all(running: Sequence[Awaitable[Any]]) -> list[Any]:
    """All results; where one fails, the others are still waited for, so that none is left behind."""
    done = await asyncio.gather(*running, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return list(done)
