"""Golden models, through the converter."""

from pathlib import Path
from typing import Any

from goldens import HEADS, META, golden, golden_file
from madtp.model.convert import convert
from madtp.model.load import load


def golden_model(case: str, folder: Path) -> Any:
    """The model of a case, its public weights converted to `folder` and loaded from there."""
    heads = META["cases"][case].get("vision_heads", HEADS)
    writes = any(name.startswith("text_decoder.") for name in golden(f"{case}.weights"))
    end = {"end_token_id": first_ids(case)[1] + 1} if writes else {}  # never read
    convert(golden_file(f"{case}.weights.safetensors"), folder, heads=heads, **end)
    return load(folder)


def first_ids(case: str) -> tuple[int, int]:
    """[ENC] and [DEC]: the third and second last of the vocabulary (the README's 201 and 202)."""
    words = next(v for k, v in golden(f"{case}.weights").items() if k.endswith("word_embeddings.weight"))
    return len(words) - 3, len(words) - 2
