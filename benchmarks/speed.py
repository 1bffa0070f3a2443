"""Speed-up of a pruned VQA model over its own dense form on real data (`madtp bench` times any model, on noise).

    python benchmarks/speed.py --model runs/half runs/fifth --data DIR      (each at its own temperature)
    python benchmarks/speed.py --size base --reduction 0.5 0.8 --data scenes (random weights, calibrated here)

Image tower and question encoder, batch after batch of real data, one question an image, dense (SDPA) and pruned in turn
in one process; the median ratio over the pairs. Writes one JSON line a row.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import torch

from madtp.calibration import calibrate
from madtp.cli.common import load_model, make_task
from madtp.cost.latency import time_pairs
from madtp.data.load import load_data
from madtp.data.sample import Data
from madtp.evaluate import batches, evaluating, measure_reduction
from madtp.model.sizes import SIZES, build_processor, build_vqa
from madtp.report import settings
from madtp.runtime import keep_freed_memory


def models(options: argparse.Namespace, data: Data[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, model at the temperature to time, and task of each row."""
    if options.model:
        for path in options.model:
            model, processor = load_model(path)
            yield path, model, make_task("vqa", processor)
        return
    torch.manual_seed(0)
    size = SIZES[options.size]
    processor = build_processor(size, [question.text for sample in data.samples for question in sample.questions])
    model, task = build_vqa(size, len(processor.tokenizer)).eval(), make_task("vqa", processor)
    some = list(batches(task, data[: options.tune], 8, model.device))
    for reduction in options.reduction:
        calibrate(model, task, some, reduction)
        yield f"{options.size}, random weights", model, task


def measure(model: Any, task: Any, data: Data[Any], batch_size: int, pairs: int) -> dict[str, object]:
    """One row: reduction measured on the very images that are timed, and the speed-up."""
    dataset = task.dataset(data)
    single = [(pixels, sample, questions[:1]) for pixels, sample, questions in dataset]
    ready = [task.collate(single[i : i + batch_size]) for i in range(0, len(single), batch_size)]
    temperature = model.temperature

    def run(strength: float | None) -> None:
        model.temperature = strength
        for batch in ready:
            model.encode(**task.inputs(batch))

    reduction = measure_reduction(model, task, ready)
    with evaluating(model):
        times = time_pairs(lambda: run(None), lambda: run(temperature), pairs=pairs)
    model.temperature = temperature
    return {
        "batch_size": batch_size,
        "images": len(data),
        "pairs": pairs,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        **times.account(reduction, len(data)),
    }


def main() -> None:
    """Read the options and print a row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", nargs="+", help="model folders, each timed at its own temperature")
    what.add_argument("--size", choices=list(SIZES), help="random weights of this size instead")
    parser.add_argument("--reduction", nargs="+", type=float, default=[0.5, 0.8], help="with --size")
    parser.add_argument("--tune", type=int, default=32, help="with --size: images to calibrate on")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    keep_freed_memory()
    data = load_data("vqa", options.data, options.split, limit=options.images)
    for name, model, task in models(options, data):
        row = measure(model, task, data, options.batch_size, options.pairs)
        print(json.dumps({"model": name, **row, **settings()}), flush=True)


if __name__ == "__main__":
    main()
