"""`madtp serve` as a process on loopback: slow and broken clients, and a stop with requests inside."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import madtp
from madtp.model.curve import BudgetCurve
from pipelines.stock import QUESTION, folder, pictures
from serve.served import files, png
from test_house import PACKAGE

WAIT = 300  # seconds: a machine may be busy
REQUESTS = 13


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    curve = BudgetCurve(((1.0, 0.2), (16.0, 0.6)), "scenes val", 13)
    return folder("vqa", tmp_path_factory.mktemp("served"), curve=curve)


@contextmanager
def serving(model: Path, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process, and what it said once requests are taken."""
    command = [sys.executable, "-m", "madtp", "serve", "--model", str(model), "--port", "0", "--threads", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def server(model: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    with serving(model) as (process, said):
        assert said["task"] == "vqa" and said["paths"] == ["/v1/vqa"] and said["url"].startswith("http://127.0.0.1:")
        yield process, said["url"]


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=WAIT)


def ask(url: str, number: int) -> httpx.Response:
    form: dict[str, Any] = {"files": files(number % 7), "data": {"question": [QUESTION, "is there a square?"]}}
    return httpx.post(f"{url}/v1/vqa", timeout=WAIT, **form)


def test_bad_clients_then_a_stop_with_requests_inside(server: tuple[subprocess.Popen[str], str], model: Path) -> None:
    process, url = server
    with connect(url) as silent, connect(url) as slow, connect(url) as cut:
        slow.sendall(b"POST /v1/vqa HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")  # and no more
        cut.sendall(b"POST /v1/vqa HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")
        cut.close()
        with connect(url) as broken:
            broken.sendall(b"\x00\xff nonsense\r\n\r\n")
            assert broken.recv(4096).startswith(b"HTTP/1.1 400")
        head = b"POST /v1/vqa HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n"
        with connect(url) as large:
            large.sendall(head + png(pictures()[0]))
            assert large.recv(4096).startswith(b"HTTP/1.1 413")
        assert ask(url, 0).status_code == 200, "others are served meanwhile"
        upload = httpx.post(f"{url}/v1/vqa", files={"image": b"x" * (17 * 2**20)}, timeout=WAIT)
        assert upload.status_code == 413, "it is told why, and sees no cut connection"
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        assert silent.recv(4096) == b"", "closed: nothing was asked for"
    counted = httpx.get(f"{url}/metrics", timeout=WAIT).text
    assert 'madtp_requests_total{path="/v1/vqa",status="200"} 1.0' in counted
    assert "madtp_requests_inside 0.0" in counted and "madtp_body_bytes 0.0" in counted

    pipe = madtp.pipeline("vqa", model)
    expected = [[a["answer"] for (a,) in pipe(pictures()[i], [QUESTION, "is there a square?"])] for i in range(7)]
    with ThreadPoolExecutor(REQUESTS) as clients:
        running = [clients.submit(ask, url, number) for number in range(REQUESTS)]
        while "madtp_requests_inside 0.0" in httpx.get(f"{url}/metrics", timeout=WAIT).text and not running[0].done():
            pass
        process.send_signal(signal.SIGTERM)
        right = refused = 0
        for number, one in enumerate(running):
            try:
                reply = one.result(timeout=WAIT)
            except httpx.TransportError:  # came when nobody listened any more
                refused += 1
                continue
            assert reply.status_code == 200
            assert [answer["text"] for answer in reply.json()["answers"]] == expected[number % 7]
            right += 1
    assert process.wait(timeout=WAIT) == 0
    assert right >= 1 and right + refused == REQUESTS
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", timeout=WAIT)


def test_elsewhere_a_token_is_asked_for_and_a_curve_gives_budgets_without_data(model: Path) -> None:
    form: dict[str, Any] = {"files": files(0), "data": {"question": QUESTION, "reduction": "0.4"}, "timeout": WAIT}
    # another way to write this machine's own address, which the server does not know for one
    with serving(model, "--host", "127.1", MADTP_TOKEN="a-secret") as (_, said):
        url = said["url"].replace("127.1", "127.0.0.1")
        assert [one["reduction"] for one in said["budgets"]] == [None, 0, 0.2, 0.6]
        assert httpx.get(f"{url}/health", timeout=WAIT).status_code == 200
        assert httpx.post(f"{url}/v1/vqa", **form).status_code == 401
        known = {"authorization": "Bearer a-secret"}
        reply = httpx.post(f"{url}/v1/vqa", headers=known, **form)
        page = httpx.get(f"{url}/docs", headers=known, timeout=WAIT)
    assert reply.json()["budget"] == {"temperature": pytest.approx(4.0), "reduction": 0.4, "source": "curve"}
    assert page.status_code == 200 and "openapi.json" in page.text
