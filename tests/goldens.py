"""Golden numbers: the folder in `MADTP_GOLDEN_DIR`, by default the tests' own copy, and how they are compared."""

import json
import os
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

OWN = Path(__file__).parent / "golden"
GOLDEN = Path(os.environ.get("MADTP_GOLDEN_DIR", OWN))
TOLERANCE = 1e-4


def golden_file(name: str) -> Path:
    """A file of the set in use; what another set lacks is the own copy's."""
    return GOLDEN / name if (GOLDEN / name).is_file() else OWN / name


META = json.loads(golden_file("meta.json").read_text(encoding="utf-8"))
TEMPERATURES = META["temperatures"]
HEADS = META["config"]["heads"]


@cache
def golden(name: str) -> dict[str, Tensor]:
    """`NAME.weights` or `NAME.io`."""
    return load_file(golden_file(f"{name}.safetensors"))


def expected(case: str, temperature: float) -> dict[str, Tensor]:
    """The outputs of a case at a temperature; 0 = dense."""
    prefix = f"t{temperature}."
    return {k.removeprefix(prefix): v for k, v in golden(f"{case}.io").items() if k.startswith(prefix)}


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool(torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE))


def same_rows(ours: Tensor, theirs: Tensor) -> bool:
    """The same rows in any order, each matched with one of its own."""
    if ours.shape != theirs.shape:
        return False
    distance = (ours[:, None] - theirs[None]).abs().amax(-1)
    best = distance.min(1)
    return bool((best.values < TOLERANCE).all()) and sorted(best.indices.tolist()) == list(range(len(theirs)))
