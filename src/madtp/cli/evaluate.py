"""`madtp evaluate`: quality and cost of a model on a split."""

from pathlib import Path
from typing import Annotated

import typer

from madtp.cli import common
from madtp.cli.examples import PAIRS, TIMED, chosen, examples_of, hardest, pictures_of
from madtp.errors import InputError


def evaluate(
    model: common.ModelOption,
    data: common.DataOption,
    task: common.TaskOption = None,
    split: Annotated[
        str, typer.Option("--split", help="train, val or test.", autocompletion=common.one_of(*common.SPLIT_NAMES))
    ] = "test",
    temperature: common.TemperatureOption = None,
    reduction: common.ReductionOption = None,
    inference: common.InferenceOption = None,
    prompt: common.PromptOption = None,
    beams: common.BeamsOption = None,
    k_test: common.RerankOption = None,
    batch_size: common.BatchOption = 32,
    limit: common.LimitOption = None,
    device: common.DeviceOption = "auto",
    dtype: common.DtypeOption = "float32",
    out: Annotated[
        str | None, typer.Option("--out", help="Folder for report.json and report.html.", show_default=False)
    ] = None,
    skip_missing: common.SkipOption = False,
    on_error: common.OnErrorOption = "stop",
    max_skipped: common.MaxSkippedOption = 0.01,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Pictures in report.html; as many of the hardest.")
    ] = 4,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Write them here, in the benchmark's own format.", show_default=False),
    ] = None,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Quality, measured GFLOPs and tokens kept on a split."""
    from dataclasses import replace

    import torch

    from madtp.cli.common import load_data
    from madtp.evaluate import evaluate as run
    from madtp.evaluate import timed
    from madtp.files import check_folder, check_writable, claim_folder, locked
    from madtp.report import settings, write_report

    common.check_task(task)
    faults = common.make_faults(on_error, max_skipped)
    common.start_processes(device)
    network, processor = common.load_model(model, device, dtype)
    common.set_budget(network, temperature, reduction)
    task = common.task_of(network, task, model)
    work = common.make_task(task, processor, inference=inference, prompt=prompt, beams=beams, k_test=k_test)
    some = load_data(task, data, split, limit=limit, skip_missing=skip_missing, faults=faults)
    if some.hidden and some.hidden >= some.n_texts and predictions is None:
        fix = "add --predictions, or use val" if split == "test" else "add --predictions"
        raise InputError(f"what is true of {split} is not in its files", data, fix)
    if predictions is not None:
        check_writable(predictions)
    if out is not None and common.is_first():
        claim_folder(out, overwrite)
    with common.progress(f"evaluating on {some.name} {split}", len(some)) as advance:
        result = run(network, work, some, batch_size=batch_size, advance=advance, faults=faults)
    if not common.is_first():  # of several processes: all have the whole result
        return
    table = {**result.to_dict(), "skipped": faults.counts()}
    if predictions is not None:
        work.write(predictions, result.scored)
    if out is not None:
        # None after --temperature: nothing was asked for then
        asked = network.pruning.reduction if reduction is None else reduction
        asked = result.reduction if asked is None else asked
        row = {"name": f"{asked:.2g}" if network.temperature else "dense", "reduction_asked": asked, **table}
        row["temperature"] = network.temperature
        head = {
            "task": task,
            "data": some.name,
            "split": split,
            "n": table["n"],
            "texts": work.text_name,
            "model": model,
            "batch_size": batch_size,
        }
        report = {**head, "dtype": dtype, "device": str(network.device), **settings(), "rows": [row]}
        report |= {"threads": torch.get_num_threads(), "timed": "the towers"}
        if faults.skip:  # pictures that could not be read cannot be shown
            answered = {prediction.image_id for prediction in result.predictions}
            some = replace(some, samples=tuple(sample for sample in some if sample.image_id in answered))
        if network.pruning.widths is None:  # else there is no dense form here to be timed beside it
            with common.working("timing dense and pruned in turn"):
                row |= timed(network, work, some[: min(TIMED, batch_size)], pairs=PAIRS)
        shown = [
            examples_of(work, some, places, {row["name"]: pictures_of(network, work, some, places)})
            for places in (chosen(some, examples), hardest(work, some, [result], examples))
        ]
        with locked(out):
            check_folder(out, overwrite)  # another run may have been there since
            write_report(out, report, *shown)
            faults.attach(out)
    common.emit(table, as_json, common.summary(table, f"{model} on {some.name}"))
