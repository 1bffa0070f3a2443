"""`madtp train`: make a dense model, from scratch or from another model. Also the run that `compress` shares."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError

logger = logging.getLogger(__name__)

EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training images.")]
LrOption = Annotated[float, typer.Option("--lr", help="Peak learning rate (AdamW, warm-up, cosine).")]
TextsOption = Annotated[
    int,
    typer.Option(
        "--texts", "--questions", min=0, help="Most questions, statements or captions of a sample an epoch; 0 = all."
    ),
]
ValOption = Annotated[int, typer.Option("--val-images", min=0, help="Samples of val to validate on; 0 = all.")]
MomentumOption = Annotated[
    float | None,
    typer.Option("--momentum", min=0.0, max=1.0, help="Retrieval: of the momentum towers.", show_default=False),
]
QueueOption = Annotated[
    int | None,
    typer.Option("--queue", min=0, help="Retrieval: length of the queues; 0 = none, plain loss.", show_default=False),
]
AccumulateOption = Annotated[int, typer.Option("--accumulate", min=1, help="Batches a step.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="no (float32), bf16 or fp16.")]
CheckpointingOption = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Less memory, more time: run every block again in backward.")
]
FsdpOption = Annotated[
    bool, typer.Option("--fsdp", help="Under torchrun: share weights, gradients and optimiser out to the processes.")
]
ShiftOption = Annotated[int, typer.Option("--shift", min=0, help="Move training images by up to so many pixels.")]
EvalOption = Annotated[int, typer.Option("--eval-every", min=1, help="Epochs between validations.")]
SaveOption = Annotated[int, typer.Option("--save-every", min=1, help="Steps between checkpoints.")]
KeepOption = Annotated[int, typer.Option("--keep", min=1, help="Checkpoints that are kept, the newest included.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Processes that load pictures; 0 = this one.")]
BadStepsOption = Annotated[
    int, typer.Option("--bad-steps", min=1, help="Steps in a row without a finite loss that end the run.")
]
StreamOption = Annotated[
    bool, typer.Option("--stream", help="Read tar shards in sequence, holding no index of them (docs/scale.md).")
]
BufferOption = Annotated[
    int | None,
    typer.Option(
        "--shuffle-buffer",
        min=1,
        help="With --stream: samples that each loader shuffles among; default 1000.",
        show_default=False,
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in --out from its last checkpoint.")]


def train(
    data: common.DataOption,
    out: common.OutOption,
    task: common.TaskOption = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="From scratch: tiny, small or base; clip-tiny for CLIP.", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Fine-tune this one instead.", show_default=False)
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", help="From scratch, but from this model's towers as they fit.", show_default=False),
    ] = None,
    epochs: EpochsOption = 10,
    batch_size: common.BatchOption = 16,
    lr: LrOption = 1e-3,
    texts: TextsOption = 6,
    tag_epochs: Annotated[
        int, typer.Option("--tag-epochs", min=0, help="First epochs for the image tower alone (from scratch).")
    ] = 0,
    accumulate: AccumulateOption = 1,
    precision: PrecisionOption = "no",
    gradient_checkpointing: CheckpointingOption = False,
    fsdp: FsdpOption = False,
    shift: ShiftOption = 0,
    eval_every: EvalOption = 1,
    val_images: ValOption = 0,
    save_every: SaveOption = 100,
    prompt: common.PromptOption = None,
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
    """Make a dense model: from scratch with --size, or fine-tuned from --model."""
    from accelerate.utils import set_seed

    from madtp.recipe import TrainConfig

    common.check_task(task)
    faults = common.make_faults(on_error, max_skipped)
    if (size is None) == (model is None):
        raise InputError("give one of --size and --model", "train", "e.g. --size tiny")
    if start is not None and size is None:
        raise InputError("goes with --size", "--start", "leave it out: --model has its own towers")
    config = TrainConfig(
        epochs, batch_size, texts, lr, accumulate=accumulate, precision=precision, shift=shift, seed=seed,
        eval_every=eval_every, save_every=save_every, val_images=val_images, tag_epochs=tag_epochs,
        keep=keep, workers=workers, bad_steps=bad_steps,
        gradient_checkpointing=gradient_checkpointing, fsdp=fsdp,
    )  # fmt: skip
    options = {"prompt": prompt, "momentum": momentum, "queue": queue}
    set_seed(seed)  # every state that a checkpoint holds
    network = processor = None
    if model is not None:
        network, processor = common.load_model(model)
        network.temperature, task = None, common.task_of(network, task, model)
    task = task or "vqa"
    how = {"limit": limit, "skip_missing": skip_missing, "faults": faults}
    training, validation = splits(task, data, out if resume else None, stream, shuffle_buffer, **how)
    if size is not None:
        network, processor = fresh(task, size, training, start, prompt)
    work = common.make_task(task, processor, **options)
    source = {"model": common.resolved(model) if model else None, "size": size, "data": training.name, "limit": limit}
    source |= {"start": common.resolved(start) if start else None}
    title = f"madtp train on {data}"
    result = fit(
        network, work, training, validation, out, config, device, resume, overwrite, title, source, faults=faults
    )
    common.emit(result, as_json, common.summary(result, f"{out}: best epoch by validation"))


def splits(task: str, data: str, run: Path | None, stream: bool, buffer: int | None, **how: Any) -> tuple[Any, Any]:
    """What to train and to validate on; `run`: the folder of one that goes on. Raises InputError."""
    from madtp.data.load import load_stream
    from madtp.data.stream import COUNTS

    if not stream:
        if buffer is not None:
            raise InputError("goes with --stream", "--shuffle-buffer", "else all samples are shuffled")
        return common.load_data(task, data, "train", **how), common.load_data(task, data, "val", **how)
    with common.working(f"counting {data} train"):
        training = load_stream(task, data, buffer=buffer or 1000, counts=[run / COUNTS] if run else [], **how)
    return training, common.load_data(task, data, "val", **how)


def fresh(task: str, size: str, training: Any, start: str | None, prompt: str | None) -> tuple[Any, Any]:
    """A model of that size with fresh weights, from torch's random state, and a processor with the data's words."""
    from madtp.model.sizes import build_fresh, find_size
    from madtp.model.start import take_towers
    from madtp.task.registry import task_class

    texts = [*task_class(task).words_of(training), prompt or ""]
    network, processor = build_fresh(task, find_size(size, task), texts)
    if start is not None:
        lender, old = common.load_model(start)
        take_towers(network, processor.tokenizer.get_vocab(), lender, old.tokenizer.get_vocab(), start)
    return network, processor


def fit(
    network: Any,
    work: Any,
    training: Any,
    validation: Any,
    out: Path,
    config: Any,
    device: str,
    resume: bool,
    overwrite: bool,
    title: str,
    source: dict[str, Any],
    teacher: Any = None,
    start: str | None = None,
    faults: Any = None,
) -> dict[str, Any]:
    """Run the trainer with a progress bar; the evaluation of its best model on the validation split.

    A report of the run is written beside the model; with `start`, the dense model that a budget is met from, it has
    both. SIGTERM and Ctrl-C stop it at the end of a step, with a checkpoint.
    """
    from contextlib import nullcontext
    from dataclasses import asdict

    from madtp.checkpoints import STATE, is_there
    from madtp.cli.lost import noticing
    from madtp.data.stream import COUNTS, Stream
    from madtp.files import check_folder, claimed, locked, write_json
    from madtp.report import settings
    from madtp.train import Trainer

    common.start_processes(device)
    place = common.pick_device(device)  # before a run that is there is touched
    if resume and not is_there(out) and (out / "run.json").is_file():
        logger.warning("%s: killed before its first checkpoint, it begins anew", out)
        resume, overwrite = False, True
    if not resume:
        check_folder(out, overwrite)
    run = Trainer(
        network.to(place), work, training, validation, out, config,
        device=place, source=source, teacher=teacher, faults=faults,
    )  # fmt: skip
    first = common.is_first()  # of several processes: the folder is its own
    with run.stop.listening(), noticing():
        if resume:
            with locked(out) if first and out.is_dir() else nullcontext():
                return _go(run, resume, title, start)
        unwritten = run.stop.at_once("before its first step, and nothing was written")
        with unwritten, common.working("looking at the first pictures"):
            run.prepare()
        with claimed(out, overwrite, STATE) if first else nullcontext():
            if first:
                about = {"command": title, "config": asdict(config), "source": run.source, "data": training.name}
                write_json(out / "run.json", {**about, **settings()})
                if isinstance(training, Stream):
                    write_json(out / COUNTS, training.told)
            run.accelerator.wait_for_everyone()
            return _go(run, resume, title, start)


def _go(run: Any, resume: bool, title: str, start: str | None) -> dict[str, Any]:
    """The run with a progress bar, and its report."""
    from madtp.cli.trained import write_trained
    from madtp.recipe import Progress

    with common.progress(title, run.steps) as advance:
        seen = 0

        def report(p: Progress) -> None:
            nonlocal seen
            advance(p.step - seen, f"epoch {p.epoch + 1} loss {p.loss:.3f} {p.note}" if p.loss == p.loss else p.note)
            seen = p.step

        run.report = report
        result = run.run(resume)
    write_trained(run, result, title, start)
    return {
        **result.to_dict(),
        "out": str(run.out),
        "temperature": run.bare.temperature,
        "best_epoch": run.best.get("epoch"),
        "bad_steps": run.bad.total,
        "skipped": run.faults.counts(),
    }
