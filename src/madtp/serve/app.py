"""The application: a path each for what the model does, its OpenAPI page, health and metrics."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from starlette.exceptions import HTTPException

from madtp import __version__
from madtp.answer import Answer
from madtp.errors import InputError
from madtp.serve import forms
from madtp.serve.engine import Budget, Engine
from madtp.serve.guard import Guard
from madtp.serve.limits import Limits
from madtp.serve.metrics import CONTENT_TYPE, Metrics
from madtp.serve.work import TooLarge, Worker

PATHS = {
    "vqa": ("/v1/vqa",),
    "caption": ("/v1/caption",),
    "reasoning": ("/v1/reasoning",),
    "retrieval": ("/v1/rank", "/v1/embed"),
}


def build_app(
    engine: Engine,
    name: str,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    batch_size: int = 32,
) -> Guard:
    """The application of one model, guarded.

    Args:
        engine: the model.
        name: of the model, shown by /health.
        limits: of what is taken.
        token: see `Guard`.
        batch_size: texts or pictures that run together at most.
    """
    limits = limits or Limits()
    metrics = Metrics()
    worker = Worker(engine, limits, batch_size, metrics.batch.observe)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        worker.batcher.start()
        yield
        await worker.stop()

    app = FastAPI(
        title=f"madtp: {engine.task.name}",
        version=__version__,
        description=f"{name}: a model whose tokens are pruned. Pictures come as files of a form, texts as its fields.",
        lifespan=living,
        redoc_url=None,
        responses=None,
    )
    _problems(app)
    _add_paths(app, worker, metrics)
    _add_state(app, worker, metrics, name)
    guarded = frozenset({*PATHS[engine.task.name], "/health", "/metrics", "/openapi.json", "/docs"})
    return Guard(app, limits, metrics, token, guarded)


def _problems(app: FastAPI) -> None:
    """Every fault as ``{"detail": "one line"}``."""

    @app.exception_handler(InputError)
    async def wrong(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 413 if isinstance(error, TooLarge) else 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"] if part != "body") or "body"
        return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "a fault of the server's; its log says more"}, 500)


def _add_paths(app: FastAPI, worker: Worker, metrics: Metrics) -> None:
    engine, limits = worker.engine, worker.limits
    text = Annotated[str, StringConstraints(min_length=1, max_length=limits.text, pattern=r"\S")]
    images = Annotated[list[UploadFile], File(min_length=1, max_length=limits.images, description="picture files")]
    texts = Annotated[list[text], Form(min_length=1, max_length=limits.texts)]
    some = Annotated[list[text] | None, Form(max_length=limits.texts)]
    few = Annotated[list[UploadFile] | None, File(max_length=limits.images)]
    pair = Annotated[list[UploadFile], File(min_length=1, max_length=2, description="left and right, or one")]
    saving = Annotated[
        float | None,
        Form(
            ge=0,
            le=math.ceil(1000 * engine.most) / 1000,
            description="of the GFLOPs, at least; default: the model's own",
        ),
    ]
    post: dict[str, Any] = {"responses": forms.PROBLEMS}

    def replied(budget: Budget, found: list[Answer]) -> forms.Answers:
        for one in found:
            metrics.gflops.labels("mean").inc(one.gflops)
            metrics.gflops.labels("dense").inc(one.dense)
        said = [
            forms.Answer(
                text=one.text,
                scores=one.scores or None,
                gflops=forms.Gflops(dense=one.dense, mean=one.gflops, reduction=one.reduction),
            )
            for one in found
        ]
        return forms.Answers(answers=said, budget=_budget(budget))

    async def vqa(
        image: Annotated[UploadFile, File(description="a picture file")],
        question: texts,
        choice: some = None,
        reduction: saving = None,
    ) -> forms.Answers:
        """Answer questions about a picture in free words; or by the likeliest `choice`, where there are any."""
        budget = engine.pick(reduction)
        asked, choices = worker.texts(question, "question"), worker.texts(choice or (), "choice")
        (upload,) = worker.uploads([await _read(image)])
        return replied(budget, await worker.answers(budget, [([upload], asked)], choices))

    async def caption(image: images, reduction: saving = None) -> forms.Answers:
        """Say what is in each picture."""
        budget = engine.pick(reduction)
        uploads = worker.uploads([await _read(file) for file in image])
        return replied(budget, await worker.answers(budget, [([upload], ()) for upload in uploads]))

    async def reasoning(image: pair, statement: texts, reduction: saving = None) -> forms.Answers:
        """Judge statements about two pictures, or one: true or false."""
        budget = engine.pick(reduction)
        said = worker.texts(statement, "statement")
        uploads = worker.uploads([await _read(file) for file in image])
        return replied(budget, await worker.answers(budget, [(uploads, said)]))

    async def rank(image: images, text: texts, reduction: saving = None) -> forms.Ranked:
        """How well each text goes with each picture, and which go best."""
        budget = engine.pick(reduction)
        said = worker.texts(text, "text")
        scores = await worker.scores(budget, worker.uploads([await _read(file) for file in image]), said)
        columns = [list(column) for column in zip(*scores, strict=True)]
        return forms.Ranked(
            scores=scores,
            kind="similarity" if engine.clip else "match",
            texts_found=[_order(row) for row in scores],
            images_found=[_order(column) for column in columns],
            budget=_budget(budget),
        )

    async def embed(image: few = None, text: some = None, reduction: saving = None) -> forms.Embedded:
        """Features of pictures and of texts, for an index; give some of either."""
        budget = engine.pick(reduction)
        said, uploads = worker.texts(text or (), "text"), worker.uploads([await _read(file) for file in image or ()])
        if not said and not uploads:
            raise InputError("there is none", "image, text", "give some of either")
        seen = await worker.seen(budget, uploads)
        features = await worker.read(budget, said)
        return forms.Embedded(
            images=[one.feature.tolist() for one in seen],
            texts=[feature.tolist() for feature in features],
            budget=_budget(budget),
        )

    calls: dict[str, Any] = {"vqa": vqa, "caption": caption, "reasoning": reasoning, "rank": rank, "embed": embed}
    for path in PATHS[engine.task.name]:
        app.post(path, **post)(calls[path.removeprefix("/v1/")])


def _add_state(app: FastAPI, worker: Worker, metrics: Metrics, name: str) -> None:
    engine = worker.engine

    @app.get("/health", responses={})
    async def health() -> forms.Health:
        """The server is up; its model, budgets and limits."""
        return forms.Health(
            status="ok",
            task=engine.task.name,
            model=name,
            version=__version__,
            budgets=[_budget(one) for one in engine.budgets],
            limits=asdict(worker.limits),
        )

    @app.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def counted() -> Response:
        """Prometheus' text."""
        metrics.waiting.set(worker.batcher.waiting)
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})


def _budget(budget: Budget) -> forms.Budget:
    return forms.Budget(temperature=budget.pruning.temperature, reduction=budget.reduction, source=budget.source)


async def _read(file: UploadFile) -> tuple[bytes, str]:
    return await file.read(), file.filename or ""


def _order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])
