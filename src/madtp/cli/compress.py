"""`madtp compress`: train a dense model to meet a reduction of its GFLOPs."""

from dataclasses import replace
from typing import Annotated

import typer

from madtp.cli import common
from madtp.cli.train import (
    AccumulateOption,
    BadStepsOption,
    BufferOption,
    CheckpointingOption,
    EpochsOption,
    EvalOption,
    FsdpOption,
    KeepOption,
    LrOption,
    MomentumOption,
    PrecisionOption,
    QueueOption,
    ResumeOption,
    SaveOption,
    ShiftOption,
    StreamOption,
    TextsOption,
    ValOption,
    WorkersOption,
    fit,
    splits,
)
from madtp.errors import InputError

BudgetsOption = Annotated[
    str,
    typer.Option(
        "--reduction",
        help="Share of the GFLOPs to save: 0.5 = half. Several, e.g. 0,0.5,0.8, train one model for all.",
        show_default=False,
    ),
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="madtp, or a comparator of docs/method.md, e.g. tome.",
        autocompletion=common.one_of(*common.METHOD_NAMES),
    ),
]


def parse_budgets(text: str) -> tuple[float, ...]:
    """`"0.5"` or `"0,0.5,0.8"`; 0 = dense. Raises InputError for what is no number or impossible, or dense alone."""
    from madtp.cost.budget import check_reduction

    try:
        budgets = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r} is no number", "--reduction", "use e.g. 0.5, or 0,0.5,0.8") from None
    for i, budget in enumerate(budgets):
        if budget != 0 or i == len(budgets) - 1:
            check_reduction(budget)
    return budgets


def compress(
    model: common.ModelOption,
    data: common.DataOption,
    reduction: BudgetsOption,
    out: common.OutOption,
    task: common.TaskOption = None,
    method: MethodOption = "madtp",
    epochs: EpochsOption = 5,
    batch_size: common.BatchOption = 16,
    lr: LrOption = 3e-4,
    texts: TextsOption = 6,
    alpha: Annotated[float, typer.Option("--alpha", min=0.0, help="Weight of the alignment loss.")] = 0.1,
    alignment: Annotated[
        str,
        typer.Option(
            "--alignment",
            help="That loss: cosine (the paper's), or contrastive over the batch.",
            autocompletion=common.one_of("cosine", "contrastive"),
        ),
    ] = "cosine",
    straight_through: Annotated[
        float,
        typer.Option(
            "--straight-through",
            min=0.0,
            help="Weight of kept tokens' gradient to madtp's scores; 0 = none.",
        ),
    ] = 0.0,
    semantic_tokens: Annotated[
        int | None,
        typer.Option("--semantic-tokens", min=1, help="Start from so many fresh ones (K).", show_default=False),
    ] = None,
    guidance_from: Annotated[
        str | None,
        typer.Option("--guidance-from", help="Start from the semantic tokens of this model.", show_default=False),
    ] = None,
    first_block: Annotated[
        int | None, typer.Option("--first-block", min=0, help="The first that prunes.", show_default=False)
    ] = None,
    distill: Annotated[
        float, typer.Option("--distill", min=0.0, help="Weight of the distance to the dense model; 0 = none.")
    ] = 0.0,
    accumulate: AccumulateOption = 1,
    precision: PrecisionOption = "no",
    gradient_checkpointing: CheckpointingOption = False,
    fsdp: FsdpOption = False,
    shift: ShiftOption = 0,
    eval_every: EvalOption = 1,
    val_images: ValOption = 0,
    save_every: SaveOption = 100,
    prompt: common.PromptOption = None,
    beams: common.BeamsOption = None,
    momentum: MomentumOption = None,
    queue: QueueOption = None,
    limit: common.LimitOption = None,
    skip_missing: common.SkipOption = False,
    on_error: common.OnErrorOption = "stop",
    max_skipped: common.MaxSkippedOption = 0.01,
    workers: WorkersOption = 0,
    stream: StreamOption = False,
    shuffle_buffer: BufferOption = None,
    keep: KeepOption = 2,
    bad_steps: BadStepsOption = 10,
    device: common.DeviceOption = "auto",
    seed: common.SeedOption = 0,
    resume: ResumeOption = False,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Train a dense model to meet --reduction, steering the temperature in closed loop.

    Of several budgets the temperatures that meet them are stored with the model, as by `madtp calibrate`.
    """
    from accelerate.utils import set_seed

    from madtp.prune import METHODS
    from madtp.recipe import TrainConfig
    from madtp.task.distill import Teacher

    common.check_task(task)
    budgets, faults = parse_budgets(reduction), common.make_faults(on_error, max_skipped)
    config = TrainConfig(
        epochs, batch_size, texts, lr, accumulate=accumulate, precision=precision, shift=shift, seed=seed,
        eval_every=eval_every, save_every=save_every, val_images=val_images, reductions=budgets,
        distill=distill, keep=keep, workers=workers, bad_steps=bad_steps,
        gradient_checkpointing=gradient_checkpointing, fsdp=fsdp,
    )  # fmt: skip
    set_seed(seed)  # every state that a checkpoint holds
    network, processor = common.load_model(model)
    task = common.task_of(network, task, model)
    work = common.make_task(task, processor, prompt=prompt, beams=beams, momentum=momentum, queue=queue)
    how = {"limit": limit, "skip_missing": skip_missing, "faults": faults}
    training, validation = splits(task, data, out if resume else None, stream, shuffle_buffer, **how)
    teacher = Teacher(network, distill) if distill else None
    network.pruning = replace(
        network.pruning,
        method=method,
        alpha=alpha,
        alignment=alignment,
        straight_through=straight_through,
        first_block=network.pruning.first_block if first_block is None else first_block,
        temperature=None,
        reduction=None,
    )
    if straight_through and not METHODS[method].guided:
        raise InputError(f"is nothing for {method}, which has no scores to teach", "--straight-through", "leave it out")
    if distill and METHODS[method].pixels:
        raise InputError(f"{method} has other tokens than the dense model", "--distill", "leave it out")
    if semantic_tokens is not None and guidance_from is not None:
        raise InputError("are fresh ones", "--semantic-tokens", "leave it out, or --guidance-from")
    if fsdp and METHODS[method].weights:
        raise InputError(f"{method} ranks whole weights, which no process has", "--fsdp", "leave it out")
    if semantic_tokens is not None:
        network.renew_semantic_tokens(semantic_tokens)
    if guidance_from is not None:
        from madtp.model.load import load
        from madtp.model.start import take_guidance

        take_guidance(network, load(guidance_from), guidance_from)
    title = f"madtp compress {model} to {reduction}"
    source = {
        "model": common.resolved(model),
        "guidance": guidance_from and common.resolved(guidance_from),
        "size": None,
        "data": training.name,
        "limit": limit,
    }
    result = fit(
        network,
        work,
        training,
        validation,
        out,
        config,
        device,
        resume,
        overwrite,
        title,
        source,
        teacher,
        model,
        faults,
    )
    result = {**result, "reduction_asked": budgets[-1], "method": method}
    common.emit(result, as_json, common.summary(result, f"{out}: asked for a reduction of {budgets[-1]:g}"))
