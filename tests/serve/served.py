"""A server within the test, of a small random model, and requests to it."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from PIL import Image

from madtp.serve.app import build_app
from madtp.serve.engine import Budget, Engine
from madtp.serve.guard import Guard
from pipelines.stock import TEMPERATURE, pictures
from small import nano, nano_processor

REDUCTION = 0.43  # said of the model's own temperature


def engine(kind: str, budgets: list[Budget] | None = None) -> Engine:
    """Of a model that prunes, with its own budget, dense, and those."""
    return Engine(nano(kind, temperature=TEMPERATURE, reduction=REDUCTION), nano_processor(kind), budgets or [])


@asynccontextmanager
async def client(app: Guard, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the application, which has started and will have stopped."""
    inner: Any = app.app
    async with inner.router.lifespan_context(inner):
        transport = httpx.ASGITransport(app=app, **options)
        async with httpx.AsyncClient(transport=transport, base_url="http://madtp", timeout=60) as asked:
            yield asked


def with_server(kind: str, use: Callable[[httpx.AsyncClient], Awaitable[Any]], **options: Any) -> Any:
    """What `use` makes of a client of a fresh server."""

    async def main() -> Any:
        async with client(build_app(engine(kind), kind, **options)) as asked:
            return await use(asked)

    return asyncio.run(main())


def png(image: Image.Image) -> bytes:
    """As a file."""
    data = io.BytesIO()
    image.save(data, "png")
    return data.getvalue()


def files(*numbers: int) -> list[tuple[str, tuple[str, bytes, str]]]:
    """These pictures as parts of a form."""
    return [("image", (f"{number}.png", png(pictures()[number]), "image/png")) for number in numbers]
