"""Where the time of the towers goes, part by part, dense and pruned: one JSON line a form.

    python benchmarks/parts.py --preset blip-base-nlvr2 --reduction 0.5 0.8

Milliseconds a batch, median of the runs; a part's time is its own, without the parts inside it.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from statistics import median
from typing import Any
from unittest.mock import patch

from madtp.cli.bench import Work, _calibrate, _network
from madtp.evaluate import evaluating
from madtp.model import block, clip_layers, text, text_pair, vision
from madtp.model.linear import FastLinear
from madtp.model.presets import random_inputs
from madtp.model.shape import kind_of
from madtp.report import settings
from madtp.runtime import keep_freed_memory


class Clock:
    """Self time of named parts."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def timed(self, name: Callable[..., str], part: Callable[..., Any]) -> Callable[..., Any]:
        """`part`, its time noted under `name(*arguments)`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            begin = time.perf_counter()
            try:
                return part(*args, **kwargs)
            finally:
                took = time.perf_counter() - begin
                self.spent[name(*args)] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return run


def instrument(model: Any, clock: Clock) -> None:
    """Note the time of every linear map, attention, guidance and pruning step of a model."""
    for name, module in model.named_modules():
        tower = "vision" if "vision" in name else "text"
        alone = isinstance(module, FastLinear) and module.packed is not None  # else `together`, which is timed below
        if alone and not isinstance(module, block.TokenMap):
            kind = "mlp" if ".mlp." in name or "intermediate" in name or ".output.dense" in name else "projections"
            if "attention.output" in name:
                kind = "projections"
            instrumented: Any = module
            instrumented.forward = clock.timed(lambda *_, part=f"{tower} {kind}": part, module.forward)
    for where, tower in ((vision, "vision"), (text, "text"), (clip_layers, "clip")):
        patch.object(where, "attend", clock.timed(lambda *_, part=f"{tower} attention": part, where.attend)).start()
    towers = {module: "vision" if "vision" in name else "text" for name, module in model.named_modules()}
    for where in (text, text_pair, clip_layers):
        maps = clock.timed(lambda each, *_: f"{towers[each[0]]} projections", where.together)
        patch.object(where, "together", maps).start()
    for step in ("guide", "prune"):
        timed = clock.timed(lambda pruner, *_, part=step: f"{pruner.tower} {part}", getattr(block.Pruner, step))
        patch.object(block.Pruner, step, timed).start()
    model.encode = clock.timed(lambda *_: "everything else", model.encode)


def main() -> None:
    """Read the options and print a row a form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="blip-base-nlvr2")
    parser.add_argument("--reduction", nargs="+", type=float, default=[0.5, 0.8])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--semantic-tokens", type=int, default=200)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()
    model = _network(options.preset, options.preset, 0, None, options.semantic_tokens).eval().pack_weights()
    inputs: dict[str, Any] = {}
    seeds = count()

    def renew() -> None:
        inputs.update(random_inputs(kind_of(model), model.config, options.batch_size, 20, next(seeds)))

    renew()
    work, clock = Work("towers", lambda: model.encode(**inputs).trace, renew), Clock()
    with evaluating(model):
        strengths: dict[str, float | None] = {"dense": None}
        for asked in options.reduction:
            _calibrate(model, work, asked)
            strengths[f"{asked:g}"] = model.temperature
        instrument(model, clock)
        for name, strength in strengths.items():
            model.temperature = strength
            runs = []
            for _ in range(options.runs + 1):
                work.renew()
                clock.spent.clear()
                work.run()
                runs.append(dict(clock.spent))
            parts = {part: round(1000 * median(run[part] for run in runs[1:]), 2) for part in runs[0]}
            row = {"preset": options.preset, "batch_size": options.batch_size, "reduction": name, "ms": parts}
            print(json.dumps(row | settings()), flush=True)


if __name__ == "__main__":
    main()
