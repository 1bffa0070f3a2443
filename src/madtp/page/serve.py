"""Serving the page: on loopback alone, in a browser that is told to fetch nothing from elsewhere."""

import logging
import os
import signal
import socket
import tempfile
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from madtp.errors import InputError
from madtp.page.explore import Explorer
from madtp.page.samples import write_samples

HOST = "127.0.0.1"
LARGEST = "30mb"  # of a picture that is sent
# A browser refuses what this does not allow; gradio's own scripts are inline and build functions.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}


def check_page() -> None:
    """Raises InputError where gradio is not installed."""
    if find_spec("gradio") is None:
        raise InputError("the page needs gradio", "--page", 'pip install "madtp[page]"')


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 = any free one. Raises InputError where the port is taken."""
    place = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((HOST, port))
    except OSError as error:
        place.close()
        raise InputError(
            f"{port} cannot be used: {error.strerror}", "--port", "choose another; 0 = any free one"
        ) from error
    return place


def serve(explorers: Sequence[Explorer], place: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted or told to end; what was uploaded is then deleted.

    Args:
        explorers: models, measured.
        place: from `listen`.
        ready: told the address.
    """
    with tempfile.TemporaryDirectory(prefix="madtp-page-") as folder:
        # Before gradio is imported: it reads them then.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(Path(folder) / "uploads")}
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        import uvicorn

        turns = ThreadPoolExecutor(1)
        app = make_app(explorers, Path(folder) / "samples", turns)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        place.listen()  # whoever is told the address may come at once
        ready(f"http://{HOST}:{place.getsockname()[1]}")
        signal.signal(signal.SIGTERM, _stop)
        log = logging.getLogger("uvicorn.error")
        log.addFilter(_is_trouble)
        try:
            with suppress(KeyboardInterrupt):  # the way to end it
                server.run(sockets=[place])
        finally:
            log.removeFilter(_is_trouble)
            turns.shutdown(wait=False, cancel_futures=True)  # nobody waits for what has not begun


def _is_trouble(record: logging.LogRecord) -> bool:
    """False for what uvicorn says of streams that it cuts at the end: a page that is open holds one."""
    cut = record.exc_info is not None and isinstance(record.exc_info[1], CancelledError)
    return not (cut or "timeout graceful shutdown exceeded" in record.getMessage())


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def make_app(explorers: Sequence[Explorer], folder: Path, turns: ThreadPoolExecutor) -> Any:
    """The page as an ASGI application, with its examples in `folder`; `turns` is of one thread, which answers."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from madtp.page.app import build
    from madtp.page.style import CSS, theme

    samples = [write_samples(explorer.task.name, folder / str(i)) for i, explorer in enumerate(explorers)]
    # Another site must not reach the page under a name of its own that points here.
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(_Headers)]
    app = FastAPI(middleware=guards, docs_url=None, redoc_url=None, openapi_url=None)
    return gr.mount_gradio_app(
        app,
        build(explorers, samples, turns),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        allowed_paths=[str(folder)],
        max_file_size=LARGEST,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=CSS,
    )


class _Headers:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self.app(scope, receive, with_headers)
