"""Folders of small random models of every kind, and pictures, for the tests of what users call."""

from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from madtp.data.scenes import load_scenes
from madtp.model.save import save_model
from small import SEED, nano, nano_processor

TEMPERATURE = 8.0
QUESTION, STATEMENT = "what color is the circle?", "there is a circle"
LABELS = ["a red circle", "a blue square", "two green triangles"]


@cache
def pictures(count: int = 7) -> list[Image.Image]:
    """Generated scenes."""
    return [sample.image.open() for sample in load_scenes("vqa", "val", seed=SEED, limit=count)]


def folder(kind: str, out: Path, **madtp: Any) -> Path:
    """A model that prunes, saved with its processor."""
    save_model(nano(kind, **{"temperature": TEMPERATURE, **madtp}), nano_processor(kind), out / kind)
    return out / kind


def close(one: Any, other: Any) -> bool:
    """The same words, and numbers that differ by rounding alone."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(close, one, other))
    return abs(one - other) < 1e-5 if isinstance(one, float) else bool(one == other)
