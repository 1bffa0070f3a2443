"""A load test of `madtp serve` on loopback: throughput, latency at and beyond saturation, clients that misbehave.

    python benchmarks/serving.py --seconds 20 --queue 16 --out runs/serving.json

Starts the server as a user does, with this script as its client (httpx, asyncio). Every answer is compared with the
library's. The rate of saturation is measured first (as many clients as it takes, each asking again once answered); then
requests come at 1x and 3x that rate whether or not the ones before are answered; then at half of it beside clients that
are slow, go away, or send too much or nonsense; at last it is stopped with requests inside. Prints one JSON line a
phase, and in the end the table that docs/serving.md holds. About six times --seconds; under three minutes with 20.
"""

import argparse
import asyncio
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import madtp
from madtp.data.scenes import load_scenes
from madtp.report import settings

QUESTIONS = 2
PICTURES = 16
CLOSED_CLIENTS = 16
HEAD = (
    "phase",
    "offered /s",
    "answered /s",
    "p50 ms",
    "p99 ms",
    "sent",
    "right",
    "refused (503)",
    "other",
    "memory MB",
)


class Load:
    """Requests to one server, and what became of them.

    Args:
        url: of the server.
        asked: picture file, questions and right answers of each request, in turn.
    """

    def __init__(self, url: str, asked: list[tuple[bytes, list[str], list[str]]]) -> None:
        self.url, self.asked = url, asked
        self.begin()

    def begin(self) -> None:
        """Forget the phase before."""
        self.seconds: list[float] = []
        self.refused: list[float] = []
        self.outcomes: Counter[str] = Counter()
        self.number = 0

    async def ask(self, client: httpx.AsyncClient) -> None:
        """One request."""
        data, questions, right = self.asked[self.number % len(self.asked)]
        self.number += 1
        start = time.perf_counter()
        try:
            reply = await client.post(
                f"{self.url}/v1/vqa", files={"image": ("p.png", data)}, data={"question": questions}
            )
        except httpx.HTTPError as error:
            self.outcomes[type(error).__name__] += 1
            return
        took = time.perf_counter() - start
        if reply.status_code == 200:
            said = [answer["text"] for answer in reply.json()["answers"]]
            self.outcomes["right" if said == right else "wrong"] += 1
            self.seconds.append(took)
        else:
            self.outcomes[str(reply.status_code)] += 1
            self.refused.append(took)
            if reply.status_code == 503 and "retry-after" not in reply.headers:
                self.outcomes["503 without Retry-After"] += 1

    def account(self, name: str, wall: float, memory: float | None, offered: float | None = None) -> dict[str, Any]:
        """One line of the results."""

        def quantile(values: list[float], share: float) -> float | None:
            return round(1000 * float(np.quantile(values, share)), 1) if values else None

        return {
            "phase": name,
            "offered_per_s": offered and round(offered, 1),
            "answered_per_s": round(len(self.seconds) / wall, 1),
            "p50_ms": quantile(self.seconds, 0.5),
            "p99_ms": quantile(self.seconds, 0.99),
            "refused_p99_ms": quantile(self.refused, 0.99),
            "sent": self.number,
            "outcomes": dict(self.outcomes),
            "memory_mb": memory and round(memory, 1),
        }


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The table of docs/serving.md."""
    rows = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    for line in lines:
        outcomes = dict(line["outcomes"])
        right, refused = outcomes.pop("right", 0), outcomes.pop("503", 0)
        other = ", ".join(f"{name} {count}" for name, count in outcomes.items()) or 0
        told = [line[key] for key in ("offered_per_s", "answered_per_s", "p50_ms", "p99_ms", "sent")]
        row = (line["phase"], *told, right, refused, other, line["memory_mb"])
        rows.append(tuple("" if cell is None else str(cell) for cell in row))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def requests_for(model: str) -> list[tuple[bytes, list[str], list[str]]]:
    """Generated pictures with questions, and what the library answers."""
    pipe, made = madtp.pipeline("vqa", model), []
    for sample in load_scenes("vqa", "test", limit=PICTURES):
        data = io.BytesIO()
        image = sample.image.open()
        image.save(data, "png")
        questions = [question.text for question in sample.questions[:QUESTIONS]]
        made.append((data.getvalue(), questions, [answer for ((_, answer),) in map(_item, pipe(image, questions))]))
    return made


def _item(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    return list(found[0].items())


async def memory_of(client: httpx.AsyncClient, url: str) -> float:
    """MB that the server's process holds, by its own account."""
    text = (await client.get(f"{url}/metrics")).text
    found = re.search(r"^process_resident_memory_bytes (\S+)$", text, re.M)
    return float(found[1]) / 1e6 if found else float("nan")


@asynccontextmanager
async def watched(client: httpx.AsyncClient, url: str) -> AsyncIterator[list[float]]:
    """What it holds while a phase runs: every second, and at the end."""
    seen: list[float] = []

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            seen.append(await memory_of(client, url))

    watching = asyncio.ensure_future(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError, httpx.HTTPError):
            await watching
        seen.append(await memory_of(client, url))


async def closed(load: Load, client: httpx.AsyncClient, clients: int, seconds: float) -> float:
    """Each client asks again once it is answered; returns the wall time."""
    start = time.perf_counter()

    async def one() -> None:
        while time.perf_counter() - start < seconds:
            await load.ask(client)

    await asyncio.gather(*(one() for _ in range(clients)))
    return time.perf_counter() - start


async def offered(load: Load, client: httpx.AsyncClient, rate: float, seconds: float) -> float:
    """Requests at a rate, answered or not; returns the wall time until the last is."""
    start = time.perf_counter()
    running = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        running.append(asyncio.ensure_future(load.ask(client)))
    await asyncio.gather(*running)
    return time.perf_counter() - start


async def misbehave(load: Load, client: httpx.AsyncClient, slow: int) -> dict[str, int]:
    """Clients that are slow (so many), go away, send too much or nonsense; what became of each kind."""
    host, port = load.url.removeprefix("http://").split(":")
    found: Counter[str] = Counter()

    async def raw(kind: str, head: bytes, cut: bool) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        await writer.drain()
        first = b"" if cut else await asyncio.wait_for(reader.read(64), 60)
        writer.close()
        found[f"{kind}: {first[9:12].decode() or ('gone' if cut else 'closed')}"] += 1

    async def post(kind: str, data: bytes, times: int) -> None:
        """One after another; who is refused for want of room comes again when it is told to."""
        left = times
        while left:
            try:
                form: dict[str, Any] = {"files": {"image": ("x", data)}, "data": {"question": "x"}}
                reply = await client.post(f"{load.url}/v1/vqa", **form)
                found[f"{kind}: {reply.status_code}"] += 1
                if reply.status_code == 503:
                    await asyncio.sleep(int(reply.headers["retry-after"]))
                    continue
            except httpx.HTTPError as error:
                found[f"{kind}: {type(error).__name__}"] += 1
            left -= 1

    head = b"POST /v1/vqa HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\nhalf"
    whole = load.asked[0][0]
    odd = [raw("slow body", head, False) for _ in range(slow)] + [raw("cut connection", head, True) for _ in range(16)]
    odd += [raw("slow head", b"POST /v1", False) for _ in range(8)]
    odd += [post("oversized", b"x" * (17 * 2**20), 4), post("broken picture", whole[: len(whole) // 2], 16)]
    await asyncio.gather(*odd)
    return dict(found)


async def run(url: str, asked: list[Any], seconds: float, queue: int, tell: Any) -> None:
    """All phases but the stop."""
    load = Load(url, asked)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    clients = max(1, min(CLOSED_CLIENTS, 3 * queue // 4))  # an answer may come before its place is free
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        await closed(load, client, clients, min(2, seconds))  # warm
        load.begin()
        async with watched(client, url) as memory:
            wall = await closed(load, client, clients, seconds)
        name = f"saturation: {clients} clients, each asks again once answered"
        tell(load.account(name, wall, max(memory)))
        rate = len(load.seconds) / wall
        for times in (1, 3):
            load.begin()
            async with watched(client, url) as memory:
                wall = await offered(load, client, times * rate, seconds)
            tell(load.account(f"{times}x of that rate", wall, max(memory), times * rate))
        load.begin()
        async with watched(client, url) as memory:
            wall, odd = await asyncio.gather(
                offered(load, client, rate / 2, seconds), misbehave(load, client, max(1, queue // 4))
            )
        tell({**load.account("half of it, beside bad clients", wall, max(memory), rate / 2), "odd": odd})
        health = await client.get(f"{url}/health")
        assert health.status_code == 200


async def stop(url: str, asked: list[Any], queue: int, process: subprocess.Popen[str]) -> dict[str, Any]:
    """SIGTERM with requests inside: those that were let in are answered."""
    load = Load(url, asked)
    async with httpx.AsyncClient(timeout=120) as client:
        running = [asyncio.ensure_future(load.ask(client)) for _ in range(queue)]
        while not load.seconds and not all(one.done() for one in running):
            await asyncio.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        start = time.perf_counter()
        await asyncio.gather(*running)
        code = await asyncio.to_thread(process.wait, 120)
    wall = time.perf_counter() - start
    return {**load.account(f"SIGTERM with {queue} inside", wall, None), "exit_code": code}


def main() -> None:
    """Read the options, start the server, print a line a phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="src/madtp/assets/demo-vqa")
    parser.add_argument("--seconds", type=float, default=20, help="of each phase")
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines: list[dict[str, Any]] = []

    def tell(line: dict[str, Any]) -> None:
        lines.append(line)
        print(json.dumps(line), flush=True)

    asked = requests_for(options.model)
    command = [sys.executable, "-m", "madtp", "serve", "--model", options.model, "--port", "0", "--json"]
    command += ["--queue", str(options.queue), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            asyncio.run(run(url, asked, options.seconds, options.queue, tell))
            tell(asyncio.run(stop(url, asked, options.queue, process)))
        finally:
            process.kill()
    print(f"\n{markdown(lines)}")
    print(
        "\nbad clients:",
        ", ".join(f"{kind} ({count})" for line in lines for kind, count in line.get("odd", {}).items()),
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"phases": lines, "queue": options.queue, **settings()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
