"""Time of a training step of a pruned model against the dense model's: forward, backward and the optimiser's step.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --gradient-checkpointing    # with it against without, time and memory

Full-size image tower and question encoder with random weights on noise; the loss is the answer's. One JSON line a row.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from itertools import count
from statistics import median
from typing import Any

import torch

from madtp.cli.bench import Work, _calibrate, _gflops, _network
from madtp.cost.flops import reduction
from madtp.cost.latency import time_pairs
from madtp.cost.memory import peak_bytes
from madtp.evaluate import evaluating
from madtp.model.presets import random_inputs
from madtp.report import settings
from madtp.runtime import keep_freed_memory


def main() -> None:
    """Read the options and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="blip-base-nlvr2", help="one of NLVR2's")
    parser.add_argument("--reduction", nargs="+", type=float, default=[0.5])
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--gradient-checkpointing", action="store_true", help="against the same step without it")
    options = parser.parse_args()
    keep_freed_memory()
    model = _network(options.preset, options.preset, 0, None, 200)
    inputs: dict[str, Any] = {}
    seeds = count()

    def renew() -> None:
        inputs.update(random_inputs("reasoning", model.config, options.batch_size, 20, next(seeds)))

    renew()
    labels = torch.arange(options.batch_size) % 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    work = Work("towers", lambda: model.encode(**inputs).trace, renew)

    def step(strength: float | None) -> None:
        model.temperature = strength
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        # memory is that beside gradients: they are there before a step
        optimizer.zero_grad(set_to_none=not options.gradient_checkpointing)

    for asked in options.reduction:
        with evaluating(model):
            _calibrate(model, work, asked)
            saved = reduction(*_gflops(model, [work.run()]))
        strength = model.temperature
        model.train()
        if options.gradient_checkpointing:
            for name, at in (("dense", None), ("pruned", strength)):
                print(json.dumps(_checkpointed(model, step, at, name, options) | settings()), flush=True)
            continue
        times = time_pairs(partial(step, None), partial(step, strength), pairs=options.pairs, before=renew)
        row = {
            "preset": options.preset,
            "batch_size": options.batch_size,
            "reduction": round(saved, 3),
            "dense_s": round(median(times.baseline), 3),
            "pruned_s": round(median(times.contender), 3),
            "share": round(1 / times.speedup, 3),
        }
        print(json.dumps(row | settings()), flush=True)


def _checkpointed(model: Any, step: Callable[[Any], None], strength: Any, name: str, options: Any) -> dict[str, Any]:
    """Time of a step, and its peak memory beside weights, gradients and moments, without and with checkpointing."""

    def run(on: bool) -> None:
        model.checkpoint_blocks(on)
        step(strength)

    run(False)  # gradients and the optimiser's moments are there from here on
    peaks = [peak_bytes(partial(run, on)) for on in (False, True)]
    times = time_pairs(lambda: run(False), lambda: run(True), pairs=options.pairs)
    return {
        "preset": options.preset,
        "batch_size": options.batch_size,
        "model": name,
        "mb": [round(peak / 1e6) for peak in peaks],
        "seconds": [round(median(of), 3) for of in (times.baseline, times.contender)],
        "share": round(1 / times.speedup, 3),
    }


if __name__ == "__main__":
    main()
