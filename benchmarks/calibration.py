"""Seconds to calibrate a full-size model to a reduction on 32 examples: one JSON line a reduction.

    python benchmarks/calibration.py

NLVR2's model with random weights on generated pairs of scenes, one statement a pair.
"""

import argparse
import json
import time
from dataclasses import replace

from madtp.calibration import calibrate
from madtp.cli.bench import _network
from madtp.data.load import load_data
from madtp.evaluate import batches
from madtp.model.sizes import SIZES, build_processor
from madtp.report import settings
from madtp.runtime import keep_freed_memory
from madtp.task.registry import make_task


def main() -> None:
    """Read the options and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="blip-base-nlvr2", help="one of NLVR2's")
    parser.add_argument("--reduction", nargs="+", type=float, default=[0.5, 0.8])
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    keep_freed_memory()
    model = _network(options.preset, options.preset, 0, None, 200).eval().pack_weights()
    data = load_data("reasoning", "scenes", "val", limit=options.examples)
    data = replace(data, samples=tuple(replace(sample, statements=sample.statements[:1]) for sample in data))
    words = [text.text for sample in data.samples for text in sample.texts]
    task = make_task("reasoning", build_processor(SIZES["base"], words))
    ready = list(batches(task, data, options.batch_size, model.device))
    for target in options.reduction:
        tried: list[tuple[float, float]] = []
        begin = time.perf_counter()
        found = calibrate(model, task, ready, target, tolerance=0.01, tried=lambda *pair, into=tried: into.append(pair))
        row = {
            "preset": options.preset,
            "examples": len(data),
            "reduction_asked": target,
            "reduction": round(found.reduction, 4),
            "seconds": round(time.perf_counter() - begin, 1),
            "measurements": len(tried),
            "in_full": len(found.tried),
        }
        print(json.dumps(row | settings()), flush=True)


if __name__ == "__main__":
    main()
