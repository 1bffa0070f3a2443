"""What a server refuses, with which reason, and that it goes on."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL import Image

from madtp.errors import InputError
from madtp.serve.guard import Guard
from madtp.serve.limits import Limits
from madtp.serve.metrics import Metrics
from pipelines.stock import QUESTION
from serve.served import files, png, with_server

SMALL = Limits(body=200_000, pixels=7_000, images=3, texts=2, text=23)


def big(side: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("big.png", png(Image.new("RGB", (side, side)))))]


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("/v1/vqa", {"files": files(0)}, 422, "question: Field required"),
    ("/v1/vqa", {"data": {"question": "x"}}, 422, "image: Field required"),
    ("/v1/vqa", {"files": files(0), "data": {"question": " "}}, 422, "question 0: String should match pattern"),
    ("/v1/vqa", {"files": files(0), "data": {"question": "x" * 29}}, 422, "at most 23 characters"),
    ("/v1/vqa", {"files": files(0), "data": {"question": ["x"] * 3}}, 422, "at most 2 items"),
    ("/v1/vqa", {"files": files(0), "data": {"question": "x", "reduction": "0.97"}}, 422, "less than or equal to 0.43"),
    ("/v1/vqa", {"files": files(0), "data": {"question": "x", "reduction": "nan"}}, 422, "reduction"),
    ("/v1/vqa", {"files": [("image", ("a.png", b"no picture"))], "data": {"question": "x"}}, 422, "is not an image"),
    ("/v1/vqa", {"files": [("image", ("a.png", files(0)[0][1][1][:99]))], "data": {"question": "x"}}, 422, "cut short"),
    ("/v1/vqa", {"files": big(101), "data": {"question": "x"}}, 413, "image 1 (big.png): 101 x 101 is over the limit"),
    ("/v1/vqa", {"content": b"x" * 200_001}, 413, "the body is over the limit of 200000 bytes"),
    ("/v1/vqa", {"content": b"x"}, 422, "Field required"),
    ("/v1/vqa", {"json": {"question": "x"}}, 422, "Field required"),
    (
        "/v1/vqa",
        {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data"}},
        400,
        "boundary",
    ),
    ("/v1/caption", {"files": files(0)}, 404, "Not Found"),
]


def test_reasons() -> None:
    async def use(asked: httpx.AsyncClient) -> list[httpx.Response]:
        replies = [await asked.post(path, **options) for path, options, _, _ in REFUSED]
        replies.append(await asked.get("/v1/vqa"))
        replies.append(await asked.post("/v1/vqa", files=files(0), data={"question": QUESTION[:23]}))
        return replies

    *replies, method, last = with_server("vqa", use, limits=SMALL)
    for reply, (_, options, status, said) in zip(replies, REFUSED, strict=True):
        assert (reply.status_code, said.lower() in reply.json()["detail"].lower()) == (status, True), (
            options,
            reply.text,
        )
    assert method.status_code == 405 and last.status_code == 200


def test_a_token_is_asked_for_all_but_health() -> None:
    async def use(asked: httpx.AsyncClient) -> dict[str, int]:
        statuses = {}
        for given in ("", "Bearer wrong", "Basic secret", "Bearer secret"):
            headers = {"authorization": given} if given else {}
            for path in ("/health", "/metrics", "/docs", "/openapi.json"):
                statuses[given, path] = (await asked.get(path, headers=headers)).status_code
            form = {"files": files(0), "data": {"question": "x"}}
            statuses[given, "/v1/vqa"] = (await asked.post("/v1/vqa", headers=headers, **form)).status_code
        return statuses

    for (given, path), status in with_server("vqa", use, token="secret").items():
        assert status == (200 if given == "Bearer secret" or path == "/health" else 401), (given, path)


class Room:
    """An application that answers when it is let, behind a guard."""

    def __init__(self, limits: Limits) -> None:
        self.go, self.asked, self.cancelled = asyncio.Event(), 0, 0
        self.guard = Guard(self.app, limits, Metrics(), None, frozenset({"/v1/x"}))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.asked += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def post(self, body: Any = b"x") -> httpx.Response:
        transport = httpx.ASGITransport(app=self.guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://madtp", timeout=60) as asked:
            return await asked.post("/v1/x", content=body)

    async def until(self, **reached: int) -> None:
        while any(getattr(self, name) < count for name, count in reached.items()):
            await asyncio.sleep(0.001)


def test_beyond_the_queue_503_with_retry_after() -> None:
    async def main() -> None:
        room = Room(Limits(queue=2))
        inside = [asyncio.create_task(room.post(b"%d" % i)) for i in range(2)]
        await room.until(asked=2)
        refused = await room.post()
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert "2 requests are inside" in refused.json()["detail"]
        room.go.set()
        assert [(await one).content for one in inside] == [b"0", b"1"], "those inside are answered"
        assert (await room.post()).status_code == 200
        assert room.guard.inside == room.guard.bytes == 0

    asyncio.run(main())


def test_bodies_take_no_more_memory_than_there_is_for_them() -> None:
    async def main() -> None:
        room = Room(Limits(memory=1000))
        inside = asyncio.create_task(room.post(b"x" * 700))
        await room.until(asked=1)
        assert room.guard.bytes == 700
        assert (await room.post(b"x" * 400)).status_code == 503
        room.go.set()
        assert (await inside).status_code == 200 and room.guard.bytes == 0

    asyncio.run(main())


def test_a_body_that_does_not_say_its_length_is_counted() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100

    async def main() -> None:
        room = Room(Limits(body=1000))
        assert (await room.post(endless())).status_code == 413 and room.asked == 0 and room.guard.bytes == 0

    asyncio.run(main())


def test_what_a_refused_client_still_sends_is_taken_before_the_answer() -> None:
    """Or it sees a cut connection instead of the reason."""

    async def main() -> None:
        room, sent, taken = Room(Limits(body=1000)), [], 0

        async def receive() -> Any:
            nonlocal taken
            taken += 1
            return {"type": "http.request", "body": b"x" * 100, "more_body": taken < 15}

        async def send(message: Any) -> None:
            sent.append((message, taken))

        headers = [(b"content-length", b"1500")]
        await room.guard({"type": "http", "method": "POST", "path": "/v1/x", "headers": headers}, receive, send)
        assert sent[0][0]["status"] == 413 and sent[0][1] == 15 and room.asked == 0

        taken = -1000  # one that never ends is not listened to for ever
        await room.guard({"type": "http", "method": "POST", "path": "/v1/x", "headers": headers}, receive, send)
        assert sent[2][0]["status"] == 413 and sent[2][1] == -980

    asyncio.run(main())


def test_too_slow_a_body_and_too_slow_an_answer() -> None:

    async def main() -> None:
        room = Room(Limits(read_seconds=0.05, seconds=0.05))
        # The client of the tests hands over the body as it goes; a real one's is in test_live.
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(30)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
        await asyncio.wait_for(room.guard(scope, receive, send), 20)
        assert sent[0]["status"] == 408 and "more than 0.05 seconds" in json.loads(sent[1]["body"])["detail"]
        late = await room.post()
        assert late.status_code == 503 and "no answer within 0.05 seconds" in late.json()["detail"]
        assert room.cancelled == 1 and room.guard.inside == 0

    asyncio.run(main())


def test_who_cuts_the_connection_is_not_worked_for() -> None:
    async def main() -> None:
        room, sent = Room(Limits()), []
        messages = [{"type": "http.request", "body": b"x", "more_body": False}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            if len(messages) == 1:
                await room.until(asked=1)
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
        await asyncio.wait_for(room.guard(scope, receive, send), 20)
        assert (room.asked, room.cancelled, sent, room.guard.inside) == (1, 1, [], 0)

    asyncio.run(main())


def test_limits_are_above_0() -> None:
    with pytest.raises(InputError, match="queue: 0 is not above 0"):
        Limits(queue=0)
