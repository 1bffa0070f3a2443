"""What the statistics of the attention cost: torch's fused attention against ours with them, and a dense model by both.

    python benchmarks/attention.py

Twelve heads of width 64, float32. A JSON line for each batch of lengths, then one for the dense model of a preset,
which runs by torch's fused attention (`sdpa`) unless its configuration says `blocked`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from statistics import median
from typing import Any

import torch
from torch import Tensor

from madtp.cost.latency import time_pairs
from madtp.evaluate import evaluating
from madtp.model.attention import Rows, attend
from madtp.model.presets import build, random_inputs
from madtp.model.shape import kind_of
from madtp.report import settings
from madtp.runtime import keep_freed_memory

HEADS, WIDTH = 12, 64
LENGTHS = ((577, 577), (450, 440), (300, 290), (190, 180), (100, 95), (60, 55), (16,))
SPREAD = 0.15  # the lengths of a large batch lie within it, about 60


def timed(tokens: Tensor, pairs: int) -> dict[str, float]:
    """Milliseconds of `tokens`, `[b]` of each instance, by the fused attention and by ours."""
    query, key, value = torch.randn(int(tokens.sum()), 3, HEADS, WIDTH).unbind(1)

    def run(rows: Rows | None) -> Callable[[], object]:
        return lambda: attend(query, key, value, tokens, tokens, rows=rows)

    with torch.inference_mode():
        times = time_pairs(run(None), run(Rows()), pairs=pairs, warmup=5)
    return {
        "fused_ms": round(1000 * median(times.baseline), 3),
        "with_statistics_ms": round(1000 * median(times.contender), 3),
    }


def dense(preset: str, pairs: int) -> dict[str, Any]:
    """Milliseconds of a dense forward, batch 1, by either attention."""
    model = build(preset, 0).eval().pack_weights()
    inputs: dict[str, Any] = {}
    seeds = count()

    def by(attention: str) -> Callable[[], object]:
        def run() -> None:
            model.pruning = replace(model.pruning, attention=attention)
            model.encode(**inputs)

        return run

    def renew() -> None:
        inputs.update(random_inputs(kind_of(model), model.config, 1, 20, next(seeds)))

    with evaluating(model):
        times = time_pairs(by("auto"), by("blocked"), pairs=pairs, warmup=3, before=renew)
    return {
        "preset": preset,
        "sdpa_ms": round(1000 * median(times.baseline), 1),
        "blocked_ms": round(1000 * median(times.contender), 1),
    }


def main() -> None:
    """Read the options and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="blip-base-nlvr2")
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    many = (60 * (1 + SPREAD * (2 * torch.rand(64) - 1))).long()
    for tokens in (*(torch.tensor(lengths) for lengths in LENGTHS), many):
        name = tokens.tolist() if len(tokens) < 3 else f"{len(tokens)} of {int(tokens.min())} to {int(tokens.max())}"
        print(json.dumps({"tokens": name} | timed(tokens, options.pairs) | settings()), flush=True)
    print(json.dumps(dense(options.preset, options.pairs) | settings()), flush=True)


if __name__ == "__main__":
    main()
