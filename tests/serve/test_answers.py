"""Answers of the server are the library's, whatever else runs in their batch."""

import asyncio
from typing import Any

import httpx
import pytest

import madtp
from madtp.errors import InputError
from madtp.model.curve import BudgetCurve
from madtp.serve.app import build_app
from madtp.serve.engine import Engine, measure
from pipelines.stock import LABELS, QUESTION, STATEMENT, close, pictures
from serve.served import REDUCTION, client, engine, files, with_server
from small import nano, nano_processor, samples

PIPE_TEXTS = [QUESTION, "how many squares are there?", "is there a green triangle?"]


def library(kind: str) -> Any:
    own = engine(kind)
    return madtp.pipeline(None, own.model, own.task.processor)


async def post(asked: httpx.AsyncClient, path: str, numbers: tuple[int, ...], **fields: Any) -> Any:
    reply = await asked.post(path, files=files(*numbers), data=fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_questions_of_many_requests_at_once() -> None:
    async def use(asked: httpx.AsyncClient) -> Any:
        wanted = [(i, PIPE_TEXTS[: 1 + i % 3]) for i in range(7)]
        calls = (post(asked, "/v1/vqa", (i,), question=texts) for i, texts in wanted)
        replies = await asyncio.gather(*calls)
        return wanted, replies, (await asked.get("/metrics")).text

    wanted, replies, counted = with_server("vqa", use)
    pipe = library("vqa")
    for (i, texts), reply in zip(wanted, replies, strict=True):
        assert [one["text"] for one in reply["answers"]] == [a["answer"] for (a,) in pipe(pictures()[i], texts)]
        assert reply["budget"] == {"temperature": 8.0, "reduction": REDUCTION, "source": "model"}
        assert all(0 < one["gflops"]["mean"] < one["gflops"]["dense"] for one in reply["answers"])
    assert 'madtp_requests_total{path="/v1/vqa",status="200"} 7.0' in counted
    batches = float(counted.partition("madtp_batch_units_count ")[2].split()[0])
    assert batches < 7, "requests ran together"


def test_choices() -> None:
    async def use(asked: httpx.AsyncClient) -> Any:
        return await post(asked, "/v1/vqa", (0,), question=[QUESTION], choice=["red", "green"])

    (answer,) = with_server("vqa", use)["answers"]
    assert answer["text"] == library("vqa")(pictures()[0], QUESTION, choices=["red", "green"])[0]["answer"]


def test_captions_and_statements() -> None:
    async def caption(asked: httpx.AsyncClient) -> Any:
        return await asyncio.gather(post(asked, "/v1/caption", (0, 1, 2)), post(asked, "/v1/caption", (3,)))

    many, one = with_server("caption", caption)
    said = [one["generated_text"] for (one,) in library("caption")(pictures()[:4])]
    assert [answer["text"] for answer in many["answers"] + one["answers"]] == said

    async def reasoning(asked: httpx.AsyncClient) -> Any:
        statements = [STATEMENT, "both pictures hold a square"]
        return await asyncio.gather(
            post(asked, "/v1/reasoning", (0, 1), statement=statements),
            post(asked, "/v1/reasoning", (2,), statement="x"),
        )

    pair, single = with_server("reasoning", reasoning)
    pipe = library("reasoning")
    for answer, (best, other) in zip(
        pair["answers"] + single["answers"],
        [
            pipe(pictures()[:2], STATEMENT),
            pipe(pictures()[:2], "both pictures hold a square"),
            pipe(pictures()[2], "x"),
        ],
        strict=True,
    ):
        assert answer["text"] == best["answer"]
        assert close(answer["scores"], {best["answer"]: best["score"], other["answer"]: other["score"]})


@pytest.mark.parametrize("kind", ["retrieval", "clip"])
def test_ranks_and_features(kind: str) -> None:
    async def use(asked: httpx.AsyncClient) -> Any:
        return await asyncio.gather(
            post(asked, "/v1/rank", (0, 1, 2), text=LABELS),
            post(asked, "/v1/rank", (3,), text=LABELS[:1]),
            post(asked, "/v1/embed", (0, 1), text=LABELS[:2]),
            post(asked, "/v1/embed", (4,)),
        )

    ranked, one, embedded, pictured = with_server(kind, use)
    pipe = library(kind)
    images, texts = pipe.embed(pictures()), pipe.embed(texts=LABELS)
    assert close(embedded["images"], images[:2].tolist()) and close(embedded["texts"], texts[:2].tolist())
    assert close(pictured["images"], images[4:5].tolist()) and pictured["texts"] == []
    if kind == "clip":
        expected = (images[:4] @ texts.T).tolist()
    else:
        found = [{x["label"]: x["score"] for x in some} for some in pipe(pictures()[:4], LABELS)]
        expected = [[some[label] for label in LABELS] for some in found]
    assert close(ranked["scores"], expected[:3]) and close(one["scores"], [expected[3][:1]])
    assert ranked["kind"] == ("similarity" if kind == "clip" else "match")
    for row, order in zip(ranked["scores"], ranked["texts_found"], strict=True):
        assert [row[i] for i in order] == sorted(row, reverse=True)
    for j, order in enumerate(ranked["images_found"]):
        column = [row[j] for row in ranked["scores"]]
        assert [column[i] for i in order] == sorted(column, reverse=True)


def test_each_request_at_its_own_budget() -> None:
    model, words = nano("vqa", temperature=8.0, reduction=REDUCTION), nano_processor("vqa")
    before = model.pruning
    (budget,) = measure(model, words, samples("vqa", "val", 5), [0.5])
    assert model.pruning == before and abs(budget.reduction - 0.5) < 0.02
    own = Engine(model, words, [budget])
    picked = [own.budgets.index(own.pick(asked)) for asked in (None, 0, 0.1, REDUCTION, 0.47, 0.5)]
    assert picked == [0, 1, 0, 0, 2, 2]
    with pytest.raises(InputError, match="is more than this server has measured"):
        own.pick(0.9)

    async def main() -> Any:
        async with client(build_app(own, "vqa")) as asked:
            fields = ({}, {"reduction": "0"}, {"reduction": "0.5"}, {"reduction": "0.9"})
            calls = (asked.post("/v1/vqa", files=files(1), data={"question": PIPE_TEXTS, **some}) for some in fields)
            return await asyncio.gather(*calls), (await asked.get("/health")).json()

    (usual, dense, half, never), health = asyncio.run(main())
    assert never.status_code == 422 and "reduction" in never.json()["detail"]
    pipe = madtp.pipeline(None, nano("vqa"), words)
    for reply, temperature in ((usual, 8.0), (dense, None), (half, budget.pruning.temperature)):
        assert reply.json()["budget"]["temperature"] == temperature
        pipe.model.temperature = temperature
        said = [one["text"] for one in reply.json()["answers"]]
        assert said == [one["answer"] for (one,) in pipe(pictures()[1], PIPE_TEXTS)]
    assert dense.json()["answers"][0]["gflops"]["reduction"] == 0
    assert [one["reduction"] for one in health["budgets"]] == [REDUCTION, 0, budget.reduction]


def test_budgets_are_read_off_the_curve_of_a_model_that_has_one() -> None:
    """No data at the start; what lies between two measured points comes by whole hundredths."""
    words = nano_processor("vqa")
    curve = BudgetCurve(((1.0, 0.2), (4.0, 0.4), (16.0, 0.6)), "scenes val", 13)
    own = Engine(nano("vqa", temperature=8.0, reduction=REDUCTION, curve=curve), words)
    assert own.most == 0.6
    picked = {asked: own.pick(asked) for asked in (0, 0.1, 0.2, 0.293, 0.3, 0.425, 0.6, 0.603)}
    assert [one.source for one in picked.values()] == ["dense", *["curve"] * 4, "model", "curve", "curve"]
    read = {asked: one.pruning.temperature for asked, one in picked.items()}
    assert (read[0], read[0.1], read[0.2], read[0.425], read[0.6], read[0.603]) == (None, 1.0, 1.0, 8.0, 16.0, 16.0)
    assert picked[0.293] == picked[0.3] and picked[0.3].reduction == 0.3, "so that they run together"
    assert read[0.3] == pytest.approx(2.0)
    with pytest.raises(InputError, match=r"is more than this server has measured; at most 0\.600"):
        own.pick(0.61)

    async def main() -> Any:
        async with client(build_app(own, "vqa")) as asked:
            reply = await asked.post("/v1/vqa", files=files(1), data={"question": PIPE_TEXTS, "reduction": "0.3"})
            return reply.json(), (await asked.get("/health")).json()

    reply, health = asyncio.run(main())
    assert reply["budget"] == {"temperature": read[0.3], "reduction": 0.3, "source": "curve"}
    pipe = madtp.pipeline(None, nano("vqa", curve=curve), words)
    pipe.model.set_reduction(0.3)
    said = [one["text"] for one in reply["answers"]]
    assert said == [one["answer"] for (one,) in pipe(pictures()[1], PIPE_TEXTS)]
    sources = [(one["source"], one["reduction"]) for one in health["budgets"]]
    assert sources == [("model", REDUCTION), ("dense", 0), ("curve", 0.2), ("curve", 0.4), ("curve", 0.6)]
    measured = Engine(own.model, words, [own.budgets[1]])
    assert measured.curve is None, "what was measured at the start is asked for instead"
