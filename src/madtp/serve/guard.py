"""Before any request is looked at: who may ask, how much, how slowly and how many at once."""

import asyncio
import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from madtp.serve.limits import Limits
from madtp.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

GUARDED = "/v1/"
DRAIN_SECONDS = 2.0  # without a word from a refused client


class Refused(Exception):
    """A request that is not let in: status, reason and headers of the answer; `read` = its body has come."""

    read = False

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Guard:
    """ASGI middleware around the whole application; bodies reach it whole and within the limits, or not at all.

    Args:
        app: what is guarded.
        limits: see `Limits`.
        metrics: told of every request.
        token: asked for as ``Authorization: Bearer``, for all but /health; None = nobody is asked.
        paths: that are counted by name.
    """

    def __init__(self, app: App, limits: Limits, metrics: Metrics, token: str | None, paths: frozenset[str]) -> None:
        self.app, self.limits, self.metrics, self.paths = app, limits, metrics, paths
        self._token = None if token is None else f"Bearer {token}".encode()
        self.inside = self.bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let it in, or answer why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.monotonic(), 499  # nobody was there any more

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_token(scope)
            if scope["path"].startswith(GUARDED) and scope["method"] == "POST":
                await self._admit(scope, receive, told)
            else:
                await self.app(scope, receive, told)
        except Refused as refused:
            if status == 499:
                if not refused.read:
                    await _drain(receive, 2 * self.limits.body, self.limits.read_seconds)
                await _answer(told, refused)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.done(path, status, time.monotonic() - begin)

    def _check_token(self, scope: Message) -> None:
        if self._token is None or scope["path"] == "/health":
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._token):
            raise Refused(401, "a token is needed: Authorization: Bearer TOKEN", **{"www-authenticate": "Bearer"})

    def _busy(self, reason: str) -> Refused:
        wait = math.ceil(min(60.0, max(1.0, self.inside * self.metrics.seconds_each())))
        return Refused(503, reason, **{"retry-after": str(wait)})

    async def _admit(self, scope: Message, receive: Receive, send: Send) -> None:
        if self.inside >= self.limits.queue:
            raise self._busy(f"{self.inside} requests are inside, the most at once; try again later")
        self.inside += 1
        self.metrics.inside.set(self.inside)
        held = [0]
        try:
            body = await self._body(scope, receive, held)
            await self._ask(scope, body, receive, send)
        finally:
            self.inside -= 1
            self.bytes -= held[0]
            self.metrics.inside.set(self.inside)
            self.metrics.bytes.set(self.bytes)

    async def _body(self, scope: Message, receive: Receive, held: list[int]) -> bytes:
        """The whole body; `held` counts what of `memory` is taken."""
        most = self.limits.body
        large = Refused(413, f"the body is over the limit of {most} bytes", connection="close")
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > most:
            raise large
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.read_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the connection was cut")
                    part = message.get("body", b"")
                    if held[0] + len(part) > most:
                        raise large
                    if self.bytes + len(part) > self.limits.memory:
                        raise self._busy("the bodies inside take all the memory there is for them; try again later")
                    held[0] += len(part)
                    self.bytes += len(part)
                    self.metrics.bytes.set(self.bytes)
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            said = f"the body took more than {self.limits.read_seconds:g} seconds to come"
            raise Refused(408, said, connection="close") from None

    async def _ask(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Have the application answer; it is told to stop where the client goes, or the time is over."""
        given = False
        gone = asyncio.Event()

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        asked = asyncio.ensure_future(self.app(scope, replay, send))
        watching = asyncio.ensure_future(watch())
        try:
            done, _ = await asyncio.wait(
                {asked, watching}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if asked in done:
                await asked
            elif not done:
                late = self._busy(f"no answer within {self.limits.seconds:g} seconds; try again later")
                late.read = True
                raise late
        finally:
            for task in (asked, watching):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


async def _drain(receive: Receive, most: int, seconds: float) -> None:
    """Take what a refused client still sends, within bounds, or it sees a cut connection instead of the reason."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while most > 0:
                async with asyncio.timeout(DRAIN_SECONDS):
                    message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
                most -= len(message.get("body", b""))


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"detail": refused.reason}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    with suppress(OSError):
        await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})
