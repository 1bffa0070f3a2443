"""`madtp compare`: every method at the same measured GFLOPs, on one model and one data set."""

import logging
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.cli.compress import parse_budgets
from madtp.cli.train import LrOption, MomentumOption, QueueOption, TextsOption, ValOption
from madtp.errors import InputError

logger = logging.getLogger(__name__)
METHODS = "dense,downsample,random,class_attention,tome,tome_dynamic,madtp"


def compare(
    model: common.ModelOption,
    data: common.DataOption,
    out: common.OutOption,
    methods: Annotated[
        str,
        typer.Option(
            "--methods", help="Names, with settings maybe (madtp:alpha=0), joined by commas; dense = the model."
        ),
    ] = METHODS,
    reduction: Annotated[str, typer.Option("--reduction", help="Shares of the GFLOPs to save.")] = "0.5,0.8",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of what is drawn, from seed 0.")] = 1,
    epochs: Annotated[int, typer.Option("--epochs", min=0, help="Also train every method so long; 0 = none.")] = 0,
    split: Annotated[
        str, typer.Option("--split", help="To evaluate on: val or test.", autocompletion=common.one_of("val", "test"))
    ] = "test",
    task: common.TaskOption = None,
    batch_size: common.BatchOption = 16,
    lr: LrOption = 3e-4,
    texts: TextsOption = 6,
    alpha: Annotated[float, typer.Option("--alpha", min=0.0, help="Weight of guided methods' alignment loss.")] = 0.1,
    straight_through: Annotated[
        float, typer.Option("--straight-through", min=0.0, help="As for compress; of guided methods.")
    ] = 0.0,
    semantic_tokens: Annotated[
        int | None,
        typer.Option("--semantic-tokens", min=1, help="Start from so many fresh ones (K).", show_default=False),
    ] = None,
    first_block: Annotated[int, typer.Option("--first-block", min=0, help="The first that prunes.")] = 0,
    tune: Annotated[int, typer.Option("--tune", min=1, help="Images of val to find temperatures on, untrained.")] = 200,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Times that dense and pruned are timed in turn.")] = 7,
    val_images: ValOption = 0,
    prompt: common.PromptOption = None,
    beams: common.BeamsOption = None,
    k_test: common.RerankOption = None,
    momentum: MomentumOption = None,
    queue: QueueOption = None,
    limit: common.LimitOption = None,
    skip_missing: common.SkipOption = False,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Of the hardest, in report.html.")] = 4,
    on_error: common.OnErrorOption = "stop",
    max_skipped: common.MaxSkippedOption = 0.01,
    device: common.DeviceOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Quality, GFLOPs and time of many methods at the same budgets, in one table and two plots.

    Rows that are in --out already are not made again, and a training that was cut short goes on.
    """
    import torch

    from madtp.cli.common import load_data
    from madtp.compare import Comparison, plan, rows_in, variant
    from madtp.files import locked
    from madtp.recipe import Progress, TrainConfig
    from madtp.report import check_plots, settings
    from madtp.report.arena import arena_rich
    from madtp.shared import check_blocks, check_settings, content_of, model_of

    check_plots()
    common.check_task(task)
    faults = common.make_faults(on_error, max_skipped)
    names = _names(methods)
    budgets = tuple(budget for budget in parse_budgets(reduction) if budget)
    if split not in ("val", "test"):
        raise InputError(f"is {split!r}", "--split", "use val or test")
    recipe = TrainConfig(max(epochs, 1), batch_size, texts, lr, val_images=val_images)
    place = common.pick_device(device)
    network, processor = common.load_model(model)
    task = common.task_of(network, task, model)
    if network.pruning.widths is not None:
        raise InputError("has had weights taken out for good", model, "compare from the dense model it was made of")
    check_blocks(network, (first_block, *(variant(name)[1].get("first_block", 0) for name in names)))
    parts = {
        name: load_data(task, data, name, limit=limit, skip_missing=skip_missing, faults=faults)
        for name in dict.fromkeys((*(("train",) if epochs else ()), "val", split))
    }
    if parts[split].hidden:
        raise InputError("what is true of this split is not in its files", "--split", "use val")
    options = {"prompt": prompt, "beams": beams, "k_test": k_test, "momentum": momentum, "queue": queue}
    work = common.make_task(task, processor, **options)
    shared: dict[str, Any] = {
        "task": task, "model": common.resolved(model), "data": parts["val"].name, "split": split, "limit": limit,
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "texts": texts, "alpha": alpha,
        "straight_through": straight_through, "semantic_tokens": semantic_tokens, "first_block": first_block,
        "tune": tune, "val_images": val_images, "device": place, **options,
        "content": content_of(parts.values()), "digest": model_of(network, processor),
    }  # fmt: skip
    check_settings(out, shared)
    faults.attach(out)
    comparison = Comparison(
        model,
        work,
        parts.get("train"),
        parts["val"],
        parts[split],
        out,
        recipe,
        {"alpha": alpha, "straight_through": straight_through, "first_block": first_block},
        semantic_tokens,
        tune,
        pairs,
        place,
        faults,
        listen=True,
    )
    jobs = plan(names, budgets, seeds, epochs > 0, semantic_tokens is not None)
    with locked(out), common.progress(f"comparing on {parts[split].name} {split}", len(jobs)) as advance:
        for job in jobs:
            advance(0, job.name)

            def tell(p: Progress, name: str = job.name) -> None:
                advance(0, f"{name}, step {p.step} of {p.steps}")

            comparison.run(job, tell)
            advance(1)
    result = {
        "schema": 1,
        **shared,
        "n": parts[split].n_texts,
        "pairs": pairs,
        "threads": torch.get_num_threads(),
        **settings(),
        "skipped": faults.counts(),
        "rows": rows_in(out),
    }
    result = _written(comparison, result, examples)
    common.emit(result, as_json, "" if as_json else arena_rich(result["table"]))


def _names(text: str) -> list[str]:
    """Methods by name. Raises InputError for one that is unknown."""
    from madtp.compare import same_name

    names = list(dict.fromkeys(same_name(name.strip()) for name in text.split(",") if name.strip()))
    if not names:
        raise InputError("names no method", "--methods", f"e.g. {METHODS}")
    return names


def _written(comparison: Any, result: dict[str, Any], examples: int) -> dict[str, Any]:
    """The result with its table; written with the CSV, the plots and the page."""
    from madtp.files import atomic_write, write_json
    from madtp.report.arena import arena_csv, arena_table
    from madtp.report.arena_page import arena_page
    from madtp.report.arena_plot import AXES, arena_plot

    out, result = comparison.out, {**result, "table": arena_table(result["rows"])}
    for against in AXES:
        if (drawn := arena_plot(result["table"], against)) is not None:
            atomic_write(out / f"quality-{against}.svg", drawn)
    atomic_write(out / "compare.csv", arena_csv(result["table"]))
    write_json(out / "compare.json", result)
    atomic_write(out / "report.html", arena_page(result, _hardest(comparison, result["rows"], examples)))
    return result


def _hardest(comparison: Any, rows: list[dict[str, Any]], most: int) -> list[Any]:
    """Examples that got the lowest marks, and what each method makes of them; rows without marks are left out."""
    from madtp.cli.examples import examples_of, lowest, pictures_of
    from madtp.compare import Job
    from madtp.report.arena_page import pictured

    task, data = comparison.task, comparison.test
    known = []
    for row in pictured(rows):
        job = Job(row["method"], row["reduction_asked"], row["trained"], row["seed"])
        if (marks := comparison.marks(job)) is not None:
            known.append((job, row["temperature"], dict(zip(*marks, strict=True))))
    # what could not be read in one row is no common example
    shared = [place for place in known[0][2] if all(place in marks for *_, marks in known)] if known else []
    places = lowest(task, shared, [[marks[place] for place in shared] for *_, marks in known], most)
    seen = {}
    with common.progress("the hardest examples", len(known)) as advance:
        for job, temperature, *_ in known if places else ():
            advance(0, job.name)
            try:
                network = comparison.model_of(job, temperature)
            except InputError as error:
                logger.warning("not shown in report.html: %s", error)
            else:
                seen[job.method] = pictures_of(network, task, data, places)
            advance(1)
    return examples_of(task, data, places, seen, titled=True) if seen else []
