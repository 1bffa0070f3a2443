"""Prune your own BLIP in ten lines: half of its GFLOPs, no training, and what that costs.

python examples/prune_blip.py MODEL_FOLDER DATA [OUT]
"""

import sys
from pathlib import Path

import madtp
from madtp.calibration import calibrate
from madtp.data.load import load_data
from madtp.evaluate import batches, evaluate
from madtp.task.registry import make_task, task_name

source, data, out = [
    *sys.argv[1:],
    *["src/madtp/assets/demo-vqa", "scenes", "runs/examples/pruned"][len(sys.argv) - 1 :],
]

model, processor = madtp.load(source).eval(), madtp.load_processor(source)
task = make_task(task_name(model), processor)
val, test = (load_data(task.name, data, split, limit=32) for split in ("val", "test"))
model.temperature, rows = None, {}
rows["dense"] = evaluate(model, task, test)
calibrate(model, task, list(batches(task, val, 16, model.device)), 0.5)
rows["0.5"] = evaluate(model, task, test)
report = {"task": task.name, "rows": [{"name": name, **row.to_dict()} for name, row in rows.items()]}
madtp.push_to_hub(model, Path(out), processor, report, overwrite=True)
print((Path(out) / "README.md").read_text().partition("## Measured")[2].partition("GFLOPs are")[0].strip())
