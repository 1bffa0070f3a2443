"""`--seed` fixes a run bit for bit, whatever was drawn before and however many processes load its pictures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli.conftest import Run
from test_train import log_of, same

QUICK = ("--epochs", 2, "--questions", 1, "--batch-size", 3, "--limit", 7, "--shift", 1)


@pytest.mark.parametrize("verb", ["train", pytest.param("compress", marks=pytest.mark.slow)])
def test_a_seed_fixes_a_run(verb: str, madtp: Run, data: Path, model: Path, tmp_path: Path, tiny: None) -> None:
    """From scratch, and with a method that draws what it prunes."""
    more: tuple[Any, ...] = ("--size", "tiny")
    if verb == "compress":
        more = ("--model", model, "--reduction", 0.4, "--method", "random")

    def run(name: str, seed: int, workers: int) -> Path:
        torch.manual_seed(1000 + workers)
        out = tmp_path / name
        ended = madtp(verb, "--data", data, "--out", out, *more, *QUICK, "--seed", seed, "--workers", workers)
        assert ended.code == 0, ended
        return out

    one, again, other = run("one", 5, 0), run("again", 5, 1), run("other", 7, 0)
    weights = [load_file(out / "model.safetensors") for out in (one, again, other)]
    assert same(weights[0], weights[1]) and log_of(one) == log_of(again)
    assert not same(weights[0], weights[2]) and log_of(one) != log_of(other)
