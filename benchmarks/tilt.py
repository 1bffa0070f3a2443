"""Does it help to let some blocks prune more than others? The bundled model, block by block at another temperature.

    python benchmarks/tilt.py [--images 250] [--reduction 0.5 0.8] [--tilt -2 -1 0 1 2 3 4]

Block l of L prunes at the temperature times exp(tilt (l / (L - 1) - 1/2)): above 0 the last blocks prune more. Without
training, on validation pictures of generated scenes. One JSON object a line. See docs/experiments.md.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

import madtp
from madtp.calibration import calibrate
from madtp.data.load import load_data
from madtp.evaluate import batches, evaluate
from madtp.model.block import Pruner
from madtp.model.load import load, load_processor
from madtp.task.vqa import VqaTask

MODEL = Path(madtp.__file__).parent / "assets" / "demo-vqa"


class Tilted:
    """`Pruner.prune`, at a strength that depends on the block."""

    def __init__(self) -> None:
        self.tilt, self.plain = 0.0, Pruner.prune

    def __call__(self, pruner: Pruner, block: int, *rest: Any) -> Any:
        strength = pruner.strength
        if strength is not None:
            pruner.strength = strength * math.exp(self.tilt * (block / max(1, pruner.depth - 1) - 0.5))
        try:
            return self.plain(pruner, block, *rest)
        finally:
            pruner.strength = strength


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--reduction", type=float, nargs="+", default=[0.5, 0.8])
    parser.add_argument("--tilt", type=float, nargs="+", default=[-2, -1, 0, 1, 2, 3, 4])
    asked = parser.parse_args()
    tilted = Tilted()
    Pruner.prune = lambda *given: tilted(*given)  # type: ignore[method-assign]
    model, task = load(MODEL).eval().pack_weights(), VqaTask(load_processor(MODEL))
    val = load_data("vqa", "scenes", "val", limit=asked.images)
    some = list(batches(task, val[:100], 50, torch.device("cpu")))
    for budget in asked.reduction:
        for tilted.tilt in asked.tilt:
            calibrate(model, task, some, budget, mildest=True)
            found = evaluate(model, task, val, batch_size=50)
            per_block = found.to_dict()["tokens"]["per_block"]
            row = {"reduction_asked": budget, "tilt": tilted.tilt, "reduction": found.reduction}
            print(json.dumps({**row, **found.metrics, "per_block": per_block}), flush=True)


if __name__ == "__main__":
    main()
