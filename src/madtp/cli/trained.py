"""The report of a training run: its model beside the one it started from, and how the training went."""

import json
import logging
from typing import Any

from madtp.cli import common
from madtp.cli.examples import PAIRS, TIMED, chosen, examples_of, hardest, pictures_of

EXAMPLES = 4
logger = logging.getLogger(__name__)


def write_trained(run: Any, result: Any, title: str, start: str | None) -> None:
    """Write `report.json` and, where matplotlib is installed, `report.html` beside the model.

    Args:
        run: a trainer that has run; its model is the one in its folder.
        result: of that model on the validation split.
        title: the command.
        start: folder or hub id of the dense model that a budget is met from; None = the run made a dense model.
    """
    from dataclasses import asdict, replace

    from madtp.errors import InputError
    from madtp.evaluate import evaluate, timed
    from madtp.model.load import load
    from madtp.report import settings, write_report
    from madtp.resume import LOG

    work, data = run.task.quick(), run.val
    models: dict[str, Any] = {}
    rows, results = [], []
    asked = run.config.reductions[-1] if run.config.reductions else 0.0
    with common.progress("dense model, for the report", len(data)) as advance:
        if start is not None:
            dense: Any = load(start).to(run.bare.device).eval()
            dense.temperature = None
            results.append(evaluate(dense, work, data, batch_size=64, advance=advance, faults=run.faults))
            models["dense"] = dense
    if not common.is_first():  # the processes evaluate together, one writes
        return
    best: Any = load(run.out).to(run.bare.device).eval()
    results.append(result)
    if run.faults.skip:  # pictures that could not be read can be neither timed nor shown
        answered = {prediction.image_id for prediction in result.predictions}
        data = replace(data, samples=tuple(sample for sample in data if sample.image_id in answered))
    models[f"{asked:g}" if asked else "dense"] = best
    for (name, model), found in zip(models.items(), results, strict=True):
        whole = None if model.pruning.widths is None else models.get("dense")
        took = timed(model, work, data[:TIMED], pairs=PAIRS, dense=whole) if asked else {}
        rows.append({"name": name, "reduction_asked": 0.0 if name == "dense" else asked, **found.to_dict(), **took})
        rows[-1]["temperature"] = model.temperature
    lines = (run.out / LOG).read_text(encoding="utf-8").splitlines()
    report = {
        "task": work.name,
        "data": data.name,
        "split": data.split,
        "n": len(result.predictions),
        "skipped": run.faults.counts(),
        "texts": work.text_name,
        "model": str(run.out),
        "command": title,
        "seed": run.config.seed,
        "device": str(run.bare.device),
        "config": asdict(run.config),
        "source": run.source,
        **settings(),
        "rows": rows,
        "log": [line for line in map(json.loads, lines) if "done" not in line],
    }
    shown = []
    try:
        for places in (chosen(data, EXAMPLES), hardest(work, data, results, EXAMPLES)):
            seen = {name: pictures_of(model, work, data, places) for name, model in models.items()}
            shown.append(examples_of(work, data, places, seen))
        write_report(run.out, report, *shown)
    except InputError as error:
        logger.warning("the model is there, the page of its report is not: %s", error)
