"""Speed-up of a pruned model over its own dense form, beside the GFLOPs it saves.

    python benchmarks/speed.py --model runs/half runs/fifth --data DIR

Image tower and question encoder, batch after batch of real data, dense (SDPA) and pruned in turn in one process; the
median ratio over the pairs. Writes one JSON line a model.
"""

import argparse
import json
import time

import torch

from madtp.cli.common import load_model, make_task
from madtp.cost.latency import time_pairs
from madtp.data.sample import load_vqa
from madtp.evaluate import batches, evaluating, measure_reduction
from madtp.report import settings
from madtp.runtime import keep_freed_memory


def measure(path: str, data: str, split: str, batch_size: int, images: int, pairs: int, cpu: bool) -> dict[str, object]:
    """One row: reduction measured on the very images that are timed, and the speed-up."""
    model, processor = load_model(path)
    task = make_task("vqa", processor)
    ready = list(batches(task, load_vqa(data, split, limit=images), batch_size, model.device))
    temperature = model.temperature

    def run(strength: float | None) -> None:
        model.temperature = strength
        for batch in ready:
            model.encode(**task.inputs(batch))

    reduction = measure_reduction(model, task, ready)
    if cpu:
        clock, time.perf_counter = time.perf_counter, time.process_time
    with evaluating(model):
        times = time_pairs(lambda: run(None), lambda: run(temperature), pairs=pairs)
    if cpu:
        time.perf_counter = clock
    middle = pairs // 2
    ideal = 1 / (1 - reduction)
    return {
        "model": path,
        "batch_size": batch_size,
        "images": images,
        "threads": torch.get_num_threads(),
        "reduction": round(reduction, 4),
        "dense_ms_per_image": round(1000 * sorted(times.baseline)[middle] / images, 3),
        "pruned_ms_per_image": round(1000 * sorted(times.contender)[middle] / images, 3),
        "speedup": round(times.speedup, 3),
        "ideal": round(ideal, 3),
        "efficiency": round(times.speedup / ideal, 3),
        **settings(),
    }


def main() -> None:
    """Read the options and print a row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="processor time instead of wall time (a busy machine)")
    options = parser.parse_args()
    keep_freed_memory()
    for path in options.model:
        row = measure(
            path, options.data, options.split, options.batch_size, options.images, options.pairs, options.cpu_time
        )
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
