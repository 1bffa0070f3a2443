"""`madtp calibrate`: meet a reduction, or several, without training."""

import logging
from typing import Annotated

import typer

from madtp.cli import common
from madtp.cli.compress import parse_budgets
from madtp.errors import InputError

logger = logging.getLogger(__name__)

BudgetsOption = Annotated[
    str,
    typer.Option(
        "--reduction",
        help="Share of the GFLOPs to save: 0.5 = half. Several, e.g. 0.3,0.5,0.8, are stored as a curve.",
        show_default=False,
    ),
]


def calibrate(
    model: common.ModelOption,
    data: common.DataOption,
    reduction: BudgetsOption,
    out: common.OutOption,
    task: common.TaskOption = None,
    method: common.MethodOption = None,
    split: Annotated[
        str,
        typer.Option(
            "--split", help="Split to measure on: train or val.", autocompletion=common.one_of("train", "val")
        ),
    ] = "val",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images to measure on.")] = 200,
    batch_size: common.BatchOption = 32,
    prompt: common.PromptOption = None,
    beams: common.BeamsOption = None,
    device: common.DeviceOption = "auto",
    dtype: common.DtypeOption = "float32",
    skip_missing: common.SkipOption = False,
    on_error: common.OnErrorOption = "stop",
    max_skipped: common.MaxSkippedOption = 0.01,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Find the temperature that meets --reduction and save the model with it; no weight is changed (`upop`: taken out).

    A model that cannot save as little is saved at its mildest, which is within the budget; the result says how much.
    Of several budgets all that was measured is stored with the model, for `model.set_reduction` and `madtp serve`; it
    is left at the last.
    """
    from dataclasses import replace

    from madtp.calibration import calibrate_all
    from madtp.cli.common import load_data
    from madtp.evaluate import batches
    from madtp.files import check_folder, claim_folder, locked
    from madtp.model.save import save_model
    from madtp.prune import METHODS

    common.check_task(task)
    budgets = [budget for budget in parse_budgets(reduction) if budget]  # dense needs no measuring
    if split not in ("train", "val"):
        raise InputError(
            f"is {split!r}", "--split", "use train or val: what is evaluated on test must not be chosen by it"
        )
    faults = common.make_faults(on_error, max_skipped)
    network, processor = common.load_model(model, device, dtype)
    task = common.task_of(network, task, model)
    some = load_data(task, data, split, limit=limit, skip_missing=skip_missing, faults=faults)
    guided = network.temperature is not None and METHODS[network.pruning.method].guided
    if method is not None:
        network.pruning = replace(network.pruning, method=method, temperature=None, reduction=None)
    work = common.make_task(task, processor, prompt=prompt, beams=beams)
    claim_folder(out, overwrite)
    if METHODS[network.pruning.method].guided and not guided:  # as far as its config tells, they have learned nothing
        said = (
            "no semantic tokens prune %s so far: unless they have learned, %s loses much; use tome_dynamic, or compress"
        )
        logger.warning(said, model, network.pruning.method)
    size = max(1, min(batch_size, len(some) // 8))  # eight batches at least: one is searched on, all confirm it
    with common.progress("reading", len(some)) as advance:
        ready = list(common.tracked(batches(work, some, size, network.device, faults), advance))
    with common.progress(f"measuring {len(some)} images", 15 + 15 * len(budgets)) as advance:

        def tried(strength: float, value: float) -> None:
            advance(1, f"{strength:.3g} -> {value:.3f}")

        found = calibrate_all(network, work, ready, budgets, some, tried=tried)
    kept, _ = common.load_model(model)  # as it was saved: --dtype is for the measuring alone
    kept.pruning = network.pruning
    kept.narrow()
    curve = network.pruning.curve
    with locked(out):
        check_folder(out, overwrite)  # another run may have been there since
        save_model(kept, processor, out)
        faults.attach(out)
    result = {
        "task": task,
        "split": split,
        "n": some.n_texts,
        "method": network.pruning.method,
        "temperature": found.strength,
        "reduction_asked": budgets[-1],
        "reduction": found.reduction,
        "tried": [list(pair) for pair in found.tried],
        "curve": None if curve is None else curve.to_dict(),
        "out": str(out),
        "skipped": faults.counts(),
    }
    common.emit(
        result,
        as_json,
        f"{out}: temperature {found.strength:.4g}, reduction {found.reduction:.3f} on {some.n_texts} {work.text_name}"
        + (f"; a curve of {len(curve.points)} points is stored" if curve is not None and len(budgets) > 1 else ""),
    )
