"""The server's process: its socket, slow connections, and a stop that finishes what is inside."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from madtp.errors import InputError
from madtp.serve.limits import Limits

# Longer than clients keep an idle connection (httpx: 5), or one is closed just as a request is sent on it.
KEEP_SECONDS = 20
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 = a free one. Raises InputError where it cannot be had."""
    made = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        if made is not None:
            made.close()
        said = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot be listened on: {said}", f"{host}:{port}", "choose another --host or --port"
        ) from error
    return made


def protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP, which waits forever for a request's head to come, with a limit on that."""

    class Timed(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            asyncio.get_running_loop().call_later(seconds, self._close_unasked)

        def _close_unasked(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Timed


def run(app: Any, listening: socket.socket, limits: Limits, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then take no more, finish what is inside, and return.

    Args:
        app: from `build_app`.
        listening: from `bind`.
        limits: of connections and time.
        ready: called once requests are taken.
    """
    config = uvicorn.Config(
        app,
        http=protocol(limits.read_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=KEEP_SECONDS,
        timeout_graceful_shutdown=int(limits.read_seconds + limits.seconds) + 5,
    )
    server = uvicorn.Server(config)

    async def serving() -> None:
        main = asyncio.ensure_future(server.serve(sockets=[listening]))
        while not server.started and not main.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await main

    with _quiet_signals():
        asyncio.run(serving())


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """uvicorn raises the signal that stopped it again when all is done: here that is no fault, and ends nothing."""
    kept = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
