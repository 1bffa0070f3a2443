"""What a server's answers look like; the shapes stand in its OpenAPI page."""

from typing import Any

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="What is wrong, where, and what would be right.")


class Budget(BaseModel):
    """How the model ran."""

    temperature: float | None = Field(description="null = dense")
    reduction: float | None = Field(
        description="1 - GFLOPs / dense GFLOPs, measured where `source` says; null = not known"
    )
    source: str = Field(
        description="model: its own; dense; curve: read off the measured curve that is stored with the model; else the "
        "data that it was measured on when the server started"
    )


class Gflops(BaseModel):
    """What one answer took: multiply-accumulates / 1e9."""

    dense: float
    mean: float
    reduction: float


class Answer(BaseModel):
    """One answer."""

    text: str
    scores: dict[str, float] | None = Field(None, description="probabilities, of a statement")
    gflops: Gflops


class Answers(BaseModel):
    """Of questions or statements in their order, or of pictures in theirs."""

    answers: list[Answer]
    budget: Budget


class Ranked(BaseModel):
    """How well texts and pictures go together."""

    scores: list[list[float]] = Field(description="a list a picture: a number a text")
    kind: str = Field(description="match: BLIP's probability of each pair; similarity: CLIP's cosine")
    texts_found: list[list[int]] = Field(description="numbers of the texts for each picture, the best first")
    images_found: list[list[int]] = Field(description="numbers of the pictures for each text, the best first")
    budget: Budget


class Embedded(BaseModel):
    """Features of length 1, whose products are cosines."""

    images: list[list[float]]
    texts: list[list[float]]
    budget: Budget


class Health(BaseModel):
    """The server is up."""

    status: str
    task: str
    model: str
    version: str
    budgets: list[Budget]
    limits: dict[str, float]


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request is broken."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    408: {"model": Problem, "description": "The request came too slowly."},
    413: {"model": Problem, "description": "The body or a picture is too large."},
    422: {"model": Problem, "description": "A field, picture or text is wrong."},
    503: {
        "model": Problem,
        "description": "Too busy.",
        "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}},
    },
}
