"""Compare methods at one budget, each at the temperature that saves the same share of the GFLOPs, without training.

    python examples/compare_methods.py [MODEL_FOLDER] [DATA]

`madtp compare` does this with training, seeds, times and plots.
"""

import sys
from dataclasses import replace

import madtp
from madtp.calibration import calibrate
from madtp.data.load import load_data
from madtp.errors import InputError
from madtp.evaluate import batches, evaluate
from madtp.task.registry import make_task, task_name

source, data = [*sys.argv[1:], *["src/madtp/assets/demo-vqa", "scenes"][len(sys.argv) - 1 :]]
METHODS, REDUCTION = ("madtp", "class_attention", "tome", "tome_dynamic", "random"), 0.5

model, processor = madtp.load(source).eval(), madtp.load_processor(source)
task = make_task(task_name(model), processor)
test = load_data(task.name, data, "test", limit=32)
ready = list(batches(task, load_data(task.name, data, "val", limit=16), 16, model.device))

print(f"{'method':16} {task.higher_is_better:>9} {'saved':>7} {'tokens':>7}")
for method in ("dense", *METHODS):
    own = "madtp" if method == "dense" else method
    model.pruning = replace(model.pruning, method=own, temperature=None, reduction=None)
    try:
        if method != "dense":
            calibrate(model, task, ready, REDUCTION, tolerance=0.01)
    except InputError as error:
        print(f"{method:16} {error}")
        continue
    row = evaluate(model, task, test)
    quality, kept = row.metrics[task.higher_is_better], float(row.kept.mean())
    print(f"{method:16} {100 * quality:8.1f}% {100 * row.reduction:6.1f}% {100 * kept:6.1f}%")
